"""Frozen vectors of images and sentences: stored once, read by row id."""
