"""The compute device's side of a frame's way: its conversion, the ring through which it travels, and the device's time.

Nothing in here knows of threads, sinks or models.
"""
