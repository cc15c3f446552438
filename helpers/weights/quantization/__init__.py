"""Weights in fewer bits: how they are stored, and how they multiply."""
