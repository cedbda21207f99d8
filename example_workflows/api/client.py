"""Queues a workflow in API format, follows it over the websocket and fetches its files: Python's standard library only.

python client.py decode_latent.json --server http://127.0.0.1:8188 --out fetched
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import socket
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Seconds between two questions after a run that finishes its files in the background.
INTERVAL = 0.5
_ENDS = {"failed": "failed", "cancelled": "been cancelled"}


def run(server: str, prompt: dict[str, Any], out: Path) -> list[Path]:
    """Queue ``prompt``, wait for its end and fetch what it has saved."""
    client_id = uuid.uuid4().hex
    events = Events(server, client_id)  # before the prompt is queued, so that none is missed
    prompt_id = queue(server, prompt, client_id)
    follow(events, prompt_id)
    events.close()
    outputs = outputs_of(server, prompt_id)
    reports = [final(server, json.loads(text)) for node in outputs for text in node.get("async_vae_decode", [])]
    for report in reports:
        print(report["summary"])
    out.mkdir(parents=True, exist_ok=True)
    return list(fetch(server, outputs, out))


def load(workflow: Path) -> dict[str, Any]:
    """Read a workflow in API format.

    Raises:
        SystemExit: there is no such file, or it is something else.
    """
    try:
        prompt = json.loads(workflow.read_text("utf-8"))
    except OSError as error:
        raise SystemExit(f"{workflow}: {error.strerror}") from None
    except ValueError as error:  # of the text's encoding, or of JSON
        raise SystemExit(f"{workflow} is not JSON: {error}") from None
    nodes = prompt.values() if isinstance(prompt, dict) else []
    if not nodes or not all(isinstance(node, dict) and "class_type" in node for node in nodes):
        raise SystemExit(f"{workflow} is not a workflow in API format; save it in ComfyUI with File > Export (API)")
    return dict(prompt)


def queue(server: str, prompt: dict[str, Any], client_id: str) -> str:
    """Queue ``prompt`` and return its id.

    Raises:
        SystemExit: the server refuses it, and says why.
    """
    body = json.dumps({"prompt": prompt, "client_id": client_id}).encode()
    request = urllib.request.Request(f"{server}/prompt", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return str(json.load(answer)["prompt_id"])
    except urllib.error.HTTPError as refused:
        raise SystemExit(f"refused: {_reason(refused.read().decode())}") from None


def _reason(answer: str) -> str:
    """What a refusal says, in one line: the errors of the nodes, or else that of the whole."""
    try:
        told = json.loads(answer)
        errors = [
            f"node {node_id} ({node['class_type']}): {error['message']}: {error['details']}"
            for node_id, node in (told.get("node_errors") or {}).items()
            for error in node["errors"]
        ]
        return "; ".join(errors) or f"{told['error']['message']} {told['error']['details']}".strip()
    except (ValueError, TypeError, KeyError, AttributeError):
        return answer  # of a proxy, say


def follow(events: Events, prompt_id: str) -> None:
    """Print the progress of a prompt and return when it has ended.

    Raises:
        SystemExit: it failed or was cancelled.
    """
    for kind, data in events:
        if data.get("prompt_id") != prompt_id:
            continue
        if kind == "progress":
            print(f"node {data['node']}: {data['value']} of {data['max']} frames", end="\r", file=sys.stderr)
        elif kind == "execution_error":
            raise SystemExit(f"node {data['node_id']} ({data['node_type']}): {data['exception_message']}")
        elif kind == "execution_interrupted":
            raise SystemExit("cancelled")
        elif kind == "executing" and data["node"] is None:
            print(file=sys.stderr)
            return


def outputs_of(server: str, prompt_id: str) -> list[dict[str, Any]]:
    """What the nodes of a prompt that has ended tell of their files."""
    with urllib.request.urlopen(f"{server}/history/{prompt_id}") as answer:
        return list(json.load(answer)[prompt_id]["outputs"].values())


def final(server: str, report: dict[str, Any]) -> dict[str, Any]:
    """The report of a run whose files are whole: of one that finishes them in the background, when it has.

    Raises:
        SystemExit: they will never be whole.
    """
    while report.get("finishing"):
        try:
            with urllib.request.urlopen(f"{server}/async_vae_decode/runs/{report['run']}") as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            # The server remembers the last runs, and this one ended long ago: the report came from ComfyUI's cache.
            return report
        if told["state"] in ("failed", "cancelled"):
            left = f"; what is left: {', '.join(told['cut_short'])}" if told["cut_short"] else ""
            raise SystemExit(f"saving in the background has {_ENDS[told['state']]}: {told['error']}{left}")
        if told["state"] == "completed":
            return dict(told["report"])
        time.sleep(INTERVAL)
    return report


def fetch(server: str, outputs: list[dict[str, Any]], out: Path) -> Iterator[Path]:
    """Write the files that nodes have saved into ``out``."""
    for node in outputs:
        files = {json.dumps(item): item for items in node.values() for item in items if _is_saved(item)}
        for file in files.values():
            query = urllib.parse.urlencode({key: file[key] for key in ("filename", "subfolder", "type")})
            with urllib.request.urlopen(f"{server}/view?{query}") as content:
                path = out / file["filename"]
                path.write_bytes(content.read())
                yield path


def _is_saved(item: Any) -> bool:
    """Whether a node's output names a file in ComfyUI's output folder, and not what the page shows in its place."""
    return isinstance(item, dict) and "filename" in item and item.get("type") == "output"


class Events:
    """The server's events as ``(type, data)``: as much of a websocket (RFC 6455) as listening to ComfyUI takes."""

    def __init__(self, server: str, client_id: str) -> None:
        try:
            address = urllib.parse.urlsplit(server)
            if address.scheme != "http" or not address.hostname:
                raise ValueError
            self._socket = socket.create_connection((address.hostname, address.port or 80))
        except ValueError:  # also a port that is none, half an IPv6 address, a name that cannot be one
            raise SystemExit(f"expected an address such as http://127.0.0.1:8188, got {server}") from None
        except OSError as error:
            reason = error.strerror or error
            raise SystemExit(f"no server at {server} ({reason}); start ComfyUI, or name its --server") from None
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {address.path}/ws?clientId={client_id} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._stream = self._socket.makefile("rb")
        status = self._stream.readline().decode()
        if " 101 " not in status:
            raise ConnectionError(f"{server} opens no websocket: {status.strip()}")
        while self._stream.readline().strip():
            pass

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        message = b""
        while True:
            first, second = self._read(2)
            length = second & 127
            if length >= 126:
                length = int.from_bytes(self._read(2 if length == 126 else 8), "big")
            payload, opcode = self._read(length), first & 15
            if opcode == 8:
                raise ConnectionError("the server closed the websocket")
            if opcode == 9:
                self._send(10, payload)  # a ping, which wants its pong
            if opcode >= 8:
                continue
            if opcode:
                kind, message = opcode, b""
            message += payload
            if first & 128 and kind == 1:  # whole, and text; binary ones are previews
                event = json.loads(message)
                yield event["type"], event.get("data") or {}

    def close(self) -> None:
        self._send(8, b"")
        self._socket.close()

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise ConnectionError("the server is gone")
        return data

    def _send(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        self._socket.sendall(struct.pack("!BB", 128 | opcode, 128 | len(payload)) + mask + masked)


def main() -> None:
    parser = argparse.ArgumentParser(description="Queue a workflow in API format and fetch the files that it saves.")
    parser.add_argument("workflow", type=Path)
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="ComfyUI's address (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("fetched"), help="folder for the files (%(default)s)")
    options = parser.parse_args()
    try:
        for path in run(options.server.rstrip("/"), load(options.workflow), options.out):
            print(path)
    except OSError as error:  # the server is gone, the disk is full, …
        raise SystemExit(f"failed: {error}") from None


if __name__ == "__main__":
    main()
