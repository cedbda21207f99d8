"""The example workflows and the Python client beside them, on real servers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.comfyui.client import Client, Output, Prompt
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.server import PACK_FOLDER, REPOSITORY, Server
from tests.thumbnails import cards

EXAMPLES = REPOSITORY / "example_workflows"
API = EXAMPLES / "api"
NAMES = sorted(file.stem for file in EXAMPLES.glob("*.json"))


@pytest.fixture
def workflow(client: Client, models: Models, tmp_path: Path) -> Path:
    """The example in API format, with a latent that a small machine decodes at once, and its VAE where the core can."""
    prompt = json.loads((API / "decode_latent.json").read_text("utf-8"))
    given = prompt["2"]["inputs"]
    small = Prompt()
    random_latent(small, 1, 16, 13, 4, 6)
    prompt["3"] = small.as_sent()["1"]
    given["samples"] = ["3", 0]
    if _is_old(client):
        prompt["1"] = {"class_type": "TestLoadVAE", "inputs": {"vae_name": models.file("wan21")}}
        given["vae"] = ["1", 0]
    file = tmp_path / "decode_latent.json"
    file.write_text(json.dumps(prompt), "utf-8")
    return file


def run_client(server: str, workflow: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Run the client in an interpreter that has nothing but the standard library."""
    command = [sys.executable, "-I", "-S", str(API / "client.py"), str(workflow), "--server", server]
    return subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, encoding="utf-8", timeout=300, check=False
    )


@pytest.mark.parametrize(("format", "marker"), [("mp4 (H.264)", b"ftyp"), ("mkv (FFV1)", b"matroska")])
def test_client_queues_follows_and_fetches(
    server: Server, workflow: Path, tmp_path: Path, format: str, marker: bytes
) -> None:
    prompt = json.loads(workflow.read_text("utf-8"))
    prompt["2"]["inputs"]["format"] = format
    workflow.write_text(json.dumps(prompt), "utf-8")

    ran = run_client(server.url, workflow, tmp_path / "fetched")

    assert ran.returncode == 0, ran.stderr
    assert "49 frames" in ran.stdout
    assert "exact" in ran.stdout
    assert "49 of 49 frames" in ran.stderr
    # The file itself, also where browsers do not play it and the node shows another one.
    (video,) = (tmp_path / "fetched").iterdir()
    assert str(video) in ran.stdout
    assert video.suffix == "." + format.split()[0]
    assert video.read_bytes() == (server.output / "video" / video.name).read_bytes()
    assert marker in video.read_bytes()[:64]


def test_client_says_why_a_workflow_is_refused(server: Server, workflow: Path, tmp_path: Path) -> None:
    prompt = json.loads(workflow.read_text("utf-8"))
    prompt["2"]["inputs"]["chunk_size"] = 0
    workflow.write_text(json.dumps(prompt), "utf-8")

    ran = run_client(server.url, workflow, tmp_path / "fetched")

    assert ran.returncode == 1
    assert ran.stderr.startswith("refused: node 2 (AsyncVAEDecodeSaveVideo): ")
    assert "chunk_size" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "content, expected",
    [
        (None, "No such file"),
        ("no JSON", "is not JSON"),
        (json.dumps({"nodes": [], "links": []}), "Export (API)"),
        ("[]", "Export (API)"),
        ("{}", "Export (API)"),
    ],
)
def test_client_says_in_one_line_what_is_wrong_with_the_file(
    content: str | None, expected: str, tmp_path: Path
) -> None:
    workflow = tmp_path / "workflow.json"
    if content is not None:
        workflow.write_text(content, "utf-8")

    ran = run_client("http://127.0.0.1:9", workflow, tmp_path / "fetched")

    assert ran.returncode == 1
    assert str(workflow) in ran.stderr and expected in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert not (tmp_path / "fetched").exists()


@pytest.mark.parametrize(
    "server",
    [
        "http://127.0.0.1:{port}",
        "127.0.0.1:{port}",
        "http://nowhere.invalid",
        "https://a",
        "http://127.0.0.1:port",
        "http://127.0.0.1:99999",
        "http://[::1",
        "http://.:8188",
    ],
)
def test_client_says_in_one_line_that_there_is_no_server(server: str, tmp_path: Path) -> None:
    with socket.socket() as bound:  # and not listening, so that a connection is refused
        bound.bind(("127.0.0.1", 0))
        server = server.format(port=bound.getsockname()[1])
        ran = run_client(server, API / "decode_latent.json", tmp_path / "fetched")

    assert ran.returncode == 1
    assert server in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_client_says_which_node_failed_and_why(server: Server, workflow: Path, tmp_path: Path) -> None:
    prompt = json.loads(workflow.read_text("utf-8"))
    prompt["2"]["inputs"]["filename_prefix"] = "../outside"
    workflow.write_text(json.dumps(prompt), "utf-8")

    ran = run_client(server.url, workflow, tmp_path / "fetched")

    assert ran.returncode == 1
    assert "AsyncVAEDecodeSaveVideo" in ran.stderr
    assert "../outside" in ran.stderr


def test_server_lists_the_examples(client: Client) -> None:
    assert sorted(client.get("/api/workflow_templates")[PACK_FOLDER]) == NAMES
    # The server's order is that of the file system; the pack's page puts the names in order.
    assert NAMES[0] == cards.DEMO


def test_values_are_those_of_todays_widgets(client: Client) -> None:
    # The older front end takes the values of a workflow one by one, in the order of the widgets.
    known = client.object_info()
    nodes = [
        (name, node) for name in NAMES for node in json.loads((EXAMPLES / f"{name}.json").read_text("utf-8"))["nodes"]
    ]
    ours = [(name, node) for name, node in nodes if node["type"].startswith("Async")]
    assert len(ours) > len(NAMES)
    for name, node in ours:
        widgets = dict(_widgets(known[node["type"]]))
        assert list(node["widgets_values_named"]) == list(widgets), (name, node["type"])
        assert node["widgets_values"] == list(node["widgets_values_named"].values())
        for widget, value in node["widgets_values_named"].items():
            kind, options = widgets[widget]
            choices = kind if isinstance(kind, list) else options.get("options")
            assert choices is None or value in choices, (widget, value)


@pytest.mark.parametrize("name", NAMES)
def test_thumbnail_is_small_and_says_what_the_workflow_does(name: str) -> None:
    file = EXAMPLES / f"{name}.jpg"
    with Image.open(file) as image:
        assert image.format == "JPEG"
        assert image.width >= 480
        # What was drawn: a workflow that has changed wants "python -m tests.thumbnails.draw".
        assert image.info["comment"].decode().splitlines() == cards.lines(name)
    assert file.stat().st_size < 150_000


def test_the_demo_clip_is_there_without_any_file(client: Client) -> None:
    prompt = Prompt()
    clip = prompt.add("AsyncDemoClip")
    latent = prompt.add("LatentCut", samples=clip, dim="t", index=0, amount=2)
    ours, stock = (
        prompt.add(
            "TestSaveTensor",
            images=client.add(prompt, decode, samples=latent, vae=Output(clip.node, 1)),
        )
        for decode in ("AsyncVAEDecode", "VAEDecode")
    )

    result = client.run(prompt, check=False)

    if _is_old(client):
        assert (result.error or {})["node_id"] == clip.node
        message = (result.error or {})["exception_message"]
        assert "full width only" in message
        assert "update ComfyUI" in message
        assert len(message.splitlines()) == 1
        return
    assert result.ok
    assert torch.equal(client.tensor(result, ours), client.tensor(result, stock))
    assert client.tensor(result, ours).shape == (5, 256, 384, 3)


def _is_old(client: Client) -> bool:
    """Whether this core builds Wan's VAE in its full width only."""
    return tuple(map(int, _version(client).split(".")[:2])) < (0, 33)


def _version(client: Client) -> str:
    return str(client.get("/system_stats")["system"]["comfyui_version"])


def _widgets(node: dict[str, Any]) -> list[tuple[str, tuple[Any, dict[str, Any]]]]:
    """The inputs of a node that are widgets, in their order, with kind and options."""
    inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
    return [
        (name, (spec[0], spec[1] if len(spec) > 1 else {}))
        for name, spec in inputs.items()
        if isinstance(spec[0], list) or spec[0] in {"INT", "FLOAT", "FLOAT,INT", "STRING", "BOOLEAN", "COMBO"}
    ]
