"""Bricks that two stages or more use."""
