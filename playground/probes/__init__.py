"""Probes: identities at a tap that measure and change nothing."""
