"""The command ``decode --comfyui`` beside core's own ``vae.decode``, inside one ComfyUI: prints both hashes as JSON.

python core_shim/bootstrap.py decode_in_core.py CHECKOUT LATENT VAE FOLDER
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main() -> None:
    checkout, latent, vae, folder = sys.argv[1:]
    del sys.argv[1:]
    from async_decode.__main__ import main as command

    out = ["--out", str(Path(folder) / "{name}.mkv"), "--fps", "8", "--device", "cpu"]
    status = command(["decode", latent, "--comfyui", checkout, "--vae", vae, *out])
    lines = (Path(folder) / "async-decode.jsonl").read_text(encoding="utf-8").splitlines()

    # The command has made core importable.
    import comfy.sd
    import comfy.utils
    import safetensors.torch

    stock = comfy.sd.VAE(sd=comfy.utils.load_torch_file(vae))
    frames = stock.decode(safetensors.torch.load_file(latent)["latent_tensor"].float())
    wanted = (255.0 * frames).clamp(0, 255).byte().contiguous().numpy()
    digest = hashlib.sha256(wanted.tobytes()).hexdigest()
    pack = "async_vae_decode_pack."
    doubled = [
        name
        for name, module in sys.modules.items()
        if name.startswith(f"{pack}async_decode") and sys.modules.get(name.removeprefix(pack)) is not module
    ]
    print(json.dumps({"status": status, "line": json.loads(lines[-1]), "stock": digest, "doubled": doubled}))


if __name__ == "__main__":
    main()
