"""Tier 0: norms, ratios and cosines of gradients and updates, per tensor."""
