"""What a video cannot keep of its frames: an error where it would be all of them, else a note for people to read."""

from __future__ import annotations

from ...errors import SinkError
from ...frames import Clip, PixelFormat
from .formats import VideoFormat


def check_size(video: VideoFormat, clip: Clip) -> None:
    """Refuse frames that are too small for the codec.

    Raises:
        SinkError: they are.
    """
    if min(video.size(clip)) < video.min_side:
        raise SinkError(
            f"expected frames of at least {video.min_side}x{video.min_side} for {video.name}, got "
            f"{clip.width}x{clip.height}; choose another format"
        )


def differences(
    video: VideoFormat, clip: Clip, pixel_format: PixelFormat, *, silenced: bool, untagged: bool
) -> list[str]:
    """What will be different in the file, a sentence each.

    Args:
        video: the format.
        clip: geometry of the frames.
        pixel_format: what is encoded of them.
        silenced: there is sound, but no place for it.
        untagged: likewise for prompt and workflow.
    """
    notes = []
    planes = pixel_format.planes
    keeps_alpha = video.alpha_format is not None and (planes is None or planes.alpha)
    if clip.channels == 4 and not keeps_alpha and video.encoder != "gif":
        notes.append(f"the alpha channel was left out: {video.name} has none")
    width, height = video.size(clip)
    if (width, height) != (clip.width, clip.height):
        notes.append(
            f"the video is {width}x{height}, the frames are {clip.width}x{clip.height}: {video.name} needs even "
            "sizes, so the last column or line is repeated"
        )
    if silenced:
        notes.append(f"the sound was left out: {video.name} has none")
    if untagged:
        notes.append(f"prompt and workflow were left out: {video.name} has no place for them")
    return notes
