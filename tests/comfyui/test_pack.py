"""The pack loads in every core, under whatever name its folder has, and shows its nodes as core's own are shown."""

from __future__ import annotations

import urllib.request

import pytest

from tests.comfyui.client import Client
from tests.comfyui.server import PACK_FOLDER, Server

NODES = {
    "AsyncVAEDecode": ["IMAGE"],
    "AsyncVAEDecodeSaveFrames": ["IMAGE"],
    "AsyncVAEDecodeSaveVideo": ["VIDEO", "IMAGE"],
}


def test_it_was_imported_from_a_renamed_folder(client: Client, server: Server) -> None:
    assert server.import_error() is None
    for node in NODES:
        assert client.object_info(node)[node]["python_module"] == f"custom_nodes.{PACK_FOLDER}"


def test_its_scripts_are_served_from_there(client: Client, server: Server) -> None:
    scripts = [path for path in client.get("/extensions") if f"/{PACK_FOLDER}/" in path]
    assert scripts
    for script in scripts:
        with urllib.request.urlopen(server.url + script, timeout=60) as response:
            assert response.read()


def test_the_nodes_inputs_and_outputs(client: Client) -> None:
    for name, outputs in NODES.items():
        node = client.object_info(name)[name]
        inputs = node["input"]
        assert node["output"] == outputs
        assert node["output_node"] is (name != "AsyncVAEDecode")
        assert list(inputs["required"])[:2] == ["samples", "vae"]
        assert (inputs["required"]["samples"][0], inputs["required"]["vae"][0]) == ("LATENT", "VAE")
        assert (inputs["required"]["chunk_size"][1]["default"], inputs["required"]["buffer_depth"][1]["default"]) == (
            4,
            3,
        )
        assert {"tile_size", "overlap", "temporal_size", "temporal_overlap"} <= set(inputs["optional"])
        # Prompt and workflow for the files; nothing that depends on who is connected.
        assert set(inputs.get("hidden", {})) == ({"prompt", "extra_pnginfo"} if node["output_node"] else set())
        described = [*inputs["required"].values(), *inputs["optional"].values()]
        assert all(spec[1]["tooltip"] for spec in described)


def test_nodes_are_found_by_what_people_type(client: Client) -> None:
    if "search_aliases" not in client.object_info("VAEDecode")["VAEDecode"]:
        # That it is not told is what lets the pack load there.
        pytest.skip("this ComfyUI knows no such words")
    for name in NODES:
        assert "vae decode" in client.object_info(name)[name]["search_aliases"]
