"""Docstrings of what is public: every argument that may be left out says what it is then."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import async_decode
from async_decode import cluster, sinks, taps

Case = tuple[str, str, dict[str, Any]]


def documented(name: str, of: Any, doc: str | None) -> Case:
    """``of`` with its docstring, and the defaults of its arguments."""
    parameters = inspect.signature(of).parameters.values()
    return name, doc or "", {one.name: one.default for one in parameters if one.default is not one.empty}


def public(module: ModuleType) -> Iterator[Case]:
    """What ``module`` exports that can be called, and the methods of its classes."""
    for name in module.__all__:
        of = getattr(module, name)
        # Its methods are those of a tensor, for which a model takes it.
        if of is taps.OutputBuffer:
            continue
        if inspect.isclass(of) and not issubclass(of, BaseException) and not hasattr(of, "__members__"):
            yield documented(name, of, of.__doc__)
            for method, function in vars(of).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield documented(f"{name}.{method}", function, inspect.getdoc(getattr(of, method)))
        elif inspect.isfunction(of):
            yield documented(name, of, of.__doc__)


CASES = {name: (doc, defaults) for m in (async_decode, sinks, taps, cluster) for name, doc, defaults in public(m)}


@pytest.mark.parametrize("name", [name for name, (_, defaults) in CASES.items() if defaults])
def test_defaults_are_said(name: str) -> None:
    doc, defaults = CASES[name]
    # An entry's further lines are further in.
    entries = {match[2]: match[3] for match in re.finditer(r"^( +)(\w+): (.*(?:\n\1 +.*)*)", doc, re.M)}
    written = re.compile(r"Default: ``([^`]*)``")
    said = {one: match[1] for one, text in entries.items() if (match := written.search(" ".join(text.split())))}
    plain = {
        one: default for one, default in defaults.items() if default is None or isinstance(default, int | float | str)
    }

    assert [one for one in defaults if one not in said] == []
    assert {one: said[one] for one in plain} == {one: spelt(default) for one, default in plain.items()}


def spelt(default: Any) -> str:
    """``default`` as it is written in a docstring."""
    return f'"{default}"' if isinstance(default, str) else repr(default)
