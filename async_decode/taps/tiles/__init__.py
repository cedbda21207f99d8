"""Decoding in tiles of space and windows of time."""
