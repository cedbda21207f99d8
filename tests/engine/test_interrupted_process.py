"""A program that is killed in the middle of saving leaves under final names nothing but whole files."""

from __future__ import annotations

import itertools
import multiprocessing
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from async_decode import Recorder
from async_decode.files import OutputNames
from async_decode.sinks import ImageFilesSink, PngEncoder
from tests.engine.sink_tools import PATIENCE, clip_of, pictures, save

#: Large enough that most of the time some file is half-written.
FRAMES = pictures(4, 256, 384)


def save_for_ever(folder: Path, told: multiprocessing.connection.Connection) -> None:
    sink = ImageFilesSink(OutputNames(folder, "a"), PngEncoder(compress_level=1), writers=3)
    sink.open(clip_of(FRAMES), Recorder())
    for chunk in itertools.count():
        sink.write(FRAMES, 4 * chunk).result(PATIENCE)
        told.send(chunk)


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and kill -9")
def test_every_png_of_a_killed_program_opens(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    halves = 0
    for number in range(6):
        folder = tmp_path / str(number)
        receiver, sender = context.Pipe(duplex=False)
        program = context.Process(target=save_for_ever, args=(folder, sender))
        program.start()
        for _ in range(number + 1):
            assert receiver.poll(PATIENCE)
            receiver.recv()

        program.kill()

        program.join(PATIENCE)
        assert program.exitcode == -signal.SIGKILL
        whole, parts = sorted(folder.glob("*.png")), sorted(folder.glob("*.png.part"))
        assert len(whole) >= 4 * (number + 1)
        assert len(whole) + len(parts) == len(list(folder.iterdir()))
        # Each of the four frames has its own bytes: a file that holds less, or another's, is none of them.
        for path in whole:
            with Image.open(path) as image:
                image.load()
                assert any(np.array_equal(np.asarray(image), frame) for frame in FRAMES), path
        halves += len(parts)
        # A name that was claimed then is not given again, nor is a file of then replaced.
        before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        later = ImageFilesSink(OutputNames(folder, "a"), PngEncoder(compress_level=1), writers=1)
        save(later, FRAMES[:2])
        assert not set(later.files) & set(before)
        assert {path: path.stat().st_mtime_ns for path in before} == before
    assert halves, "every kill fell between two files: the test has not seen what it is for"
