"""Generative adversarial networks on points and small images, and the Dirac-GAN."""
