"""Three hundred prompts, of which every fifth is cancelled, fails or is refused, leave the server as it was."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.comfyui.client import Client
from tests.comfyui.encoders import Encoders
from tests.comfyui.fixtures import Models
from tests.comfyui.outputs import wait_until
from tests.comfyui.server import Server
from tests.soak.held import MIB, Held, held_by
from tests.soak.prompts import FAULTS, GOOD, Bench

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PROMPTS = 300
#: Every so many prompts one is a fault.
FAULT_EVERY = 5
#: Before counting begins: each fault has happened twice, each other prompt many times. (After once, memory grew in one
#: run by another 28 MiB, to what it had at the end of every run.)
WARM_UP = 2 * FAULT_EVERY * len(FAULTS)
#: Prompts of one page; then somebody reloads it.
RELOADED_AFTER = 25
#: By which resident memory may differ, in bytes.
MEMORY = 20 * MIB


def counted(held: Held) -> Held:
    """Without what is compared with a tolerance."""
    return replace(held, resident=0)


def settled(server: Server) -> Held:
    """What the server holds, once two looks at it agree."""
    looks = [held_by(server)]

    def agree() -> bool:
        looks.append(held_by(server))
        return counted(looks[-1]) == counted(looks[-2])

    wait_until(agree, "the server is at rest")
    return looks[-1]


def test_the_server_is_as_before(
    server: Server, models: Models, encoders: Encoders, small_disk: Path, figures: list[str]
) -> None:
    good, faults = itertools.cycle(GOOD.items()), itertools.cycle(FAULTS.items())
    numbers = itertools.count(1)

    def run(prompts: int) -> int:
        """How many of them were faults."""
        failed = 0
        while prompts:
            with contextlib.closing(Client(server.url)) as client:
                bench = Bench(client, server, models, encoders, small_disk)
                for _ in range(min(prompts, RELOADED_AFTER)):
                    prompts -= 1
                    bench.number = next(numbers)
                    fault = bench.number % FAULT_EVERY == 0
                    failed += fault
                    name, prompt = next(faults if fault else good)
                    try:
                        prompt(bench)
                    except BaseException as error:
                        error.add_note(f"in prompt {bench.number}, {name}")
                        raise
        return failed

    run(WARM_UP)
    # A websocket that has just been closed may still be open on the server's side.
    before = settled(server)
    began = time.monotonic()
    failed = run(PROMPTS)
    seconds = time.monotonic() - began

    after = held_by(server)

    def is_as_before() -> bool:
        nonlocal after
        after = held_by(server)
        return counted(after) == counted(before)

    # What has ended may take a moment to go, as the connection of the look itself; what stays does not.
    with contextlib.suppress(TimeoutError):
        wait_until(is_as_before, "the server is as before")
    grown = after.resident - before.resident
    figures.append(
        f"ComfyUI {server.core.version}: {PROMPTS} prompts, {failed} of them faults, in {seconds:.0f} s; resident "
        f"memory {before.resident / MIB:.0f} MiB before, {grown / MIB:+.1f} MiB after; {after.os_threads} threads, "
        f"{after.descriptors.total()} descriptors, {after.children.total()} child processes, {len(after.parts)} "
        f"unfinished and {len(after.temporary)} temporary files"
    )
    assert failed == PROMPTS // FAULT_EVERY
    assert counted(after) == counted(before)
    assert not after.children and not after.parts
    assert grown < MEMORY
