"""VAE files with random weights and latent files, for the test servers.

A VAE's shapes are core's own, at two widths: narrow ones decode in a fraction of the time and load through
``TestLoadVAE``, full ones (``-full``) through stock's VAELoader. Making them takes seconds, so they are kept in
pytest's cache (``pytest --cache-clear`` drops them).
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.comfyui.client import Output, Prompt
from tests.comfyui.cores import Core
from tests.comfyui.server import BOOTSTRAP, SHIM

RECIPE = SHIM / "random_vae.py"
#: Family and width of each VAE. The full Wan 2.2 is a file of 1.1 GB and takes 3.5 GB of memory to decode.
WIDTHS = {
    "wan21": ("wan21", 8),
    "wan21-full": ("wan21", 96),
    "wan22": ("wan22", 8),
    "wan22-full": ("wan22", 256),
    "sd": ("sd", 32),
    "sd-full": ("sd", 128),
    "ltx-full": ("ltx", 128),
}
FULL = "-full"


class Models:
    """The VAE files of one core, made when they are first asked for.

    Args:
        core: whose classes give the shapes.
        folder: where they are kept; the servers' loaders look there, too.
    """

    def __init__(self, core: Core, folder: Path) -> None:
        self.core = core
        self.folder = folder

    def file(self, name: str) -> str:
        """The file name, as a loader takes it, of ``"wan21"``, ``"wan21-full"``, ``"wan22"``, …

        Raises:
            RuntimeError: making it failed.
        """
        family, width = WIDTHS[name]
        digest = hashlib.sha256(RECIPE.read_bytes()).hexdigest()[:8]
        file = self.folder / f"{name}-{width}-{digest}.safetensors"
        if not file.exists():
            command = [self.core.python, BOOTSTRAP, RECIPE, self.core.path, family, str(width), file]
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode:
                raise RuntimeError(f"{name} could not be made with ComfyUI {self.core.version}:\n{made.stderr}")
            for old in self.folder.glob(f"{name}-{width}-*.safetensors"):
                if old != file:
                    old.unlink()
        return file.name

    def load(self, prompt: Prompt, name: str) -> Output:
        """Add the loader of a VAE to ``prompt``: stock's VAELoader for the full ones."""
        return prompt.add("VAELoader" if name.endswith(FULL) else "TestLoadVAE", vae_name=self.file(name))


def write_latent(folder: Path, shape: Sequence[int], seed: int = 0) -> str:
    """Write a random latent as stock's SaveLatent does; return the file's name, as stock's LoadLatent takes it.

    Args:
        folder: the server's input folder.
        shape: ``(N, C, T, H, W)``, or ``(N, C, H, W)`` for an image VAE.
        seed: what it is drawn from.
    """
    name = f"{'x'.join(map(str, shape))}-{seed}.latent"
    save_latent(folder / name, torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))
    return name


def save_latent(file: Path, latent: torch.Tensor) -> None:
    """Write ``latent`` as stock's SaveLatent does."""
    # Without the second key LoadLatent takes the file for one of an older kind and scales it.
    save_file({"latent_tensor": latent.contiguous(), "latent_format_version_0": torch.tensor([])}, file)


def random_latent(prompt: Prompt, *shape: int, seed: int = 0, dtype: str = "float32", kind: str = "random") -> Output:
    """Add a node to ``prompt`` that gives a latent of any shape, or something that is none (see ``TestLatent``)."""
    return prompt.add("TestLatent", shape=",".join(map(str, shape)), seed=seed, dtype=dtype, kind=kind)
