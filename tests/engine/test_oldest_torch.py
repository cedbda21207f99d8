"""A torch that is too old is refused where the package is imported, in one line that says what is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_torch_without_16_bits_is_refused_at_once() -> None:
    code = "import torch; del torch.uint16; torch.__version__ = '2.2.2'; import async_decode"

    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    last = run.stderr.strip().splitlines()[-1]
    assert run.returncode != 0
    assert last == "ImportError: Async VAE Decode needs torch 2.3 or newer, which has 16-bit frames; this is 2.2.2"
