"""Analytic landscapes and two-player games."""
