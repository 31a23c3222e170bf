"""Policies: categorical and Gaussian distributions over actions."""
