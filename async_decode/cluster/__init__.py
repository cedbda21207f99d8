"""Many clips: the same pipeline for a folder of latents, in one process, on all GPUs of a machine, or on a cluster.

::

    from async_decode.cluster import decode_many

    decode_many("latents/", "clips/{name}.mp4", vae="Wan2.1-T2V-1.3B-Diffusers", options=Options(fps=16), ray="auto")

Ray, an extra, is imported only where it is asked for.
"""

from ..sinks.paths import Options
from .actors import DecodeActor
from .many import Outcome, decode_many
from .vaes import VAEPlace

__all__ = ["DecodeActor", "Options", "Outcome", "VAEPlace", "decode_many"]
