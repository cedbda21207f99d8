"""How long to go on waiting for a sink that may have stopped getting on."""

from __future__ import annotations

import time

#: How long a sink may get no further, in seconds; longer where the waiting had taken longer before.
PATIENCE = 60.0
#: Whoever waits looks many times a second; where nobody did for so long, in seconds, the machine slept.
_ASLEEP = 5.0


class Patience:
    """One waiting for somebody who may have stopped getting on.

    Args:
        so_far: how long the waiting took until now, in seconds: so long at least it may go on.

    Attributes:
        seconds: how long nothing may change.
    """

    def __init__(self, so_far: float) -> None:
        self.seconds = max(PATIENCE, so_far)
        self._moved = self._looked = time.monotonic()
        self._seen: object = None

    def ended(self, state: object) -> bool:
        """Whether ``state`` has been the same for too long."""
        now = time.monotonic()
        if state != self._seen:
            self._seen, self._moved = state, now
        elif now - self._looked > _ASLEEP:
            # Nobody got on meanwhile. Of a machine's sleep, some clocks count each second.
            self._moved += now - self._looked
        self._looked = now
        return now - self._moved > self.seconds
