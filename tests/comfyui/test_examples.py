"""The example workflows and the Python client beside them, on real servers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from async_decode.cli import example
from async_decode.demo.weights import read_safetensors
from tests.comfyui.client import Client
from tests.comfyui.server import PACK_FOLDER, REPOSITORY, Server

EXAMPLES = REPOSITORY / "example_workflows"
API = EXAMPLES / "api"
NAMES = sorted(file.stem for file in EXAMPLES.glob("*.json"))


@pytest.fixture
def demo_files(server: Server) -> None:
    """The demo's VAE and latent in the server, where the command ``example`` puts them."""
    command = [sys.executable, "-m", "async_decode", "example", str(server.base)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert str(server.base / example.VAE_FILE) in done.stdout
    # All 49 frames, but only the middle of them: a machine without a GPU takes a minute for the whole.
    latent = read_safetensors(server.base / example.LATENT_FILE)["latent_tensor"][:, :, :, 8:24, 12:36].contiguous()
    save_file({"latent_tensor": latent, "latent_format_version_0": torch.tensor([])}, server.base / example.LATENT_FILE)


@pytest.fixture
def workflow(client: Client, tmp_path: Path) -> Path:
    """The example in API format; with a loader of the tests' where this core's own wants Wan's full width."""
    prompt = json.loads((API / "decode_latent.json").read_text("utf-8"))
    loader = next(node for node in prompt.values() if node["class_type"] == "VAELoader")
    if tuple(map(int, _version(client).split(".")[:2])) < (0, 33):
        loader["class_type"] = "TestLoadVAE"
    file = tmp_path / "decode_latent.json"
    file.write_text(json.dumps(prompt), "utf-8")
    return file


def run_client(server: Server, workflow: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Run the client in an interpreter that has nothing but the standard library."""
    command = [sys.executable, "-I", "-S", str(API / "client.py"), str(workflow), "--server", server.url]
    return subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, encoding="utf-8", timeout=300, check=False
    )


@pytest.mark.usefixtures("demo_files")
def test_client_queues_follows_and_fetches(server: Server, workflow: Path, tmp_path: Path) -> None:
    ran = run_client(server, workflow, tmp_path / "fetched")

    assert ran.returncode == 0, ran.stderr
    assert "49 frames" in ran.stdout
    assert "exact" in ran.stdout
    assert "49 of 49 frames" in ran.stderr
    (video,) = (tmp_path / "fetched").iterdir()
    assert str(video) in ran.stdout
    assert video.read_bytes() == (server.output / "video" / video.name).read_bytes()
    assert video.read_bytes()[4:8] == b"ftyp"


@pytest.mark.usefixtures("demo_files")
def test_client_says_why_a_workflow_is_refused(server: Server, workflow: Path, tmp_path: Path) -> None:
    prompt = json.loads(workflow.read_text("utf-8"))
    prompt["3"]["inputs"]["chunk_size"] = 0
    workflow.write_text(json.dumps(prompt), "utf-8")

    ran = run_client(server, workflow, tmp_path / "fetched")

    assert ran.returncode == 1
    assert "chunk_size" in ran.stderr


@pytest.mark.usefixtures("demo_files")
def test_client_says_which_node_failed_and_why(server: Server, workflow: Path, tmp_path: Path) -> None:
    prompt = json.loads(workflow.read_text("utf-8"))
    prompt["3"]["inputs"]["filename_prefix"] = "../outside"
    workflow.write_text(json.dumps(prompt), "utf-8")

    ran = run_client(server, workflow, tmp_path / "fetched")

    assert ran.returncode == 1
    assert "AsyncVAEDecodeSaveVideo" in ran.stderr
    assert "../outside" in ran.stderr


def test_server_lists_the_examples(client: Client) -> None:
    assert sorted(client.get("/api/workflow_templates")[PACK_FOLDER]) == NAMES


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
def test_thumbnail_is_there_and_small(name: str) -> None:
    file = EXAMPLES / f"{name}.jpg"
    with Image.open(file) as image:
        assert image.format == "JPEG"
        assert image.width >= 480
    assert file.stat().st_size < 150_000


def test_command_refuses_what_is_no_comfyui(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "async_decode", "example", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert str(tmp_path) in done.stderr
    assert "models/vae" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_command_copies_whole_files(tmp_path: Path) -> None:
    for file in (example.VAE_FILE, example.LATENT_FILE):
        (tmp_path / file).parent.mkdir(parents=True)
    command = [sys.executable, "-m", "async_decode", "example", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True)

    assert read_safetensors(tmp_path / example.LATENT_FILE)["latent_tensor"].shape == (1, 16, 13, 32, 48)
    assert "decoder.conv1.weight" in read_safetensors(tmp_path / example.VAE_FILE)


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
