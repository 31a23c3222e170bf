"""One module per figure; each has ``figure(view)``."""
