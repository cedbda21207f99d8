"""Clips as video files: the formats, what ffmpeg is asked for, and the sink that feeds it."""
