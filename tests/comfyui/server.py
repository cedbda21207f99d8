"""Starts and stops real ComfyUI servers, each in a base directory of its own; talks to them only to see them ready."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.comfyui.cores import Core

REPOSITORY = Path(__file__).parents[2]
SHIM = Path(__file__).parent / "core_shim"
BOOTSTRAP = SHIM / "bootstrap.py"
PROBE_NODES = SHIM / "probe_nodes"
#: One thread, because torch's threads spin while they wait for each other: on a busy machine two take many times as
#: long as one.
ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
#: What the pack's folder is called in ``custom_nodes``: not its own name, because users choose it.
PACK_FOLDER = "named-by-the-user"

#: Set, the servers compute where they would for a user, on the GPU; else on the CPU.
GPU_VARIABLE = "COMFYUI_TEST_GPU"

READY_TIMEOUT = 180.0
STOP_TIMEOUT = 10.0


class ServerFailed(RuntimeError):
    """The server ended, or did not become ready; the message holds the end of its log."""


class Server:
    """A ComfyUI server.

    Args:
        core: the checkout to run.
        base: an empty folder for models, custom nodes, input, output and the rest.
        models: a further folder with VAE files.
        options: further command-line options, such as ``--disable-metadata``.
        env: further environment variables.
        output: where it saves, when not in ``base``.
        cpu: whether it computes on the CPU; ``None``: unless ``COMFYUI_TEST_GPU`` is set.
    """

    def __init__(
        self,
        core: Core,
        base: Path,
        *,
        models: Path | None = None,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        output: Path | None = None,
        cpu: bool | None = None,
    ) -> None:
        self.core = core
        self.base = base
        if cpu is None:
            cpu = not os.environ.get(GPU_VARIABLE)
        self.options = [*(["--cpu"] if cpu else []), *options]
        self.env = dict(env or {})
        self.input = base / "input"
        self.output = output or base / "output"
        self.temp = base / "temp"
        self.log_file = base / "server.log"
        #: How long the last start took, in seconds.
        self.start_seconds = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        for folder in ("custom_nodes", "models/vae", "input", "output", "temp", "user"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        (base / "custom_nodes" / PACK_FOLDER).symlink_to(REPOSITORY, target_is_directory=True)
        (base / "custom_nodes" / PROBE_NODES.name).symlink_to(PROBE_NODES, target_is_directory=True)
        # JSON is YAML, too.
        (base / "models.yaml").write_text(json.dumps({"tests": {"vae": str(models)}} if models else {}))

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Its process."""
        if self._process is None:
            raise ServerFailed("the server has not been started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and return when it answers.

        Raises:
            ServerFailed: it ended, or did not answer in time.
        """
        self._port = _free_port()
        began = time.monotonic()
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in self._command()],
                cwd=self.base,
                env={**os.environ, **ENVIRONMENT, **self.env},
                # Held open as long as the tests run: the server ends when they do.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready(began + READY_TIMEOUT)
        except BaseException:
            self.kill()
            raise
        self.start_seconds = time.monotonic() - began

    def stop(self) -> None:
        """Ask it to end as Ctrl-C does, then end what is left of it."""
        if self.running:
            os.kill(self.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT)  # type: ignore[union-attr]
        self.kill()

    def kill(self) -> None:
        """End it and its children at once."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process = None

    def restart(self) -> None:
        """Stop it and start it again, on another port and with the same folders."""
        self.stop()
        self.start()

    def children(self) -> dict[int, str]:
        """The names of its child processes by their ids, ffmpeg's for example (on Linux; elsewhere none are seen)."""
        found = {}
        for listed in Path(f"/proc/{self.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for pid in listed.read_text().split():
                    found[int(pid)] = Path(f"/proc/{pid}/comm").read_text().strip()
        return found

    def threads(self) -> list[str]:
        """The names of its threads."""
        with urllib.request.urlopen(f"{self.url}/probe/threads", timeout=60) as response:
            return [str(name) for name in json.loads(response.read())]

    def forget_peak(self) -> None:
        """Let ``VmHWM`` of ``memory`` start again from what it holds now (on Linux)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def memory(self) -> dict[str, int]:
        """Bytes that it holds now (``VmRSS``) and held at most (``VmHWM``), as Linux counts them."""
        lines = Path(f"/proc/{self.pid}/status").read_text()
        return {key: int(kib) * 1024 for key, kib in re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", lines)}

    def log(self, start: int = 0) -> str:
        """What it has printed, from byte ``start`` on, without colours."""
        with self.log_file.open("rb") as file:
            file.seek(start)
            return re.sub(r"\x1b\[[0-9;]*m", "", file.read().decode(errors="replace"))

    def log_size(self) -> int:
        """How many bytes it has printed."""
        return self.log_file.stat().st_size if self.log_file.exists() else 0

    def import_error(self, folder: str = PACK_FOLDER) -> str | None:
        """Why a folder of ``custom_nodes`` was not imported, as the log tells it; None when it was."""
        log = self.log()
        path = re.escape(str(self.base / "custom_nodes" / folder))
        outcome = re.search(rf"seconds( \(IMPORT FAILED\))?: {path}$", log, re.MULTILINE)
        if outcome is None:
            return f"{folder} is not among the custom nodes that the log lists"
        if outcome[1] is None:
            return None
        message = re.search(rf"Cannot import {path} module for custom nodes: .*", log)
        return log[: message.end()][-4000:] if message else f"{folder}: IMPORT FAILED"

    def _command(self) -> Iterator[str | Path]:
        yield from (self.core.python, BOOTSTRAP, "--stop-with-stdin", self.core.main)
        yield from ("--listen", "127.0.0.1", "--port", str(self._port), "--base-directory", self.base)
        yield from ("--output-directory", self.output, "--extra-model-paths-config", self.base / "models.yaml")
        # Not in the checkout, where each start would find the one before it.
        yield from ("--database-url", f"sqlite:///{self.base}/user/comfyui.db")
        yield from ("--disable-api-nodes", "--disable-auto-launch", *self.options)

    def _wait_until_ready(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            if not self.running:
                raise ServerFailed(f"ComfyUI {self.core.version} ended while it started:\n{self.log()[-6000:]}")
            with (
                contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError),
                urllib.request.urlopen(f"{self.url}/system_stats", timeout=5),
            ):
                return
            time.sleep(0.1)
        raise ServerFailed(f"ComfyUI {self.core.version} did not answer in time:\n{self.log()[-6000:]}")


class Servers:
    """All servers of a test run: one main server at a time, because machines are small, and further ones on demand."""

    def __init__(self) -> None:
        self._main: Server | None = None
        self._all: list[Server] = []

    def main(self, core: Core, make_base: Callable[[], Path], models: Path) -> Server:
        """The main server for ``core``, started if it does not run; another core's is stopped."""
        if self._main is not None and (self._main.core != core or not self._main.running):
            self._main.stop()
            self._main = None
        if self._main is None:
            self._main = self.add(Server(core, make_base(), models=models))
            self._main.start()
        return self._main

    def add(self, server: Server) -> Server:
        """Have ``server`` stopped at the end of the test run, at the latest."""
        self._all.append(server)
        return server

    def running(self) -> list[Server]:
        """Those that live."""
        return [server for server in self._all if server.running]

    def close(self) -> None:
        """Stop all of them."""
        for server in self._all:
            server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
