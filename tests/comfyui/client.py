"""Speaks to a ComfyUI server as its front end does: prompts over HTTP, events over the websocket."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from safetensors.torch import load

from tests.comfyui.events import Event, EventStream

#: Seconds that a prompt may take; the full-width VAEs are slow on a small machine.
PROMPT_TIMEOUT = 300.0


class Output(NamedTuple):
    """One output of a node, as a prompt in API format links it."""

    node: str
    index: int = 0


class Prompt:
    """A prompt in API format, written node by node.

    >>> prompt = Prompt()
    >>> latent = prompt.add("LoadLatent", latent="clip.latent")
    >>> images = prompt.add("VAEDecode", samples=latent, vae=prompt.add("VAELoader", vae_name="wan.safetensors"))
    """

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}

    def add(self, class_type: str, /, **inputs: Any) -> Output:
        """Add a node; an input is a value or another node's ``Output``. Returns the node's first output."""
        node = str(len(self.nodes) + 1)
        self.nodes[node] = {"class_type": class_type, "inputs": inputs}
        return Output(node)

    def as_sent(self) -> Any:
        """The nodes as the server gets them."""
        return json.loads(json.dumps(self.nodes))


@dataclass(frozen=True)
class Result:
    """What the history holds of a prompt that has ended.

    Attributes:
        prompt_id: its id.
        status: ``"success"`` or ``"error"``; an interrupted prompt is an error, too.
        messages: ``(type, data)`` of what the executor said, in order.
        outputs: each output node's ``ui``, by node id.
    """

    prompt_id: str
    status: str
    messages: list[tuple[str, dict[str, Any]]]
    outputs: dict[str, dict[str, list[Any]]] = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether every node ran."""
        return self.status == "success"

    @property
    def interrupted(self) -> bool:
        """Whether it was cancelled."""
        return self.message("execution_interrupted") is not None

    @property
    def error(self) -> dict[str, Any] | None:
        """What failed: ``node_id``, ``exception_message``, ``exception_type``, ``traceback`` and more."""
        return self.message("execution_error")

    @property
    def cached(self) -> set[str]:
        """The nodes that did not run, because the cache had their outputs."""
        return set((self.message("execution_cached") or {}).get("nodes", ()))

    def message(self, kind: str) -> dict[str, Any] | None:
        """The first message of one kind."""
        return next((data for name, data in self.messages if name == kind), None)

    def ui(self, node: Output) -> dict[str, list[Any]]:
        """What a node showed; empty when it showed nothing."""
        return self.outputs.get(node.node, {})


class PromptRejected(Exception):
    """The server refused a prompt.

    Attributes:
        error: the reason, with ``type`` and ``message``.
        node_errors: by node id, what is wrong with it.
    """

    def __init__(self, error: dict[str, Any], node_errors: dict[str, Any]) -> None:
        super().__init__(f"{error.get('message')} {json.dumps(node_errors)}")
        self.error = error
        self.node_errors = node_errors


class PromptFailed(Exception):
    """A prompt ended in an error or was interrupted; ``result`` tells more."""

    def __init__(self, result: Result) -> None:
        error = result.error or {}
        where = f"node {error.get('node_id')} ({error.get('node_type')})"
        trace = "".join(error.get("traceback", ()))
        super().__init__(
            "interrupted"
            if result.interrupted
            else f"{where}: {error.get('exception_type')}: {error.get('exception_message')}\n{trace}"
        )
        self.result = result


class Client:
    """One front end: an id, a websocket that is open from the start, and the calls.

    Args:
        url: the server's address, without a slash at the end.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.id = uuid.uuid4().hex
        self.events = EventStream(url, self.id)

    def close(self) -> None:
        """Close the websocket."""
        self.events.close()

    def add(self, prompt: Prompt, class_type: str, /, **inputs: Any) -> Output:
        """Add a node as a front end does: required inputs that are not given have their default values."""
        required = self.object_info(class_type)[class_type]["input"]["required"]
        defaults = {name: spec[1]["default"] for name, spec in required.items() if "default" in (spec[1:] or [{}])[0]}
        return prompt.add(class_type, **{**defaults, **inputs})

    def queue(self, prompt: Prompt, *, extra_pnginfo: dict[str, Any] | None = None, front: bool = False) -> str:
        """Queue ``prompt`` and return its id.

        Args:
            prompt: what to run.
            extra_pnginfo: what a front end sends to have it saved in the files: ``{"workflow": {…}}``.
            front: run it before those that wait.

        Raises:
            PromptRejected: it is not valid.
        """
        body: dict[str, Any] = {"prompt": prompt.nodes, "client_id": self.id, "front": front}
        if extra_pnginfo is not None:
            body["extra_data"] = {"extra_pnginfo": extra_pnginfo}
        try:
            answer = self.post("/prompt", body)
        except urllib.error.HTTPError as refused:
            if refused.code != 400:
                raise
            said = json.loads(refused.read())
            raise PromptRejected(said["error"], said["node_errors"]) from None
        return str(answer["prompt_id"])

    def wait(self, prompt_id: str, timeout: float = PROMPT_TIMEOUT) -> Result:
        """Wait until a prompt has ended, successfully or not.

        Raises:
            TimeoutError: it did not end in time.
            ConnectionError: the server went away.
        """
        # Sent after the history has been written; ``execution_success`` is sent before.
        self.events.wait("executing", timeout=timeout, prompt_id=prompt_id, node=None)
        entry = self.history(prompt_id)
        assert entry is not None, f"prompt {prompt_id} has ended, but the history does not hold it"
        status = entry["status"]
        messages = [(kind, data) for kind, data in status["messages"]]
        return Result(prompt_id, status["status_str"], messages, entry["outputs"])

    def run(
        self,
        prompt: Prompt,
        *,
        check: bool = True,
        extra_pnginfo: dict[str, Any] | None = None,
        timeout: float = PROMPT_TIMEOUT,
    ) -> Result:
        """Queue ``prompt`` and wait for its end.

        Raises:
            PromptRejected: it is not valid.
            PromptFailed: it did not succeed, and ``check`` is on.
        """
        result = self.wait(self.queue(prompt, extra_pnginfo=extra_pnginfo), timeout)
        if check and not result.ok:
            raise PromptFailed(result)
        return result

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Cancel what runs, or only if it is the prompt ``prompt_id``."""
        self.post("/interrupt", {} if prompt_id is None else {"prompt_id": prompt_id})

    def free(self, *, unload_models: bool = True, free_memory: bool = True) -> None:
        """Ask the server to drop its models and its cache, which it does when it is idle."""
        self.post("/free", {"unload_models": unload_models, "free_memory": free_memory})

    def open_gate(self, name: str) -> None:
        """Let a test node of this gate go on, now or when it comes to the gate."""
        self.post(f"/probe/gate/{name}", {})

    def object_info(self, node: str | None = None) -> dict[str, Any]:
        """All node types, or one of them (empty when there is none of that name)."""
        return dict(self.get("/object_info" if node is None else f"/object_info/{node}"))

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """A prompt's entry in the history; None while it has not ended."""
        entry: dict[str, Any] | None = self.get(f"/history/{prompt_id}").get(prompt_id)
        return entry

    def busy(self) -> bool:
        """Whether a prompt runs or waits."""
        queue = self.get("/queue")
        return bool(queue["queue_running"] or queue["queue_pending"])

    def view(self, file: dict[str, Any]) -> bytes:
        """A file as a node's ``ui`` names it: ``filename``, ``subfolder``, ``type``."""
        keys = ("filename", "subfolder", "type")
        return self._call("/view?" + urllib.parse.urlencode({key: file.get(key, "") for key in keys}))

    def tensor(self, result: Result, saved: Output) -> torch.Tensor:
        """What a ``TestSaveTensor`` node saved, bit for bit."""
        return load(self.view(result.ui(saved)["tensor"][0]))["tensor"]

    def settle(self, timeout: float = 30.0) -> None:
        """Cancel whatever runs or waits, and return when the server is idle.

        Raises:
            TimeoutError: it did not become idle.
        """
        deadline = time.monotonic() + timeout
        while self.busy():
            self.post("/queue", {"clear": True})
            self.interrupt()
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server is still busy {timeout:g} s after it was interrupted")
            time.sleep(0.1)

    def event_types(self) -> set[str]:
        """The types of event seen so far."""
        return {event.type for event in self.events.seen()}

    def events_of(self, kind: str, **match: Any) -> list[Event]:
        """The events seen so far that are of one type and hold these values."""
        return [event for event in self.events.seen() if event.matches(kind, match)]

    def get(self, path: str) -> Any:
        """The answer to a GET, from JSON."""
        return json.loads(self._call(path))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer to a POST, from JSON where it has a body."""
        answer = self._call(path, json.dumps(body).encode())
        return json.loads(answer) if answer else None

    def _call(self, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.url + path, data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            content: bytes = response.read()
            return content
