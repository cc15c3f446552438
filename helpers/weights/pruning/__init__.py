"""Weights that are left out: single ones that become zero, and whole heads and channels that make matrices smaller."""
