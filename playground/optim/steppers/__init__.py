"""Steppers: how a round of moves becomes gradients. ``config`` is torch-free."""
