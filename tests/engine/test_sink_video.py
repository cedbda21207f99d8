"""MP4 files hold the frames that came: their number, rate, size and colours, and the tags that belong to them."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from async_decode import PixelFormat, Recorder, SinkError, Stage
from async_decode.frames import Clip
from async_decode.sinks import H264_MP4, VIDEO_FORMATS, StandIn, VideoSink, exact_rate
from async_decode.sinks.files import OutputNames
from async_decode.sinks.video.tags import remove_leftovers
from tests.engine.sink_tools import (
    LENGTH,
    PATIENCE,
    clip_of,
    decode,
    newer_ffmpeg,
    nothing_survives,
    pictures,
    probe,
    psnr,
    run_ffmpeg,
    save,
    tags_of,
)

#: What ffmpeg prints for limited range, BT.709's matrix and primaries, sRGB's transfer, and chroma at the centre.
COLOURS = "tv, bt709/bt709/iec61966-2-1, progressive, center"

#: Colours that tell BT.709 from BT.601 and limited range from full: by name, 8 bits each.
PATCHES = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
    "red": (220, 20, 20),
    "green": (20, 200, 20),
    "blue": (20, 20, 230),
    "skin": (224, 172, 140),
}


def rgb_of(path: Path, size: tuple[int, int]) -> np.ndarray:
    """The frames of a 4:2:0 video in RGB, ``(T, H, W, 3)`` float; ``size`` is width and height.

    Rec. ITU-R BT.709-6, items 3.2 to 3.4, in limited range and with the nearest chroma sample: nothing of ffmpeg's own
    conversion takes part.
    """
    width, height = size
    raw = run_ffmpeg("-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "yuv420p", "-").stdout
    planes = np.frombuffer(raw, np.uint8).reshape(-1, height * 3 // 2, width).astype(float)
    luma = (planes[:, :height] - 16) / 219
    chroma = (planes[:, height:].reshape(-1, 2, height // 2, width // 2) - 128) / 224
    blue, red = np.moveaxis(chroma.repeat(2, axis=2).repeat(2, axis=3), 1, 0)
    r, b = luma + 1.5748 * red, luma + 1.8556 * blue
    g = (luma - 0.2126 * r - 0.0722 * b) / 0.7152
    return np.clip(255 * np.stack([r, g, b], axis=-1), 0, 255)


@pytest.mark.parametrize(
    ("size", "video_size"),
    [((64, 48), (64, 48)), ((67, 48), (68, 48)), ((64, 45), (64, 46)), ((67, 45), (68, 46)), ((1, 1), (2, 2))],
)
def test_every_frame_is_in_the_file_in_an_even_size(
    tmp_path: Path, size: tuple[int, int], video_size: tuple[int, int]
) -> None:
    width, height = size
    frames = pictures(11, height, width, noise=1)
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, crf=4)

    with nothing_survives(tmp_path):
        save(sink, frames)

    assert (sink.path, sink.frames, sink.cut_short) == (tmp_path / "a_00001_.mp4", 11, False)
    assert list(tmp_path.iterdir()) == [sink.path]
    found = probe(sink.path)
    assert (found.codec, found.pixels) == ("h264", f"yuv420p({COLOURS})")
    assert (found.size, found.frames) == (video_size, 11)
    assert bool(sink.notes) == (size != video_size)
    # Padding repeats the last line and column.
    right, bottom = video_size[0] - width, video_size[1] - height
    wanted = np.pad(frames, ((0, 0), (0, bottom), (0, right), (0, 0)), mode="edge")
    got = rgb_of(sink.path, video_size)
    assert got.shape == wanted.shape
    for index in range(11):
        quality = [psnr(got[index], other) for other in wanted]
        # The neighbours are at 25 dB.
        assert quality[index] == max(quality) > 37, quality


@pytest.mark.parametrize(("name", "rgb"), PATCHES.items())
def test_flat_colours_come_back(tmp_path: Path, name: str, rgb: tuple[int, int, int]) -> None:
    frames = np.empty((2, 32, 48, 3), np.uint8)
    frames[:] = rgb
    sink = VideoSink(OutputNames(tmp_path, name), fps=24)
    save(sink, frames)

    # Half a step of 8 bits in each of Y'CbCr is less than two steps in RGB.
    assert np.abs(rgb_of(sink.path, (48, 32)).mean(axis=(0, 1, 2)) - rgb).max() < 2


def test_halves_of_a_picture_keep_their_places(tmp_path: Path) -> None:
    frames = np.empty((2, 64, 64, 3), np.uint8)
    frames[:, :32, :32], frames[:, :32, 32:] = PATCHES["red"], PATCHES["green"]
    frames[:, 32:, :32], frames[:, 32:, 32:] = PATCHES["blue"], PATCHES["skin"]
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24)
    save(sink, frames)

    got = rgb_of(sink.path, (64, 64))
    for y in (4, 36):
        for x in (4, 36):
            part = np.s_[:, y : y + 24, x : x + 24]
            assert np.abs(got[part].mean(axis=(0, 1, 2)) - frames[part].mean(axis=(0, 1, 2))).max() < 3


@newer_ffmpeg("states colours in the stream alone")
def test_container_and_stream_each_name_the_colours(tmp_path: Path) -> None:
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24)
    save(sink, pictures(3))

    # ISO/IEC 14496-12, item 12.1.5: primaries, transfer and matrix by the numbers of H.273, then the range.
    assert b"colrnclx" + struct.pack(">HHHB", 1, 13, 1, 0) in sink.path.read_bytes()
    run_ffmpeg("-v", "error", "-i", sink.path, "-c", "copy", "-f", "h264", tmp_path / "stream.h264")
    assert (
        f"yuv420p({COLOURS})"
        in run_ffmpeg("-v", "verbose", "-i", tmp_path / "stream.h264", check=False).stderr.decode()
    )


def test_index_stands_in_front_so_that_a_browser_can_begin(tmp_path: Path) -> None:
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24)
    save(sink, pictures(3))

    content = sink.path.read_bytes()
    assert -1 < content.find(b"moov") < content.find(b"mdat")
    assert b"moof" not in content


def test_grey_frames_become_a_grey_video(tmp_path: Path) -> None:
    frames = pictures(5, 32, 48, 1, noise=1)
    frames[0] = 255
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, crf=4)
    save(sink, frames)

    got = rgb_of(sink.path, (48, 32))
    assert psnr(got, frames.repeat(3, axis=3)) > 40
    assert np.abs(got[0] - 255).max() < 2


def test_alpha_is_left_out_and_said_so(tmp_path: Path) -> None:
    frames = pictures(5, 32, 48, 4, noise=1)
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, crf=4)
    save(sink, frames)

    assert psnr(rgb_of(sink.path, (48, 32)), frames[..., :3]) > 37
    assert sink.notes == ["the alpha channel was left out: h264 has none"]


def test_memory_may_be_used_again_once_a_chunk_is_done(tmp_path: Path) -> None:
    frames = pictures(8, noise=1)
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, crf=4)
    slot = np.empty_like(frames[:4])
    sink.open(clip_of(frames), Recorder())
    for first in (0, 4):
        slot[:] = frames[first : first + 4]
        sink.write(slot, first).result(PATIENCE)
        slot.fill(0)
    sink.close()

    assert psnr(rgb_of(sink.path, (48, 32)), frames) > 37


def test_each_chunk_and_the_end_are_spans(tmp_path: Path) -> None:
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24)
    spans = save(sink, pictures(9)).spans

    assert [(span.stage, span.lane, span.index, span.frames) for span in spans] == [
        (Stage.SAVE, "video writer", first, count) for first, count in ((0, 4), (4, 4), (8, 1), (9, 0))
    ]
    assert spans[-1].bytes == sink.path.stat().st_size


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (24.0, Fraction(24)),
        (23.976, Fraction(24000, 1001)),
        (Fraction(24000, 1001), Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (16, Fraction(16)),
        (12.5, Fraction(25, 2)),
        pytest.param(0.5, Fraction(1, 2), marks=LENGTH),
        (240.0, Fraction(240)),
        (119.88, Fraction(120000, 1001)),
        (239.76, Fraction(240000, 1001)),
        (np.float32(23.976), Fraction(24000, 1001)),
        (np.int64(16), Fraction(16)),
        (torch.tensor(29.97), Fraction(30000, 1001)),
        (Fraction(1000, 3), Fraction(1000, 3)),
    ],
)
def test_rate_is_exact(tmp_path: Path, fps: float | Fraction, rate: Fraction) -> None:
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=fps, preset="ultrafast")
    save(sink, pictures(10))

    assert sink.rate == rate
    found = probe(sink.path)
    assert found.rate == rate
    assert abs(found.duration - 10 / rate) <= 0.011


@pytest.mark.parametrize("whole", [12, 15, 24, 30, 48, 60, 120, 144, 240])
def test_a_rate_of_television_is_known_by_its_places(whole: int) -> None:
    exact = Fraction(whole * 1000, 1001)

    # 14.985 has no two places.
    for fps in (round(float(exact), places) for places in (3 if whole == 15 else 2, 3, 4, 6)):
        assert exact_rate(fps) == exact, fps
    assert exact_rate(float(whole)) == whole


@pytest.mark.parametrize("fps", [11.98, 12.5, 14.99, 14.98, 23.97, 29.96, 29.985, 143.85, 499.5])
def test_a_rate_beside_one_of_television_is_itself(fps: float) -> None:
    assert exact_rate(fps) == Fraction(str(fps))


@pytest.mark.parametrize("fps", [0, -1, 0.0, float("nan"), float("inf"), Fraction(1, 2_000_000), 10**8])
def test_rate_that_no_file_can_state_is_refused(fps: float | Fraction) -> None:
    with pytest.raises(ValueError, match=r"expected a positive frame rate.*got"):
        exact_rate(fps)


def test_long_tags_in_any_language_come_back(tmp_path: Path) -> None:
    workflow = {"nodes": [{"id": n, "text": 'a "quoted" \\ = ; # \n line, Ärger, 漢字, 𝄞'} for n in range(20_000)]}
    tags = {"prompt": json.dumps(workflow, ensure_ascii=False), "workflow": json.dumps(workflow), "Ünï 漢": "key"}
    assert len(tags["workflow"]) > 1 << 20
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, metadata=tags)

    with nothing_survives(tmp_path):
        save(sink, pictures(2))

    found = tags_of(sink.path)
    assert {key: found[key] for key in tags} == tags
    assert json.loads(found["prompt"]) == workflow
    assert len(decode(sink.path, "rgb24", (48, 32), 3)) == 2


#: Text that JSON may hold: no NUL, and no lone surrogates, which no file can hold.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from("=;#\\\n\r\t\"' "))


@settings(max_examples=15, deadline=None)
@given(values=st.lists(TEXT.filter(bool), min_size=1, max_size=20))
@example(values=["a\rb", "a\r\nb", "\r", " a ", "[a]", ";", "#", "\\", "=\\\\", "end"])
def test_no_character_of_a_tag_needs_care(tmp_path_factory: pytest.TempPathFactory, values: list[str]) -> None:
    tags = {f"key {number}": value for number, value in enumerate(values)}
    sink = VideoSink(OutputNames(tmp_path_factory.mktemp("tags"), "a"), fps=24, preset="ultrafast", metadata=tags)
    save(sink, pictures(1))

    found = tags_of(sink.path)
    assert {key: found.get(key) for key in tags} == tags


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps them in a file with a name until the end")
@pytest.mark.parametrize("folder_is_full", [False, True])
def test_tags_wait_in_a_file_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder_is_full: bool
) -> None:
    # Not even kill -9 can leave a private workflow there.
    folder = tmp_path / "temporary"
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(folder))
    if not folder_is_full:
        folder.mkdir()
    sink = VideoSink(OutputNames(tmp_path / "output", "a"), fps=24, metadata={"workflow": "private"})
    sink.open(clip_of(pictures(4)), Recorder())
    assert folder_is_full or list(folder.iterdir()) == []
    assert [path.suffix for path in (tmp_path / "output").iterdir()] == [".part"]

    sink.write(pictures(4), 0)
    sink.close()

    assert tags_of(sink.path)["workflow"] == "private"


@pytest.mark.parametrize("psutil_is_there", [True, False])
def test_named_tags_of_killed_programs_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, psutil_is_there: bool
) -> None:
    # What Windows needs.
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    if not psutil_is_there:
        monkeypatch.setitem(sys.modules, "psutil", None)
    left, ours = (tmp_path / f"async-decode-{pid}-abc.ffmetadata" for pid in (dead.pid, os.getpid()))
    others = tmp_path / "async-decode-abc.ffmetadata"
    for path in (left, ours, others):
        path.touch()

    remove_leftovers(tmp_path)

    assert set(tmp_path.iterdir()) == ({ours, others} if psutil_is_there else {left, ours, others})


def test_names_go_on_where_image_files_ended(tmp_path: Path) -> None:
    (tmp_path / "ä %03d [1]_00007_.png").touch()
    sink = VideoSink(OutputNames(tmp_path, "ä %03d [1]"), fps=24, preset="ultrafast")
    save(sink, pictures(2))

    assert sink.path == tmp_path / "ä %03d [1]_00008_.mp4"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "ä %03d [1]_00007_.png", sink.path]


def test_lower_crf_is_better_and_larger(tmp_path: Path) -> None:
    frames, results = pictures(6, 64, 96), []
    for crf in (0, 20, 40):
        sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, crf=crf, preset="veryfast")
        save(sink, frames)
        results.append((sink.path.stat().st_size, psnr(rgb_of(sink.path, (96, 64)), frames)))

    assert results == sorted(results, reverse=True)
    assert results[0][1] > results[1][1] > results[2][1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crf": 52}, "crf must be from 0 to 51 for h264, got 52"),
        ({"crf": -1}, "crf must be from 0 to 51 for h264, got -1"),
        ({"preset": "fastest"}, "expected a preset of h264 .*ultrafast.*, got 'fastest'"),
        ({"fps": 0}, "expected a positive frame rate"),
        ({"fps": 0.0004}, "expected a positive frame rate from 0.001 frames a second on, got 0.0004"),
        ({"fps": float("nan")}, "expected a positive frame rate.*got nan"),
        ({"fps": "24"}, "expected a frame rate as a number, got '24'"),
        ({"fps": None}, "expected a frame rate as a number, got None"),
        ({"metadata": {"prompt": "a\0b"}}, "NUL character, got one in 'prompt'"),
    ],
)
def test_bad_options_are_refused_before_anything_is_made(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoSink(OutputNames(tmp_path, "a"), **{"fps": 24, **options})

    assert list(tmp_path.iterdir()) == []


def test_frames_with_two_channels_are_refused(tmp_path: Path) -> None:
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, video=H264_MP4)
    with nothing_survives(tmp_path), pytest.raises(SinkError, match="1, 3 or 4 channels for a video, got 2"):
        sink.open(clip_of(pictures(1, channels=2)), Recorder())

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "height"), [("mp4 (H.265)", 18), ("mp4 (H.265)", 26), ("mp4 (H.265 10-bit)", 40)])
def test_narrow_frames_in_h265(tmp_path: Path, name: str, height: int) -> None:
    # x265 corrupts its memory in frames of this width.
    for _ in range(3):
        sink = VideoSink(
            OutputNames(tmp_path, "a"), fps=25, video=VIDEO_FORMATS[name], stand_in=StandIn(PixelFormat.UINT8)
        )
        with nothing_survives(tmp_path):
            save(sink, pictures(3, height, 34))
        assert sink.path is not None
        found = probe(sink.path)
        assert (found.size, found.frames) == ((34, height), 3)


def test_its_progress_is_frames_and_bytes(tmp_path: Path) -> None:
    sink = VideoSink(OutputNames(tmp_path, "clip"), fps=24)
    assert sink.progress is None

    sink.open(Clip(height=16, width=24, channels=3), Recorder())
    before = sink.progress
    assert sink.write(np.zeros((3, 16, 24, 3), np.uint8), 0).result(PATIENCE) is None
    fed = sink.progress
    sink.close()

    assert before == (0, 0) and fed[0] == 3
    assert sink.path is not None
