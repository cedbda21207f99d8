"""Clips as image files: the formats, and the sink that writes them with several writers."""
