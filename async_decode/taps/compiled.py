"""What ``torch.compile`` makes of modules: where the original is, and how a hook runs outside of what is compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

#: Gets the module, its positional arguments and what it returned; what it returns takes the place of that.
Hook = Callable[[torch.nn.Module, Any, Any], Any]


def original(module: Any) -> Any:
    """The module that ``torch.compile`` wrapped, or ``module`` itself."""
    return getattr(module, "_orig_mod", module)


def is_compiled(function: Any) -> bool:
    """Whether a module, by ``torch.compile`` or in place, or a function runs compiled as one."""
    if isinstance(function, torch.nn.Module):
        return original(function) is not function or getattr(function, "_compiled_call_impl", None) is not None
    return hasattr(function, "_torchdynamo_orig_callable")


@contextlib.contextmanager
def output_hook(module: torch.nn.Module, hook: Hook) -> Iterator[None]:
    """Have ``hook`` called whenever ``module`` returns, outside of what is compiled.

    A hook on a module that was compiled in place would become part of what is compiled, or be overlooked.
    """
    in_place: Callable[..., Any] | None = vars(module).get("_compiled_call_impl")
    if in_place is None:
        handle = module.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()
        return

    def call(*arguments: Any, **named: Any) -> Any:
        return hook(module, arguments, in_place(*arguments, **named))

    vars(module)["_compiled_call_impl"] = call
    try:
        yield
    finally:
        vars(module)["_compiled_call_impl"] = in_place
