"""The game: its Jacobian, spectrum, rotation and stable step."""
