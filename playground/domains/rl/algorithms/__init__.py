"""Policy-gradient algorithms, one per module."""
