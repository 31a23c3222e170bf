"""Signal flow: forward and backward signals per layer, dead and saturated units."""
