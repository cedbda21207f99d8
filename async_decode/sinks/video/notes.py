"""What a video cannot keep of its frames: an error where it would be all of them, else a note for people to read."""

from __future__ import annotations

from ...errors import SinkError
from ...frames import Clip, PixelFormat
from .format import VideoFormat
from .sound import Sound


def check_size(video: VideoFormat, width: int, height: int) -> None:
    """Refuse frames that are too small or too large for the codec.

    Raises:
        SinkError: they are.
    """
    made = video.size(width, height)
    if any(side < least for side, least in zip(made, video.min_size, strict=True)):
        limit = "at least {}x{}".format(*video.min_size)
    elif any(side > most for side, most in zip(made, video.max_size, strict=True)):
        limit = "at most {}x{}".format(*video.max_size)
    else:
        return
    raise SinkError(f"expected frames of {limit} for {video.name}, got {width}x{height}; choose another format")


def differences(
    video: VideoFormat, clip: Clip, pixel_format: PixelFormat, *, sound: Sound | None, untagged: bool
) -> list[str]:
    """What will be different in the file, a sentence each.

    Args:
        video: the format.
        clip: geometry of the frames.
        pixel_format: what is encoded of them.
        sound: what there is to hear.
        untagged: there are prompt and workflow, but no place for them.
    """
    notes = []
    planes = pixel_format.planes
    keeps_alpha = video.alpha_format is not None and (planes is None or planes.alpha)
    if clip.channels == 4 and not keeps_alpha:
        notes.append(f"the alpha channel was left out: {video.name} has none")
    elif clip.channels == 4 and video.encoder == "gif":
        notes.append("what is at least half opaque is shown, the rest is not: gif knows no shades of alpha")
    width, height = video.size(clip.width, clip.height)
    if (width, height) != (clip.width, clip.height):
        notes.append(
            f"the video is {width}x{height}, the frames are {clip.width}x{clip.height}: {video.name} needs even "
            "sizes, so the last column or line is repeated"
        )
    if sound is not None and video.sound is None:
        notes.append(f"the sound was left out: {video.name} has none")
    elif sound is not None and sound.file_channels == 2 < sound.channels:
        notes.append(
            f"the {sound.channels} channels of sound were mixed into 2, every other one on each side: so many have no "
            "layout that is known here; mix them yourself, into 6 at most, for another sound"
        )
    elif sound is not None and sound.file_channels < sound.channels:
        notes.append(
            f"the {sound.channels} channels of sound were mixed into {sound.file_channels} (5.1), the most that a file "
            "gets here: ComfyUI cannot read 8 back"
        )
    if sound is not None and video.sound is not None and not sound.is_finite:
        notes.append(
            "the sound holds NaN, which is silent in the file, or infinity, which is as loud as can be; look at the "
            "node that made it"
        )
    if untagged:
        notes.append(f"prompt and workflow were left out: {video.name} has no place for them")
    return notes
