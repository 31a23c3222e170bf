"""Supervised learning: regression and classification by batches of a fixed data set."""
