"""A queue of prompts in a real ComfyUI: files finished with the node beside files finished in the background.

    python tests/benchmarks/background.py --comfyui ~/ComfyUI --case wan2.1:720x1280:21 --out background.json
    python tests/benchmarks/background.py --comfyui ~/ComfyUI --case demo --cpu --out background.json

It starts a server of its own, with this checkout as a custom node, and queues blocks of prompts, each a decode of a
latent into one H.264 file, without a sampler. Blocks alternate, one way first and then the other: a prompt of one way
alone has nothing to overlap with. A block is over when all its files are whole. Weights are random but for the demo's.

With --spool-gb a third way joins them: in the background, with a spool for what the encoder has no time for. It matters
where a clip is more than the memory for frames that wait; --memory makes that small, in place of a clip that is long.

Idle is where the decoder had nothing to do: from the end of one prompt's last decode step to the beginning of the next
one's first, by the spans that the pack records on the device's clock. Of each file the frames are counted and hashed;
it exits with 1 if they are not the same in all, or if anything else was left in the output folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Behind everything else, as in run.py.
sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch
from bench.environment import command_line, describe
from bench.workload import soft_latent

from async_decode.demo import load_latent
from async_decode.sinks.cores import usable_cores
from async_decode.sinks.ffmpeg import find_ffmpeg
from tests.comfyui.client import Client, Output, Prompt, PromptFailed
from tests.comfyui.cores import VARIABLE, find_cores
from tests.comfyui.fixtures import Models, save_latent
from tests.comfyui.outputs import reports_of
from tests.comfyui.server import Server

WAYS = ("with the node", "in the background")
SPOOLED = "in the background, with a spool"
#: Of each model: its file, the channels of its latent, pixels a latent along each side.
MODELS = {"wan2.1": ("wan21-full", 16, 8), "ltx": ("ltx-full", 128, 32), "narrow": ("wan21", 16, 8)}
DEMO = "demo"
#: The longest that a prompt, or its file, is waited for, in seconds.
PATIENCE = 300.0


@dataclass(frozen=True)
class Ran:
    """One prompt that is over, its file too; times in seconds on the server's clock.

    Attributes:
        began: when the first decode step began; ``ended``: when the last one ended.
        busy: how long the decoder was at it.
        stalled: how long it waited for the file in between.
        waited: how long the node waited for a run in the background before it began.
        over: when the file was whole.
        frames: how many the file holds.
        hash: of these.
        bytes: of the file.
        spooled: frames that waited on disk.
        ahead: the longest that any of them waited there, in seconds.
    """

    began: float
    ended: float
    busy: float
    stalled: float
    waited: float
    over: float
    frames: int
    hash: str
    bytes: int
    spooled: int
    ahead: float


@dataclass(frozen=True)
class Block:
    """Prompts of one way that were queued together.

    Attributes:
        way: when their nodes returned.
        seconds: from queueing the first until all files were whole.
        returned: from queueing the first until the last prompt was over.
        ran: each of them.
    """

    way: str
    seconds: float
    returned: float
    ran: list[Ran]

    @property
    def gaps(self) -> list[float]:
        """How long the decoder had nothing to do between two prompts."""
        return [later.began - earlier.ended for earlier, later in zip(self.ran, self.ran[1:], strict=False)]

    @property
    def for_files(self) -> list[float]:
        """How much of each gap went by before the next prompt could begin, since files were not whole."""
        if self.way == WAYS[0]:
            return [run.over - run.ended for run in self.ran[:-1]]
        return [run.waited for run in self.ran[1:]]

    @property
    def busy(self) -> float:
        """The decoder's share of the time in which prompts were decoded."""
        return sum(run.busy for run in self.ran) / (self.ran[-1].ended - self.ran[0].began)


class Queue:
    """Queues prompts that decode the same clip, in one server.

    Args:
        server: which runs.
        source: adds to a prompt what gives the latent and the VAE.
        spool_gb: of the way with a spool.
        options: of the saving node.
    """

    def __init__(
        self, server: Server, source: Callable[[Prompt], tuple[Output, Output]], *, spool_gb: float, **options: Any
    ) -> None:
        self._server = server
        self._source = source
        self._options = options
        self._spool_gb = spool_gb
        self._client = Client(server.url)
        self._saved = 0

    def set_memory(self, size: int) -> None:
        """How much memory, in bytes, there is for frames that wait."""
        self._client.post(f"/probe/memory/{size}", {})

    def close(self) -> None:
        """Leave the server."""
        self._client.close()

    def run(self, way: str, prompts: int) -> Block:
        """Queue so many prompts; return when all their files are whole.

        Raises:
            PromptFailed: one did not succeed.
            RuntimeError: a file in the background did not become whole.
        """
        made = [self._prompt(way) for _ in range(prompts)]
        began = time.monotonic()
        ids = [self._client.queue(prompt) for prompt, _ in made]
        ended = [
            self._client.events.wait("executing", prompt_id=prompt_id, node=None, timeout=PATIENCE).at
            for prompt_id in ids
        ]
        shown, over = [], ended[-1]
        for prompt_id, (_, node) in zip(ids, made, strict=True):
            result = self._client.wait(prompt_id)
            if not result.ok:
                raise PromptFailed(result)
            ui = result.ui(node)
            if way != WAYS[0]:
                (report,) = reports_of(ui)
                ui, at = self._whole(report["run"])
                over = max(over, at)
            shown.append(ui)
        return Block(way, over - began, ended[-1] - began, [self._ran(ui) for ui in shown])

    def _prompt(self, way: str) -> tuple[Prompt, Output]:
        prompt = Prompt()
        samples, vae = self._source(prompt)
        # Another name each time, so that nothing but the latent and the VAE comes out of ComfyUI's cache.
        self._saved += 1
        node = self._client.add(
            prompt,
            "AsyncVAEDecodeSaveVideo",
            samples=samples,
            vae=vae,
            filename_prefix=f"{self._saved:04}",
            finish=way.partition(",")[0],
            spool_gb=self._spool_gb if way == SPOOLED else 0,
            **self._options,
        )
        return prompt, node

    def _whole(self, run: str) -> tuple[dict[str, Any], float]:
        """What is shown of a run in the background when its file is whole, and when that was."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for event in self._client.events_of("async_vae_decode.saved", run=run):
                return event.data["output"], event.at
            for event in self._client.events_of("async_vae_decode.failed", run=run):
                raise RuntimeError(f"a file in the background was not finished: {event.data}")
            time.sleep(0.01)
        raise TimeoutError(f"a file in the background is not whole after {PATIENCE:g} s")

    def _ran(self, ui: dict[str, Any]) -> Ran:
        (report,), (file,) = reports_of(ui), ui["images"]
        path = self._server.output / file["subfolder"] / file["filename"]
        frames, digest = _frames_of(path)
        size = path.stat().st_size
        path.unlink()
        start, stages = report["started_ns"] / 1e9, report["stages"]
        spans = stages["decode"]["intervals"]
        waits = [re.match(r"waited ([\d.]+) s for a run in the background", text) for text in report["warnings"]]
        return Ran(
            began=start + spans[0][0],
            ended=start + max(spans[-1][1], *(end for _, end in stages["finish"]["intervals"][-1:])),
            busy=stages["decode"]["busy_seconds"] + stages["finish"]["busy_seconds"],
            stalled=report["stall_seconds"],
            waited=sum(float(wait[1]) for wait in waits if wait),
            over=start + report["wall_seconds"],
            frames=frames,
            hash=digest,
            bytes=size,
            spooled=report["spooled"]["frames"] if report["spooled"] else 0,
            ahead=report["spooled"]["ahead_seconds"] if report["spooled"] else 0.0,
        )


def _frames_of(path: Path) -> tuple[int, str]:
    """How many frames a video holds, and a hash of them."""
    command = [find_ffmpeg(), "-v", "error", "-i", str(path), "-map", "0:v", "-f", "framehash", "-hash", "md5", "-"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    hashes = [line.rpartition(",")[2].strip() for line in said.splitlines() if not line.startswith("#")]
    return len(hashes), hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


def _source(case: str, models: Models, inputs: Path) -> Callable[[Prompt], tuple[Output, Output]]:
    """What gives the latent and the VAE of a case; the latent is written for it."""
    name, *rest = case.split(":")
    if name == DEMO:
        latents = int(rest[0]) if rest else None
        save_latent(inputs / "clip.latent", load_latent()[:, :, :latents])

        def demo(prompt: Prompt) -> tuple[Output, Output]:
            return prompt.add("LoadLatent", latent="clip.latent"), Output(prompt.add("AsyncDemoClip").node, 1)

        return demo
    size, latents = rest
    vae, channels, pixels = MODELS[name]
    height, width = (int(side) // pixels for side in size.split("x"))
    save_latent(inputs / "clip.latent", soft_latent(channels, int(latents), height, width))

    def full(prompt: Prompt) -> tuple[Output, Output]:
        return prompt.add("LoadLatent", latent="clip.latent"), models.load(prompt, vae)

    return full


def _summary(way: str, blocks: Sequence[Block], prompts: int) -> dict[str, Any]:
    ours = [block for block in blocks if block.way == way]
    gaps, files = ([value for block in ours for value in getattr(block, name)] for name in ("gaps", "for_files"))
    ran = [run for block in ours for run in block.ran]
    each = [block.seconds / prompts for block in ours]
    return {
        "way": way,
        "prompts": len(ran),
        "seconds_a_prompt": {
            "median": round(statistics.median(each), 3),
            "mean": round(statistics.mean(each), 3),
            "blocks": [round(value, 3) for value in each],
        },
        "seconds_a_prompt_until_the_node_returned": round(
            statistics.mean(block.returned / prompts for block in ours), 3
        ),
        "decoding_seconds": round(statistics.mean(run.busy for run in ran), 3),
        "decoder_busy_share": round(statistics.mean(block.busy for block in ours), 4),
        "idle_between_prompts_ms": _milliseconds(gaps),
        "of_which_for_files_ms": _milliseconds(files),
        "stalled_in_a_prompt_ms": _milliseconds([run.stalled for run in ran]),
        "frames_on_disk": {
            "mean": round(statistics.mean(run.spooled for run in ran), 1),
            "waited_at_most_seconds": round(max(run.ahead for run in ran), 3),
        },
    }


def _milliseconds(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {
        "mean": round(1000 * statistics.mean(values), 1),
        "median": round(1000 * statistics.median(values), 1),
        "most": round(1000 * max(values), 1),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", type=Path, help=f"a checkout of ComfyUI (default: {VARIABLE})")
    parser.add_argument(
        "--case",
        default=DEMO,
        help=f"{DEMO}, also with :LATENTS, or {', '.join(MODELS)} with :HEIGHTxWIDTH:LATENTS (default: {DEMO})",
    )
    parser.add_argument("--blocks", type=int, default=5, help="of each way (default: 5)")
    parser.add_argument("--prompts", type=int, default=5, help="in a block (default: 5)")
    parser.add_argument("--preset", default="veryfast", help="of H.264 (default: veryfast)")
    parser.add_argument("--format", default="mp4 (H.264)", help="of the files (default: %(default)s)")
    parser.add_argument("--spool-gb", type=float, default=0, help="try a spool of this size as well (default: none)")
    parser.add_argument("--memory", type=float, help="MB of memory for frames that wait (default: the pack's)")
    parser.add_argument("--cpu", action="store_true", help="decode on the CPU")
    parser.add_argument("--scratch", type=Path, help="a folder for weights and videos (default: the system's)")
    parser.add_argument("--out", type=Path, required=True, help="the file for the results")
    return parser.parse_args()


def main() -> int:
    """Run the benchmark; return the exit status."""
    options = _options()
    if options.comfyui is not None:
        os.environ[VARIABLE] = str(options.comfyui)
    cores, missing = find_cores()
    if not cores:
        print("\n".join(missing), file=sys.stderr)
        return 2
    core, blocks = cores[0], []
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        base = Path(folder)
        for name in ("models", "server", "no front end"):
            (base / name).mkdir()
        models = Models(core, base / "models")
        server = Server(
            core,
            base / "server",
            models=models.folder,
            # Nobody looks at its pages.
            options=["--front-end-root", str(base / "no front end")],
            env={"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(usable_cores()))},
            cpu=options.cpu,
        )
        source = _source(options.case, models, server.input)
        server.start()
        try:
            queue = Queue(server, source, spool_gb=options.spool_gb, preset=options.preset, format=options.format)
            if options.memory is not None:
                queue.set_memory(int(options.memory * 1e6))
            ways = [*WAYS, *([SPOOLED] if options.spool_gb else [])]
            # Where the decoder has a faster form, the first decode of a size proves it.
            warm = [queue.run(way, 1) for way in (WAYS[0], *ways)]
            for number in range(options.blocks):
                for way in ways if number % 2 == 0 else reversed(ways):
                    blocks.append(queue.run(way, options.prompts))
                    print(f"{way}: {blocks[-1].seconds / options.prompts:.3f} s a prompt", flush=True)
            left = sorted(path.name for path in server.output.rglob("*") if path.is_file())
            queue.close()
        except BaseException:
            print(server.log()[-6000:], file=sys.stderr)
            raise
        finally:
            server.stop()
    files = {(run.frames, run.hash) for block in [*warm, *blocks] for run in block.ran}
    ran = [run for block in blocks for run in block.ran]
    found = {
        "command": command_line("tests/benchmarks/background.py", sys.argv[1:]),
        "comfyui": core.version,
        **describe(torch.device("cpu" if options.cpu else "cuda")),
        "case": options.case,
        "format": options.format,
        "preset": options.preset,
        "spool_gb": options.spool_gb,
        "megabytes_of_memory_for_frames": options.memory,
        "blocks_of_each_way": options.blocks,
        "prompts_in_a_block": options.prompts,
        "files": {
            "whole": len(ran),
            "frames": ran[0].frames,
            "same_frames": len(files) == 1,
            "megabytes": round(ran[0].bytes / 1e6, 2),
            "left_behind": left,
        },
        "ways": [_summary(way, blocks, options.prompts) for way in ways],
    }
    medians = [way["seconds_a_prompt"]["median"] for way in found["ways"]]
    found["background_over_with_the_node"] = round(medians[1] / medians[0], 3)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found["ways"], indent=2))
    print(f"in the background over with the node: {found['background_over_with_the_node']}")
    return 0 if len(files) == 1 and not left else 1


if __name__ == "__main__":
    sys.exit(main())
