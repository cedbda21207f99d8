"""The one plug between the engine and ComfyUI: ``decode --comfyui``, where core's own class decodes.

Nothing of ComfyUI is imported by this package. What knows it is ``nodes/without_server.py`` of the pack around this
package; it is loaded here by its path, and has ``load_vae(root, file, device, *, chunk_size)``, which returns a
``LoadedVAE``. Where the package was installed without the pack there is nothing to plug in.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DecodeError

#: The file, in the pack's folder, and the name under which its package goes: ComfyUI has a module "nodes" of its own.
PLUG, PACK = Path("nodes", "without_server.py"), "async_vae_decode_pack"


def vae_file(root: Path, name: str) -> Path:
    """The file of the VAE ``name``: one in ``models/vae`` of ComfyUI's folder ``root``, or a path.

    Raises:
        DecodeError: there is none, or ``root`` is not ComfyUI's folder.
    """
    root = root.expanduser()
    if not (root / "comfy" / "sd.py").is_file():
        raise DecodeError(f"comfyui: {root} is not ComfyUI's folder: it has no comfy/sd.py")
    for path in (root / "models" / "vae" / name, Path(name)):
        if path.is_file():
            return path
    known = sorted(path.name for path in (root / "models" / "vae").glob("*.*"))
    raise DecodeError(f"vae: {name} is neither a file nor in {root / 'models' / 'vae'} ({', '.join(known) or 'empty'})")


def vae_loader() -> Callable[..., Any]:
    """``load_vae`` of the pack's ``nodes/without_server.py``.

    Raises:
        DecodeError: this package was installed without the pack around it.
    """
    engine = __package__.rpartition(".")[0]
    pack = Path(sys.modules[engine].__file__ or "").parents[1]
    if not (pack / PLUG).is_file():
        raise DecodeError(
            "comfyui: ComfyUI's VAEs are decoded through the nodes' code; run this in the pack's folder "
            "(ComfyUI/custom_nodes/…)"
        )
    # The packages around the file stand there without having run, as the pack's own start needs a server.
    for name, folder in ((PACK, pack), (f"{PACK}.nodes", pack / "nodes")):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules.setdefault(name, package)
    # Its engine is this one, not a second.
    for name, module in list(sys.modules.items()):
        if name == engine or name.startswith(f"{engine}."):
            sys.modules[f"{PACK}.async_decode{name.removeprefix(engine)}"] = module
    load: Callable[..., Any] = importlib.import_module(f"{PACK}.nodes.{PLUG.stem}").load_vae
    return load
