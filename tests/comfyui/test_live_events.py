"""Events and routes for browsers, on real servers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from tests.comfyui.client import Client, Output, Prompt
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import report_of
from tests.comfyui.server import Server

PROGRESS, ENDED = "async_vae_decode.progress", "async_vae_decode.ended"
NODE = "AsyncVAEDecodeSaveFrames"
WORKFLOW = {"workflow": {"id": "00000000-aaaa-bbbb-cccc-000000000000"}}
_seeds = iter(range(1000, 10**6))


def a_prompt(
    client: Client, models: Models, step: dict[str, Any] | None = None, latents: int = 4
) -> tuple[Prompt, Output]:
    """A clip of its own for each prompt, so that nothing comes from the cache."""
    prompt = Prompt()
    vae = models.load(prompt, "wan21")
    if step is not None:
        vae = prompt.add("TestDecoderStep", vae=vae, **step)
    latent = random_latent(prompt, 1, 16, latents, 8, 8, seed=next(_seeds))
    return prompt, client.add(
        prompt, NODE, samples=latent, vae=vae, filename_prefix="live", chunk_size=1, compression=1, writers=2
    )


def test_events_tell_a_run_from_beginning_to_end(client: Client, models: Models) -> None:
    prompt, node = a_prompt(client, models)

    result = client.run(prompt, extra_pnginfo=WORKFLOW)

    ended = client.events.wait(ENDED, prompt=result.prompt_id).data
    started = client.events.wait("async_vae_decode.started", run=ended["run"]).data
    assert (started["node"], started["type"]) == (node.node, NODE)
    assert (started["workflow"], started["client"]) == (WORKFLOW["workflow"]["id"], client.id)
    assert started["running"] and not ended["running"]
    told = [event.data for event in client.events_of(PROGRESS, run=ended["run"])] + [ended]
    assert [news["since"] for news in told] == [0, *(news["told"] for news in told[:-1])]
    saved = [block for news in told for block in news["blocks"].get("save", ())]
    assert sum(frames for *_, frames in saved) == 13
    assert ended["written"] == ended["total"] == 13
    assert ended["report"]["outcome"] == "completed"
    assert report_of(result, node)["run"] == ended["run"]


def test_events_come_at_most_ten_times_a_second(client: Client, models: Models) -> None:
    prompt, _ = a_prompt(client, models, latents=12)

    result = client.run(prompt)

    run = client.events.wait(ENDED, prompt=result.prompt_id).data["run"]
    seconds = [event.data["seconds"] for event in client.events_of(PROGRESS, run=run)]
    # By the clock of the server, as a busy machine delivers late and then everything at once.
    assert all(later - earlier > 0.09 for earlier, later in pairwise(seconds)), seconds


def test_a_second_browser_follows_and_a_later_one_catches_up(
    client: Client, models: Models, server: Server, connect: Callable[[Server], Client]
) -> None:
    beside = connect(server)
    prompt, node = a_prompt(client, models, {"step": 3, "action": "hold", "gate": "live"})

    prompt_id = client.queue(prompt, extra_pnginfo=WORKFLOW)
    client.events.wait("probe.held", gate="live")
    held = next(run for run in client.get("/async_vae_decode/runs") if run["prompt"] == prompt_id)
    snapshot = client.get(f"/async_vae_decode/runs/{held['run']}")
    client.open_gate("live")
    client.wait(prompt_id)

    assert (held["running"], held["node"]) == (True, node.node)
    assert (snapshot["running"], snapshot["total"]) == (True, 13)
    assert 0 < snapshot["received"] < 13
    news = [event.data for event in beside.events_of(PROGRESS, run=held["run"])]
    assert beside.events.wait(ENDED, run=held["run"]).data["report"]["outcome"] == "completed"
    assert snapshot["told"] in [0, *(one["told"] for one in news)]
    after = client.get(f"/async_vae_decode/runs/{held['run']}")
    assert not after["running"]
    assert sum(frames for *_, frames in after["blocks"]["save"]) == 13


def test_a_run_may_end_while_its_state_is_asked_for(client: Client, models: Models) -> None:
    prompt, _ = a_prompt(client, models, {"step": 3, "action": "hold", "gate": "asked"})
    prompt_id = client.queue(prompt)
    client.events.wait("probe.held", gate="asked")
    run = next(run["run"] for run in client.get("/async_vae_decode/runs") if run["prompt"] == prompt_id)
    client.post(f"/probe/end_when_asked/{run}/asked", {})

    asked = client.get(f"/async_vae_decode/runs/{run}")
    client.wait(prompt_id)

    # What was seen is what is told, although by then it had ended.
    assert (asked["state"], asked["running"], "report" in asked) == ("running", True, False)
    after = client.get(f"/async_vae_decode/runs/{run}")
    assert (after["state"], after["running"]) == ("completed", False)


def test_failed_and_cancelled_runs_end_too(client: Client, models: Models) -> None:
    failing, _ = a_prompt(client, models, {"step": 3, "action": "raise", "gate": ""})
    cancelled, _ = a_prompt(client, models, {"step": 3, "action": "hold", "gate": "cancelled"})

    failed_id = client.run(failing, check=False).prompt_id
    cancelled_id = client.queue(cancelled)
    client.events.wait("probe.held", gate="cancelled")
    client.interrupt()
    client.open_gate("cancelled")
    client.wait(cancelled_id)

    assert client.events.wait(ENDED, prompt=failed_id).data["report"]["outcome"] == "failed"
    assert client.events.wait(ENDED, prompt=cancelled_id).data["report"]["outcome"] == "cancelled"


def test_the_trace_of_a_run_is_downloaded(client: Client, models: Models) -> None:
    prompt, node = a_prompt(client, models)
    run = report_of(client.run(prompt), node)["run"]

    with urllib.request.urlopen(f"{client.url}/async_vae_decode/runs/{run}/trace", timeout=60) as answer:
        trace = json.loads(answer.read())
        disposition = answer.headers["Content-Disposition"]

    assert disposition.startswith("attachment;") and disposition.endswith('.json"')
    names = {event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "thread_name"}
    assert {"decode", "png writer 1"} <= {name.lower() for name in names} or len(names) >= 3, names
    assert trace["otherData"]["report"]["frames"] == 13


@pytest.mark.parametrize(
    "path", ["0" * 32, "..", "..%2f..%2fuser", "%2e%2e%2fuser", "0/trace", "..%2f..%2fserver.log/trace"]
)
def test_only_known_runs_are_served(client: Client, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        client.get(f"/async_vae_decode/runs/{path}")

    assert refused.value.code == 404


def test_previews_come_as_the_browser_wishes(client: Client, models: Models) -> None:
    def previews(wish: dict[str, Any]) -> int:
        client.post("/async_vae_decode/preview", {"client_id": client.id, **wish})
        prompt, _ = a_prompt(client, models)
        before = len(client.events_of("preview"))
        client.run(prompt)
        return len(client.events_of("preview")) - before

    assert previews({"enabled": False, "interval": 0.5}) == 0
    assert previews({"enabled": True, "interval": 0.5}) > 0


@pytest.mark.parametrize(
    ("wish", "names"),
    [
        ({"enabled": True, "interval": 0.5}, "client_id"),
        ({"client_id": "x" * 101, "enabled": True, "interval": 0.5}, "client_id"),
        ({"client_id": "x", "enabled": "yes", "interval": 0.5}, "enabled"),
        ({"client_id": "x", "enabled": True, "interval": 0}, "interval"),
        ({"client_id": "x", "enabled": True, "interval": True}, "interval"),
        ([], "object"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(client: Client, wish: Any, names: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        client.post("/async_vae_decode/preview", wish)

    assert refused.value.code == 400
    assert names in json.loads(refused.value.read())["error"]
