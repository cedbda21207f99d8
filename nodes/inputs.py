"""What all nodes of the pack share of their schemas: the inputs that they have in common, and what those may hold."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from comfy_api.v0_0_2 import io

from ..async_decode import DecodeError
from ..async_decode.pipeline import MAX_BUFFER_DEPTH, MAX_CHUNK_SIZE

CATEGORY = "latent/async"
#: What people type when they look for a node like ours; only newer cores can be told.
SEARCH_ALIASES = ["async", "vae decode", "decode", "stream", "latent to video", "pipeline"]


def schema(**definition: Any) -> io.Schema:
    """A schema with what all nodes of the pack share, leaving out what the running core does not know yet."""
    known = {field.name for field in dataclasses.fields(io.Schema)}
    optional = {"search_aliases": SEARCH_ALIASES}
    return io.Schema(category=CATEGORY, **definition, **{key: value for key, value in optional.items() if key in known})


def advanced(inputs: Sequence[io.Input]) -> list[io.Input]:
    """``inputs``, whose widgets are marked as what most people leave alone; older cores have no word for it.

    What is new comes last of all, and is optional: older front ends find a saved workflow's values by their place.
    """
    for one in inputs:
        # What has no default has no widget.
        if hasattr(one, "advanced") and hasattr(one, "default"):
            one.advanced = True
    return list(inputs)


def decode_inputs() -> list[io.Input]:
    """What every decode node decodes, and with what."""
    return [
        io.Latent.Input("samples", tooltip="The latent to be decoded: video, or a batch of images."),
        io.Vae.Input("vae", tooltip="The VAE that belongs to the model that made the latent."),
    ]


def images_inputs() -> list[io.Input]:
    """What every node saves that takes frames which are there already."""
    return [io.Image.Input("images", tooltip="The frames to be saved. They are not copied as a whole.")]


def decode_ring_inputs() -> list[io.Input]:
    """How frames travel in a decode node."""
    return _ring_inputs(
        "Frames that travel together to system memory and to the writers (for image VAEs: images decoded at a time). "
        "It never changes the frames of a video. Smaller starts saving sooner, larger costs less overhead."
    )


def decoder_input() -> io.Input:
    """Whose decoder the decode nodes run."""
    return io.Combo.Input(
        "decoder",
        options=["auto", "stock"],
        default="auto",
        optional=True,
        tooltip="auto: blocks of the decoder are replaced by faster ones, wherever these were proven on this machine "
        "to give the same bits. stock: nothing is replaced.",
    )


def images_ring_inputs() -> list[io.Input]:
    """How frames travel that are there already."""
    return _ring_inputs("Frames that travel together to the writers. Smaller starts saving sooner.")


def _ring_inputs(chunk_size: str) -> list[io.Input]:
    return [
        io.Int.Input("chunk_size", default=4, min=1, max=MAX_CHUNK_SIZE, tooltip=chunk_size),
        io.Int.Input(
            "buffer_depth",
            default=3,
            min=1,
            max=MAX_BUFFER_DEPTH,
            tooltip="Chunks that may be under way at once, each in its own memory. 3 keeps all stages busy; 1 does one "
            "after the other, as a baseline to compare with.",
        ),
    ]


#: A node's ``execute``.
Execute = Callable[..., Awaitable[io.NodeOutput]]


def checked(execute: Execute) -> Execute:
    """``execute`` of a node, which gets the values of widgets only as the schema has them.

    Cores look at what a prompt holds (older ones not at choices), but not at what comes through a link.
    """

    @functools.wraps(execute)
    async def run(cls: type[io.ComfyNode], **given: Any) -> io.NodeOutput:
        return await execute(cls, **values_of(cls, given))

    return run


def known(node: type[io.ComfyNode], **given: Any) -> dict[str, Any]:
    """What is known of ``given`` before the prompt runs, as ``checked`` will have it.

    Args:
        node: whose widgets they are.
        given: values by input; ``None``: it is connected, and nobody knows it yet.

    Raises:
        DecodeError: as ``values_of``.
    """
    return {**given, **values_of(node, {name: value for name, value in given.items() if value is not None})}


def values_of(node: type[io.ComfyNode], given: Mapping[str, Any]) -> dict[str, Any]:
    """``given``, where the values of widgets are of the widget's type and in its range.

    Args:
        node: whose widgets they are.
        given: values by input; those without a widget are left as they are.

    Raises:
        DecodeError: one is not; the message names the input, its value and what it takes.
    """
    # What holds a widget may be connected to several types.
    widgets = {one.id: getattr(one, "input_override", None) or one for one in node.define_schema().inputs}
    return {name: _value_of(widgets[name], value) if name in widgets else value for name, value in given.items()}


def _value_of(widget: io.Input, value: Any) -> Any:
    plain = _plain(value)
    remedy = "set the widget, or connect such a value"
    if isinstance(widget, io.Combo.Input):
        if isinstance(plain, str) and plain in widget.options:
            return plain
        wanted, remedy = f"one of {', '.join(widget.options)}", "choose one of those, which work here"
    elif isinstance(widget, io.String.Input):
        # Python writes no longer ones.
        with contextlib.suppress(ValueError):
            if isinstance(plain, str | int | float):
                return str(plain)
        wanted = "a text"
    elif isinstance(widget, io.Boolean.Input):
        if isinstance(plain, Real) and plain in (0, 1):
            return bool(plain)
        wanted = "true or false"
    elif isinstance(widget, io.Int.Input | io.Float.Input):
        is_whole, number = isinstance(widget, io.Int.Input), _number_of(plain)
        if widget.min <= number <= widget.max and not (is_whole and number % 1):
            return int(number) if is_whole else number
        wanted = f"a {'whole ' * is_whole}number from {widget.min:g} to {widget.max:g}"
    else:
        return value
    raise DecodeError(f"{widget.id}: expected {wanted}, got {_shown(value)}; {remedy}")


def _plain(value: Any) -> Any:
    """A number of Python's for one of NumPy's, or for a tensor that holds one."""
    try:
        return value.item()
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return value


def _number_of(value: Any) -> float:
    """The number that is meant, also by a text as clients write it; NaN, which is in no range: there is none."""
    if not isinstance(value, Real | str):
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan
    except OverflowError:
        return math.inf


def _shown(value: Any) -> str:
    """A value as a message shows it: not longer than a line."""
    try:
        text = repr(value)
    except ValueError:
        # As above: of more than 4300 digits.
        text = f"a {type(value).__name__} of too many digits"
    return text if len(text) <= 100 else f"{text[:100]}…"


def check_images(images: Any) -> None:
    """Refuse what is not an IMAGE.

    Raises:
        DecodeError: the message names the value and the remedy.
    """
    if not isinstance(images, torch.Tensor):
        raise DecodeError(f"images: expected an IMAGE, got {type(images).__name__}; connect an output of that type")
    if images.ndim != 4 or images.shape[3] not in (1, 3, 4) or images.numel() == 0:
        raise DecodeError(
            "images: expected (frames, height, width, channels) with 1, 3 or 4 channels and none of them 0, got "
            f"{tuple(images.shape)}; convert it to an IMAGE first"
        )
    if not images.is_floating_point():
        raise DecodeError(
            f"images: expected floating-point values from 0 to 1, got {images.dtype}; convert and scale them first"
        )
