"""Gradient noise: covariance, noise scale, signal-to-noise ratio."""
