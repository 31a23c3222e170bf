"""One update: promised and actual change, step length, effective learning rates."""
