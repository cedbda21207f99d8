"""What holds for every test of the repository."""

from __future__ import annotations

import os

# On a machine that does other things as well, torch's threads spin while they wait for each other, and a decode takes
# ten times as long. Read when torch is first imported; servers that tests start inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
