"""HTTP routes for the browser side, all under ``/async_vae_decode``.

They serve this pack's recent runs by their ids, from memory: nothing that a client sends reaches the file system.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web
from server import PromptServer

from . import background, events

PREFIX = "/async_vae_decode"
#: Seconds between two previews that a browser may ask for.
PREVIEW_INTERVALS = (0.1, 60.0)


def add_routes() -> None:
    """Add the routes to ComfyUI's; once, even where somebody has installed the pack twice."""
    routes = PromptServer.instance.routes
    if any(getattr(route, "path", "").startswith(f"{PREFIX}/") for route in routes):
        return
    routes.get(f"{PREFIX}/runs")(list_runs)
    routes.get(f"{PREFIX}/runs/{{run}}")(show_run)
    routes.get(f"{PREFIX}/runs/{{run}}/trace")(download_trace)
    routes.post(f"{PREFIX}/preview")(wish_preview)
    routes.post(f"{PREFIX}/runs/cancel")(cancel_runs)


async def list_runs(request: web.Request) -> web.Response:
    """The recent runs, oldest first: their ids, and which nodes they were."""
    return web.json_response([run.brief() for run in events.recent.all()])


async def show_run(request: web.Request) -> web.Response:
    """What events have told of a run so far, and whether its files are whole: its ``state``.

    ``running``, ``saving`` (in the background), and when it is over ``completed``, ``cancelled`` or ``failed``.
    """
    run = _run_of(request)
    # It may end at any moment: first where it is, then what is told, and its end by that alone.
    state = "saving" if run.id in {other.id for other in background.runs.all()} else "running"
    told = await asyncio.to_thread(run.snapshot)
    if "report" in told:
        state = told["report"]["outcome"]
    return web.json_response({**told, "state": state})


async def cancel_runs(request: web.Request) -> web.Response:
    """Cut short the run in the background whose id is ``run``, or all of them where it is null; tells how many."""
    try:
        asked: Any = await request.json()
    except ValueError:
        return _refused("expected JSON")
    if not isinstance(asked, dict) or not isinstance(asked.get("run", 0), str | None):
        return _refused(f"expected an object with run, an id or null, got {asked!r:.120}")
    return web.json_response({"cancelled": background.runs.cancel(asked["run"], "the user cancelled it")})


async def download_trace(request: web.Request) -> web.Response:
    """A run as a file for Perfetto."""
    run = _run_of(request)
    text = await asyncio.to_thread(lambda: json.dumps(run.trace(), separators=(",", ":")))
    name = f"async-vae-decode-{run.id[:8]}.json"
    return web.Response(
        text=text,
        content_type="application/json",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


async def wish_preview(request: web.Request) -> web.Response:
    """Whether, and how often, the browser ``client_id`` wants previews: ``enabled``, and ``interval`` in seconds."""
    try:
        wish: Any = await request.json()
    except ValueError:
        return _refused("expected JSON")
    if not isinstance(wish, dict):
        return _refused(f"expected an object, got {type(wish).__name__}")
    client, enabled, interval = (wish.get(key) for key in ("client_id", "enabled", "interval"))
    if not isinstance(client, str) or not 0 < len(client) <= 100:
        return _refused(f"client_id: expected a text of 1 to 100 characters, got {client!r:.120}")
    if not isinstance(enabled, bool):
        return _refused(f"enabled: expected true or false, got {enabled!r:.120}")
    lowest, highest = PREVIEW_INTERVALS
    if isinstance(interval, bool) or not isinstance(interval, int | float) or not lowest <= interval <= highest:
        return _refused(f"interval: expected {lowest:g} to {highest:g} seconds, got {interval!r:.120}")
    events.set_preview(client, events.PreviewWish(enabled, float(interval)))
    return web.json_response({})


def _run_of(request: web.Request) -> events.LiveRun:
    run = events.recent.get(request.match_info["run"])
    if run is None:
        raise web.HTTPNotFound(text="this run is not among the recent ones any more")
    return run


def _refused(message: str) -> web.Response:
    return web.json_response({"error": message}, status=400)
