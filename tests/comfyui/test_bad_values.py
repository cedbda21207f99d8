"""Every widget of every node, given what no widget would give: one error that names input, value and remedy."""

from __future__ import annotations

import json
import urllib.error
from typing import Any

import pytest

from tests.comfyui.client import Client, Output, Prompt, PromptRejected
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import check_usable
from tests.comfyui.server import Server

NODES = ["AsyncVAEDecode", "AsyncVAEDecodeSaveFrames", "AsyncVAEDecodeSaveVideo", "AsyncSaveFrames", "AsyncSaveVideo"]
NAN, INFINITY = float("nan"), float("inf")
#: What is sent in the place of a widget's value, …
SENT: dict[str, Any] = {
    "null": None,
    "huge": 10**400,
    "huge negative": -(10**400),
    "NaN": NAN,
    "infinity": INFINITY,
    "text": "no such value",
    "empty text": "",
    "true": True,
    "object": {"a": 1},
    "nested list": {"__value__": [[1, 2], 3]},
    "empty list": {"__value__": []},
}
#: … and what comes through a link out of a node that gives any type.
LINKED: dict[str, Any] = {
    **SENT,
    "nested list": [[1, 2], 3],
    "empty list": [],
    "fraction": 4.5,
    "negative": -3,
}  #: What our errors are called.
EXCEPTIONS = ("DecodeError", "SinkError")


def widgets_of(client: Client, node_type: str) -> list[str]:
    """The names of a node's inputs that have a widget."""
    inputs = client.object_info(node_type)[node_type]["input"]
    specs = {**inputs["required"], **inputs.get("optional", {})}
    return [name for name, spec in specs.items() if "default" in spec[1] or "options" in spec[1]]


def prompt_with(client: Client, models: Models, node_type: str, given: dict[str, Any]) -> tuple[Prompt, Output]:
    """A prompt with one of our nodes, a clip as small as can be, and ``given``."""
    prompt = Prompt()
    if "VAE" in node_type:
        frames: dict[str, Any] = {"samples": random_latent(prompt, 1, 16, 1, 2, 2), "vae": models.load(prompt, "wan21")}
    else:
        images = prompt.add("TestImages", shape="1,16,16,3", seed=0, dtype="float32", layout="contiguous")
        frames = {"images": images}
    linked = {
        name: prompt.add("TestAnything", value=value[0]) if isinstance(value, tuple) else value
        for name, value in given.items()
    }
    prefix = {} if node_type == "AsyncVAEDecode" else {"filename_prefix": "values/a"}
    node = client.add(prompt, node_type, **{**frames, **prefix, **linked})
    if node_type == "AsyncVAEDecode":
        prompt.add("TestSaveTensor", images=node)
    return prompt, node


def fault(client: Client, models: Models, node_type: str, name: str, value: Any) -> str | None:
    """What is wrong with what the server says to a value; ``None``: nothing, or it takes it."""
    prompt, node = prompt_with(client, models, node_type, {name: value})
    try:
        result = client.run(prompt, check=False)
    except PromptRejected as refused:
        errors = refused.node_errors[node.node]["errors"]
        # The core names the input, and shows what Python said of the value.
        said = [error["details"] for error in errors if error["extra_info"].get("input_name") != name]
    else:
        if result.error is None:
            return None
        if result.error["exception_type"].split(".")[-1] not in EXCEPTIONS:
            return f"{result.error['exception_type']}: {result.error['exception_message']}"
        said = [result.error["exception_message"]]
    vague = [
        text for text in said if not text.startswith((f"{name}: ", f"{name} ")) and "shorter file name" not in text
    ]
    return f"says only {vague}" if vague else None


@pytest.mark.parametrize("node_type", NODES)
@pytest.mark.parametrize("way", ["sent", "linked"])
def test_no_bad_value_is_answered_by_pythons_own_words(
    client: Client, server: Server, models: Models, node_type: str, way: str
) -> None:
    values = SENT if way == "sent" else {name: (json.dumps(value),) for name, value in LINKED.items()}
    faults = {}
    for name in widgets_of(client, node_type):
        for kind, value in values.items():
            try:
                found = fault(client, models, node_type, name, value)
            except urllib.error.HTTPError as error:
                found = f"the server answers {error.code}: {error.read()[:200]!r}"
            if found:
                faults[f"{name}, {kind}"] = found

    assert not faults, "\n" + "\n".join(f"{where}: {what[:300]}" for where, what in faults.items())
    check_usable(client, server, models)
