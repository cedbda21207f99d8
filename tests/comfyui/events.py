"""Collects what a ComfyUI server sends over its websocket, in a thread, for tests that look at it or wait for it."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Any

#: What a front end tells the server that it understands; without it previews come without the node's id.
FEATURES = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
#: Kinds of binary message, as core's ``protocol.py`` numbers them.
PREVIEW_IMAGE, PREVIEW_IMAGE_WITH_METADATA = 1, 4


@dataclass(frozen=True)
class Event:
    """One message.

    Attributes:
        type: its type; binary messages are ``"preview"`` or ``"binary"``.
        data: its content; of a preview, what is known about the image.
        at: when it came, by ``time.monotonic``.
        image: the encoded picture of a preview.
    """

    type: str
    data: dict[str, Any]
    at: float
    image: bytes = field(default=b"", repr=False)

    def matches(self, kind: str, match: dict[str, Any]) -> bool:
        """Whether it is of this type and holds these values."""
        return self.type == kind and all(key in self.data and self.data[key] == match[key] for key in match)


class EventStream:
    """A websocket, open from construction to ``close``.

    Args:
        url: the server's address.
        client_id: whose events.

    Raises:
        ConnectionError: the server does not accept it.
    """

    def __init__(self, url: str, client_id: str) -> None:
        self._url = f"{url}/ws?clientId={client_id}"
        self._seen: list[Event] = []
        self._changed = threading.Condition()
        self._ended: str | None = None
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="ComfyUI events", daemon=True)
        self._thread.start()
        # The server's first words, once it has this client.
        self.wait("status", timeout=30)

    def seen(self) -> list[Event]:
        """Everything so far."""
        with self._changed:
            return list(self._seen)

    def wait(self, kind: str, *, timeout: float = 60.0, count: int = 1, **match: Any) -> Event:
        """The event of one type that holds these values: the ``count``-th, seen already or waited for.

        Raises:
            TimeoutError: it did not come in time.
            ConnectionError: the connection ended before it came.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = [event for event in self._seen if event.matches(kind, match)]
                if len(found) >= count:
                    return found[count - 1]
                if self._ended is not None:
                    raise ConnectionError(f"no {kind} {match}: {self._ended}")
                if not self._changed.wait(deadline - time.monotonic()):
                    failed = [event for event in self._seen if event.type == "execution_error"]
                    last = [(event.type, event.data) for event in self._seen[-5:]]
                    raise TimeoutError(
                        f"no {kind} {match} within {timeout:g} s; the last events are {last}; these nodes have failed: "
                        f"{[event.data['exception_message'] for event in failed]}"
                    )

    def close(self) -> None:
        """Close the websocket."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._listen())
            ended = "the connection was closed"
        except Exception as error:
            ended = f"the connection failed: {error!r}"
        with self._changed:
            self._ended = ended
            self._changed.notify_all()

    async def _listen(self) -> None:
        # Here, so that a machine without it can still collect the tests and skip them.
        import aiohttp

        async with aiohttp.ClientSession() as session, session.ws_connect(self._url, max_msg_size=0) as socket:
            await socket.send_json(FEATURES)
            closing = asyncio.ensure_future(self._stop.wait())
            while not closing.done():
                receiving = asyncio.ensure_future(socket.receive())
                await asyncio.wait({receiving, closing}, return_when=asyncio.FIRST_COMPLETED)
                if not receiving.done():
                    receiving.cancel()
                    return
                message = receiving.result()
                if message.type is aiohttp.WSMsgType.TEXT:
                    content = json.loads(message.data)
                    self._add(Event(content["type"], content.get("data") or {}, time.monotonic()))
                elif message.type is aiohttp.WSMsgType.BINARY:
                    self._add(_picture(message.data))
                else:
                    closing.cancel()
                    return

    def _add(self, event: Event) -> None:
        with self._changed:
            self._seen.append(event)
            self._changed.notify_all()


def _picture(message: bytes) -> Event:
    """A binary message: its kind, then an image's format, or the length of its metadata and the metadata."""
    kind, number = struct.unpack_from(">II", message)
    if kind == PREVIEW_IMAGE:
        return Event("preview", {"format": number}, time.monotonic(), message[8:])
    if kind == PREVIEW_IMAGE_WITH_METADATA:
        return Event("preview", json.loads(message[8 : 8 + number]), time.monotonic(), message[8 + number :])
    return Event("binary", {"kind": kind}, time.monotonic(), message[4:])
