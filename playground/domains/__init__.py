"""The domains: problems by kind, each with the same files in the same order."""
