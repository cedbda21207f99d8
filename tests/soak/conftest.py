"""Long runs against one real server: collected only when they are asked for, with ``pytest tests/soak``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

# Found by pytest under these names: fixtures, and what shows the server's log when a test fails.
from tests.comfyui.conftest import (  # noqa: F401
    client,
    models,
    pytest_runtest_makereport,
    pytest_runtest_setup,
    servers_of,
    small_disk,
)
from tests.comfyui.cores import Core, core_params
from tests.comfyui.encoders import Encoders
from tests.comfyui.fixtures import Models
from tests.comfyui.server import Server


@pytest.fixture(scope="session", params=core_params()[:1])
def core(request: pytest.FixtureRequest) -> Core:
    """The first ComfyUI checkout alone: the suite is long."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def server(
    core: Core,
    models: Models,  # noqa: F811
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server of the test file's own, with its own temporary folder, ``base/tmp``, and its own ffmpeg."""
    base = tmp_path_factory.mktemp("server")
    temporary = base / "tmp"
    temporary.mkdir()
    env = {"IMAGEIO_FFMPEG_EXE": str(base / "ffmpeg"), "TMPDIR": str(temporary)}
    started = servers_of(pytestconfig).add(Server(core, base, models=models.folder, env=env))
    Encoders(started)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def encoders(server: Server) -> Iterator[Encoders]:
    """The server's ffmpeg."""
    encoders = Encoders(server)
    yield encoders
    encoders.go()
    encoders.broken.unlink(missing_ok=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures, which the README's line on reliability is written from."""
    figures = terminalreporter.config.stash.get(FIGURES, [])
    if figures:
        terminalreporter.section("soak")
    for line in figures:
        terminalreporter.line(line)


FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def figures(pytestconfig: pytest.Config) -> list[str]:
    """Lines to show at the end."""
    return pytestconfig.stash.setdefault(FIGURES, [])
