"""What a run writes and how it is read back: directory, tables, checkpoints, arrays."""
