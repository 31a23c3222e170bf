"""Several runs side by side: reports, races, learning-rate curves, domains."""
