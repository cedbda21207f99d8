"""Nodes for the server tests: exact tensors out of a prompt, latents of any form, waits and failures at a chosen point.

A custom node pack in the older API, which every core loads. It is linked into the test servers only.
"""

from __future__ import annotations

from .flow import Explode, Gate, LateError
from .savers import VideoCombine
from .tensors import Anything, Images, Latent, LazyAudio, SaveSound, SaveTensor, Sound
from .vaes import CheapVAE, DecoderStep, LoadVAE, OtherVAE, StandInVAE

NODE_CLASS_MAPPINGS = {
    "TestSaveTensor": SaveTensor,
    "TestLatent": Latent,
    "TestImages": Images,
    "TestAnything": Anything,
    "TestSound": Sound,
    "TestSaveSound": SaveSound,
    "TestLazyAudio": LazyAudio,
    "TestLoadVAE": LoadVAE,
    "TestCheapVAE": CheapVAE,
    "TestOtherVAE": OtherVAE,
    "TestStandInVAE": StandInVAE,
    "TestDecoderStep": DecoderStep,
    "TestGate": Gate,
    "TestExplode": Explode,
    "TestLateError": LateError,
    "VHS_VideoCombine": VideoCombine,
}

__all__ = ["NODE_CLASS_MAPPINGS"]
