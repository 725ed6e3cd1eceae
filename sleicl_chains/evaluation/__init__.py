"""Honest tables: arms on the same rows, baselines beside them, and what the figures show in words."""
