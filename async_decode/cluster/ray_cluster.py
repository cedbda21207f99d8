"""Ray: how this process comes to a cluster, its own or another one, and what Ray's errors say in one line."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from pathlib import Path
from typing import Any

from ..errors import AsyncDecodeError, DecodeError

#: The memory for objects of a Ray that we start, in bytes: calls and lines of the journal.
OBJECT_STORE = 256 << 20
#: How long a cluster may take to answer at its address, in seconds.
REACH = 10.0


def connect(ray: Any, address: str) -> None:
    """Come to the cluster at ``address``, or for ``auto`` start one on this machine.

    Raises:
        DecodeError: it cannot be reached.
    """
    # The engine as it is here, for workers of this machine; elsewhere it has to be installed.
    root = str(Path(__file__).parents[2])
    variables = {"PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
    local = address == "auto"
    if not local:
        _reach(address)
    ends = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address="local" if local else address,
            runtime_env={"env_vars": variables},
            log_to_driver=False,
            configure_logging=False,
            # No frame goes through it: not the third of the memory that Ray takes unasked.
            **({"object_store_memory": OBJECT_STORE} if local else {}),
        )
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise DecodeError(f"ray: {address} cannot be reached: {_refusal(error)}") from error
    except SystemExit:
        # Of Ray's own handler, which is there while it connects.
        if callable(ends):
            ends(signal.SIGTERM, None)
        raise
    if callable(ends) and threading.current_thread() is threading.main_thread():
        # Ray has put a handler of its own in the place of the program's.
        signal.signal(signal.SIGTERM, ends)


def _refusal(error: BaseException) -> str:
    """Why Ray did not let us in, in one line: what it raises tells only that it did not."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    if any("Authentication" in str(cause) or "Unauthenticated" in str(cause) for cause in causes):
        return (
            "it asks for its token; set RAY_AUTH_MODE=token here, and RAY_AUTH_TOKEN to its token where this machine's "
            "~/.ray/auth_token is another one"
        )
    return reason_of(error)


def _reach(address: str) -> None:
    """See whether anybody answers at ``address``: Ray itself tries for minutes.

    Raises:
        DecodeError: it is none, or nobody does.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        raise DecodeError(f"ray: expected 'auto', or the address of a cluster such as 10.0.0.1:6379, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DecodeError(
            f"ray: {address} cannot be reached: {reason}; say the address that 'ray start --head' has told"
        ) from error


def reason_of(error: BaseException) -> str:
    """What Ray says, in one line."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, AsyncDecodeError):
        return str(cause)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if "creation task" in lines[0]:
        # A traceback follows, and at its end what the actor has raised.
        return re.sub(r"^async_decode\.[\w.]+: ", "", lines[-1])
    return lines[0]
