"""Pieces in, chunks through the ring, frames to the sinks: the pipeline, its threads and what guards them."""

from .frame_pipeline import FramePipeline
from .live import LiveRun, RecentRuns
from .run_status import MAX_BUFFER_DEPTH, MAX_CHUNK_SIZE

__all__ = ["MAX_BUFFER_DEPTH", "MAX_CHUNK_SIZE", "FramePipeline", "LiveRun", "RecentRuns"]
