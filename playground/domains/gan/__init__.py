"""Generative adversarial networks on mixtures of Gaussians, and the Dirac-GAN."""
