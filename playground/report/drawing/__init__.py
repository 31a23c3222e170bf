"""What figures are drawn with: style, text, curves, panels, statistics."""
