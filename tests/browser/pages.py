"""The browser of a test run, and the pages that its tests share.

A front end takes some six seconds of processor time to load, and most tests only put a few nodes into an empty graph:
they get a page that is open already, emptied. A test that reloads its page, changes a setting, registers an extension
or leaves something open is marked ``own_page`` and gets one of its own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from playwright.sync_api import Error, sync_playwright

from tests.browser import chromium
from tests.browser.front_end import SETTINGS, FrontEnd, Renderer, Theme
from tests.comfyui.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

VIEWPORT = {"width": 1280, "height": 900}


class Pages:
    """Chromium, without a window, from when a page is first asked for until ``close``."""

    def __init__(self) -> None:
        self._playwright = sync_playwright().start()
        self._browser: Browser = self._playwright.chromium.launch(
            executable_path=chromium.find(), args=list(chromium.FLAGS)
        )
        self._shared: dict[tuple[Renderer, Theme], FrontEnd] = {}

    def own(self, server: Server, renderer: Renderer, theme: Theme, settings: dict[str, Any]) -> FrontEnd:
        """A page in a browser context of its own, whose ``page.context`` the caller closes; not yet opened.

        Settings belong to the server: those of the last page hold for what is loaded later.
        """
        file = server.base / "user" / "default" / "comfy.settings.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        written = {
            **SETTINGS,
            "Comfy.VueNodes.Enabled": renderer == "vue",
            "Comfy.ColorPalette": theme,
            **settings,
        }
        file.write_text(json.dumps(written), "utf-8")
        context = self._browser.new_context(viewport=VIEWPORT, base_url=server.url)  # type: ignore[arg-type]
        return FrontEnd(context.new_page(), server, f"{renderer}-{theme}")

    def shared(self, server: Server, renderer: Renderer, theme: Theme) -> FrontEnd:
        """The page of all tests that draw like this, with an empty graph; opened where there is none, or none as new.

        What tests before have left in the memory of its modules is still there, as it is for a user.
        """
        # Pages whose server has gone would look for it all the time.
        for other in [page for page in self._shared.values() if page.server is not server]:
            self.drop(other)
        known = self._shared.get((renderer, theme))
        if known is not None:
            try:
                known.page.set_viewport_size(VIEWPORT)  # type: ignore[arg-type]
                if known.empty():
                    return known
            except Error as error:
                print(f"a new page, as the one before could not be emptied: {error}")
            self.drop(known)
        opened = self._shared[renderer, theme] = self.own(server, renderer, theme, {})
        opened.open()
        return opened

    def drop(self, front_end: FrontEnd) -> None:
        """Close a page, one that tests share for example after a failure: the next test gets a new one."""
        self._shared = {how: page for how, page in self._shared.items() if page is not front_end}
        front_end.page.context.close()

    def close(self) -> None:
        """Close all pages, and the browser."""
        self._browser.close()
        self._playwright.stop()
