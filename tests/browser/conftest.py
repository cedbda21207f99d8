"""Fixtures for tests in ComfyUI's own front end: a headless Chromium on a real server, of each core.

``open_front_end(renderer="vue", theme="light")`` opens a page; ``front_end`` is one with the defaults; a test that
takes ``renderer`` or ``theme`` as well runs with each. Tests share their pages, one after the other, but for those
marked ``own_page``. The server, its ``client`` and the ``models`` are those of ``tests/comfyui``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from async_decode.demo.weights import read_safetensors
from tests.browser import chromium
from tests.browser.front_end import FrontEnd, Renderer, Theme
from tests.comfyui.client import Client

# Found by pytest under these names: fixtures, and what shows a server's log when a test fails.
from tests.comfyui.conftest import (  # noqa: F401
    client,
    models,
    pytest_runtest_makereport,
    pytest_runtest_setup,
    server,
    start_server,
)
from tests.comfyui.cores import Core, core_params
from tests.comfyui.server import REPOSITORY, Server

if TYPE_CHECKING:
    from tests.browser.pages import Pages

PAGES = pytest.StashKey["Pages"]()
DEMO = REPOSITORY / "async_decode" / "demo"


@pytest.fixture(scope="session", params=core_params(front_ends=True))
def core(request: pytest.FixtureRequest) -> Core:
    """A ComfyUI checkout, with its front end: every test runs on each."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def pages(pytestconfig: pytest.Config) -> Pages:
    """The browser and its pages."""
    reason = chromium.missing()
    if reason is not None:
        pytest.skip(reason)
    if PAGES not in pytestconfig.stash:
        from tests.browser.pages import Pages

        pytestconfig.stash[PAGES] = Pages()
    return pytestconfig.stash[PAGES]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """The browser ends with the last of its tests: playwright's event loop is in the way of others."""
    yield
    pages = item.config.stash.get(PAGES, None)
    if pages is not None and (nextitem is None or Path(__file__).parent not in nextitem.path.parents):
        del item.config.stash[PAGES]
        pages.close()


@pytest.fixture(params=["litegraph", "vue"])
def renderer(request: pytest.FixtureRequest) -> Renderer:
    """Who draws the nodes."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=["dark", "light"])
def theme(request: pytest.FixtureRequest) -> Theme:
    """The colours of the front end."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def open_front_end(
    pages: Pages,
    server: Server,  # noqa: F811
    client: Client,  # noqa: F811
    request: pytest.FixtureRequest,
) -> Iterator[Callable[..., FrontEnd]]:
    """Opens front ends: ``open_front_end(renderer=…, theme=…, settings={…}, beside=…)``.

    It is a page that tests share, emptied, unless it has settings or the test is marked ``own_page`` (see
    ``pages.py``). ``beside`` opens a second tab of a page of the test's own. A console error of one of our modules
    fails the test.
    """
    needs_own = request.node.get_closest_marker("own_page") is not None
    own: list[FrontEnd] = []
    opened: list[FrontEnd] = []
    failed = request.session.testsfailed

    def open_front_end(
        *,
        renderer: Renderer = "litegraph",
        theme: Theme = "dark",
        settings: dict[str, Any] | None = None,
        beside: FrontEnd | None = None,
    ) -> FrontEnd:
        if beside is not None:
            front_end = FrontEnd(beside.page.context.new_page(), server, f"{renderer}-{theme}")
            front_end.open()
        elif needs_own or settings is not None:
            front_end = pages.own(server, renderer, theme, settings or {})
            own.append(front_end)
            front_end.open()
        else:
            front_end = pages.shared(server, renderer, theme)
        opened.append(front_end)
        return front_end

    yield open_front_end
    # A test that failed may have left a node at a gate.
    client.post("/probe/release", {})
    for front_end in own if request.session.testsfailed == failed else opened:
        pages.drop(front_end)
    errors = [error for front_end in opened for error in front_end.errors]
    assert not errors, "our modules logged errors in the browser:\n" + "\n".join(errors)


@pytest.fixture
def front_end(open_front_end: Callable[..., FrontEnd]) -> FrontEnd:
    """A front end that draws with LiteGraph in the dark theme."""
    return open_front_end()


@pytest.fixture
def demo(server: Server) -> dict[str, str]:  # noqa: F811
    """Part of the demo's clip on the server: ``latent`` for LoadLatent, ``vae`` for TestLoadVAE.

    17 frames of 192 x 128 pixels: real pictures, and decoded within a few seconds on a machine without a GPU.
    """
    return _part_of_demo(server, "demo.latent", frames=5, rows=slice(8, 24), columns=slice(12, 36))


@pytest.fixture
def small_demo(server: Server) -> dict[str, str]:  # noqa: F811
    """Less of it: 9 frames of 96 x 64 pixels."""
    return _part_of_demo(server, "small.latent", frames=3, rows=slice(10, 18), columns=slice(12, 24))


def _part_of_demo(of: Server, name: str, *, frames: int, rows: slice, columns: slice) -> dict[str, str]:
    # The whole clip is 13 latent frames of 32 x 48.
    latent = read_safetensors(DEMO / "demo.latent")["latent_tensor"][:, :, :frames, rows, columns].contiguous()
    save_file({"latent_tensor": latent, "latent_format_version_0": torch.tensor([])}, of.input / name)
    shutil.copy(DEMO / "weights.safetensors", of.base / "models" / "vae" / "demo.safetensors")
    return {"latent": name, "vae": "demo.safetensors"}
