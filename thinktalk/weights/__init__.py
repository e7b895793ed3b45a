"""Checkpoints: the official layout and our own, in and out."""
