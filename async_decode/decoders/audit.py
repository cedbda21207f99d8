"""Audited: in every run some places, other ones each time, are computed both ways and compared.

A place is audited for a whole step: where a result differs, stock's goes on, so that no frame of the step has another.
"""

from __future__ import annotations

import random

#: The share of a decode's time that audits may take.
BUDGET = 0.02
#: An audit runs stock's block and copies what it gets: so much of the time of stock's block.
_COST = 1.5
#: So much of stock's time the replacements take, at least.
_FASTER = 0.4


class Auditor:
    """Chooses what to audit within the budget.

    Args:
        seed: for tests; ``None``: another choice each time.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)
        self._earned = 0.0
        self._target: str | None = None
        #: Places that were audited, each in one step.
        self.audited = 0

    def choose(self, times: dict[str, float]) -> str | None:
        """The place to audit in the step that begins, or ``None``.

        Args:
            times: for each place that runs its replacement, the milliseconds that stock takes in this step.
        """
        self._earned += BUDGET * _FASTER * sum(times.values())
        if not times:
            return None
        if self._target not in times:
            self._target = self._random.choice(sorted(times))
        chosen = self._target
        if self._price(times[chosen]) > self._earned:
            # The first audit of a run does not wait for its turn: a short clip has some as well.
            cheap = sorted(name for name, time in times.items() if self._price(time) <= self._earned)
            if self.audited or not cheap:
                return None
            chosen = self._random.choice(cheap)
        else:
            self._target = None
        self._earned -= self._price(times[chosen])
        self.audited += 1
        return chosen

    @staticmethod
    def _price(time: float) -> float:
        return _COST * time
