"""What makes a decoder faster with the same bits: blocks by family, kernels, proof and audit.

The promise: proven, then used; confirmed in its first use; audited; never assumed. Stock's own loop goes on calling
stock's own modules; in their place stand ours, for the time of a run. Where one of them is not proven on this machine,
for just these shapes and layouts, or where anything is not as expected, stock's code runs.
"""

from .cache_folder import cache_folder
from .use import DecoderUse, Mode, check_mode, faster

__all__ = ["DecoderUse", "Mode", "cache_folder", "check_mode", "faster"]
