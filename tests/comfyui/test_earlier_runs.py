"""Advice with figures: what another setting took in an earlier run like this one, and only that."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.comfyui.client import Client, Output, Prompt
from tests.comfyui.encoders import Encoders
from tests.comfyui.outputs import names_in, report_of, reports_of, wait_until
from tests.comfyui.server import Server

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the encoder that waits is a shell script")

WAYS = ["with the node", "in the background"]


@pytest.fixture
def encoders(own_ffmpeg: Server) -> Iterator[Encoders]:
    held = Encoders(own_ffmpeg)
    held.go()
    yield held
    held.go()


@pytest.fixture
def own_client(own_ffmpeg: Server, connect: Callable[[Server], Client]) -> Iterator[Client]:
    client = connect(own_ffmpeg)
    yield client
    client.settle()


class Saver:
    """Saves clips that are there already, so that saving is the limit whenever the encoder waits."""

    def __init__(self, client: Client, server: Server, encoders: Encoders, way: str) -> None:
        self._client, self._server, self._encoders, self._way = client, server, encoders, way
        self._count = 0

    def save(self, *, held: float = 0.0, size: str = "16,24", **options: object) -> dict[str, Any]:
        """The report of a run whose encoder waits for so many seconds when all frames are with it."""
        if held:
            self._encoders.stop()
        prompt_id, node = self._begun(size, options)
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > held, "the time that the encoder takes")
        self._encoders.go()
        result = self._client.wait(prompt_id)
        if self._way == WAYS[0]:
            return report_of(result, node)
        run = report_of(result, node)["run"]
        (report,) = reports_of(self._client.events.wait("async_vae_decode.saved", run=run).data["output"])
        return report

    def cancel(self, *, size: str, **options: object) -> None:
        """A run that the user cancels while the encoder waits."""
        self._encoders.stop()
        prompt_id, _ = self._begun(size, options)
        self._client.interrupt(prompt_id)
        assert self._client.wait(prompt_id).interrupted
        self._encoders.go()

    def _begun(self, size: str, options: dict[str, object]) -> tuple[str, Output]:
        """The prompt and the node of a run that has begun to save."""
        self._count += 1
        folder = f"earlier/{self._way}/{self._count}"
        prompt = Prompt()
        shape = f"9,{size},3"
        images = prompt.add("TestImages", shape=shape, seed=self._count, dtype="float32", layout="contiguous")
        options = {"finish": self._way, "preset": "medium", **options}
        node = self._client.add(prompt, "AsyncSaveVideo", images=images, filename_prefix=f"{folder}/a", **options)
        prompt_id = self._client.queue(prompt)
        wait_until(lambda: names_in(self._server.output / folder), "the encoder")
        return prompt_id, node


@pytest.mark.parametrize("way", WAYS)
def test_the_advice_names_what_an_earlier_run_took(
    own_client: Client, own_ffmpeg: Server, encoders: Encoders, way: str
) -> None:
    saver = Saver(own_client, own_ffmpeg, encoders, way)

    fast = saver.save(preset="veryfast")
    slow = saver.save(held=2 * fast["waited_seconds"] + 2)
    again = saver.save(held=fast["waited_seconds"] + 0.5, preset="veryfast")

    measured = slow["advice_measured"]
    assert measured["setting"] == "preset veryfast"
    assert measured["other"] == pytest.approx(fast["waited_seconds"], abs=1e-4)
    assert measured["own"] == slow["waited_seconds"] > measured["other"]
    assert "An earlier run like this one waited" in slow["advice"]
    assert "with preset veryfast, this one" in slow["advice"]
    # The other preset was no faster.
    assert again["bottleneck"] == "save" and "earlier run" not in again["advice"]


def test_other_runs_are_not_compared(own_client: Client, own_ffmpeg: Server, encoders: Encoders) -> None:
    saver = Saver(own_client, own_ffmpeg, encoders, WAYS[0])
    fast = saver.save(preset="veryfast", size="32,24")
    held = 2 * fast["waited_seconds"] + 2

    for other in ({"size": "24,32"}, {"quality": 20}, {"format": "webm (VP9)"}):
        slow = saver.save(held=held, **{"size": "32,24", **other})
        assert slow["advice_measured"] is None, other


def test_a_run_that_was_cancelled_is_not_remembered(own_client: Client, own_ffmpeg: Server, encoders: Encoders) -> None:
    saver = Saver(own_client, own_ffmpeg, encoders, WAYS[0])
    saver.cancel(preset="veryfast", size="40,48")
    saver.save(size="40,48")

    known = json.loads((own_ffmpeg.base / "user" / "async_vae_decode" / "saving.json").read_text())
    assert [list(runs) for kind, runs in known.items() if "of 48x40" in kind] == [["preset medium"]]


def test_a_file_that_nobody_can_read_costs_nothing_but_advice(
    own_client: Client, own_ffmpeg: Server, encoders: Encoders
) -> None:
    kept = own_ffmpeg.base / "user" / "async_vae_decode" / "saving.json"
    saver = Saver(own_client, own_ffmpeg, encoders, WAYS[0])
    garbages = ("[1", '["a list"]', '{"kind": {"setting": 3}}', '{"kind": {"setting": ["x", "y"]}}')
    for garbage in (*garbages, '{"kind": {"setting": [NaN, 1]}}'):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(garbage)

        assert saver.save(size="48,48")["outcome"] == "completed"

        (known,) = json.loads(kept.read_text()).values()
        assert list(known) == ["preset medium"]
