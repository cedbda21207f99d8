"""Fixtures for tests against real ComfyUI servers, which are found by ``cores.py``.

``server`` is the main server of each core, ``client`` a front end of it, ``models`` its VAE files; ``start_server``
starts further servers with other options.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.comfyui.client import Client
from tests.comfyui.cores import Core, core_params
from tests.comfyui.family_runs import FamilyRuns
from tests.comfyui.fixtures import Models
from tests.comfyui.server import Server, Servers

SERVERS = pytest.StashKey[Servers]()
LOG_STARTS = pytest.StashKey[dict[Server, int]]()
#: The end of a log that is shown when a test fails.
SHOWN_LINES = 150


def servers_of(config: pytest.Config) -> Servers:
    """The servers of this test run, which end with it."""
    if SERVERS not in config.stash:
        config.stash[SERVERS] = servers = Servers()
        config.add_cleanup(servers.close)
    return config.stash[SERVERS]


@pytest.fixture(scope="session", params=core_params())
def core(request: pytest.FixtureRequest) -> Core:
    """A ComfyUI checkout: every test that needs one runs on each."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def models(core: Core, pytestconfig: pytest.Config) -> Models:
    """The VAE files of ``core``."""
    # There is none with "-p no:cacheprovider".
    cache = getattr(pytestconfig, "cache", None)
    folder = Path(tempfile.mkdtemp()) if cache is None else cache.mkdir(f"async-vae-decode-vaes-{core.version}")
    return Models(core, folder)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FamilyRuns]:
    """What every VAE family does in each core."""
    runs = FamilyRuns(tmp_path_factory.mktemp("families"))
    yield runs
    runs.close()


@pytest.fixture
def server(core: Core, models: Models, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """The main server of ``core``: started once, and again after a test that ended it."""
    return servers_of(pytestconfig).main(core, lambda: tmp_path_factory.mktemp("server"), models.folder)


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A front end of ``server``; the server is idle when the test begins and is made idle when it ends."""
    client = Client(server.url)
    yield client
    try:
        if server.running:
            client.settle()
    except BaseException:
        # What hangs must not take the tests after it along.
        server.kill()
        raise
    finally:
        client.close()


@pytest.fixture
def start_server(
    core: Core, models: Models, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Server]]:
    """Starts a further server of ``core``, with the keywords of ``Server``; it ends with the test."""
    started: list[Server] = []

    def start(**settings: Any) -> Server:
        server = Server(core, tmp_path_factory.mktemp("server"), models=models.folder, **settings)
        started.append(servers_of(pytestconfig).add(server))
        server.start()
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def connect() -> Iterator[Callable[[Server], Client]]:
    """Makes further clients, which are closed with the test."""
    clients: list[Client] = []

    def connect(server: Server) -> Client:
        clients.append(Client(server.url))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def own_ffmpeg(
    core: Core, models: Models, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that saves no metadata, and runs what is called ``ffmpeg`` in its base folder."""
    base = tmp_path_factory.mktemp("server")
    server = Server(
        core,
        base,
        models=models.folder,
        options=["--disable-metadata"],
        env={"IMAGEIO_FFMPEG_EXE": str(base / "ffmpeg")},
    )
    servers_of(pytestconfig).add(server).start()
    yield server
    server.stop()


@pytest.fixture
def small_disk(server: Server) -> Iterator[Path]:
    """A folder in the output folder of ``server`` that holds 1 MiB; skips where none may be made."""
    folder = server.output / "small disk"
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small disk without the right to mount one: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note where the logs are, to show only what a test has added."""
    item.stash[LOG_STARTS] = {server: server.log_size() for server in servers_of(item.config).running()}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show what the servers have printed when a test has failed."""
    report = yield
    if report.failed:  # type: ignore[attr-defined]
        starts = item.stash.get(LOG_STARTS, {})
        for server in servers_of(item.config).running():
            lines = server.log(starts.get(server, 0)).splitlines()[-SHOWN_LINES:]
            title = f"log of ComfyUI {server.core.version} {' '.join(server.options)}"
            report.sections.append((title, os.linesep.join(lines)))  # type: ignore[attr-defined]
    return report
