"""Stands in for a server's ffmpeg: encodes as the real one does, waits before the first frame, or fails."""

from __future__ import annotations

import os
import signal

from async_decode.sinks.ffmpeg import find_ffmpeg
from tests.comfyui.server import Server


class Encoders:
    """What is called ``ffmpeg`` in the base folder of ``server``, which must run that one.

    It encodes nothing while the file ``hold`` is there, and fails at once while ``broken`` is. While ``hanging`` is, it
    encodes as many bytes of frames as that says, takes the rest, and never ends.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.hold = server.base / "hold"
        self.broken = server.base / "broken"
        self.hanging = server.base / "hanging"
        place = server.base / "ffmpeg"
        place.unlink(missing_ok=True)
        place.write_text(
            "#!/bin/sh\n"
            'case "$*" in *rawvideo*)\n'
            f"""  if [ -e "{self.broken}" ]; then echo 'Unknown encoder' >&2; exit 3; fi\n"""
            f"""  if [ -e "{self.hanging}" ]; then head -c "$(cat "{self.hanging}")" | "{find_ffmpeg()}" "$@"; """
            "cat > /dev/null; while :; do sleep 0.1; done; fi\n"
            f'  while [ -e "{self.hold}" ]; do sleep 0.02; done;;\n'
            "esac\n"
            f'exec "{find_ffmpeg()}" "$@"\n'
        )
        place.chmod(0o755)

    def stop(self) -> None:
        """From now on encoders wait."""
        self.hold.touch()

    def go(self) -> None:
        """All of them go on."""
        self.hold.unlink(missing_ok=True)
        self.hanging.unlink(missing_ok=True)

    def hang(self, taken: int) -> None:
        """From now on encoders hang when they have encoded so many bytes of frames."""
        self.hanging.write_text(str(taken))

    def kill(self) -> None:
        """End those that are there."""
        for pid, name in self.server.children().items():
            if "ffmpeg" in name or name == "sh":
                os.kill(pid, signal.SIGKILL)
