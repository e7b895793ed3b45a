"""Packing: nested dataclasses of tensors, numbers and words -> JSON and named tensors, and back by their type hints.

Nothing is executed and nothing is guessed: what does not have exactly the declared form is Damaged.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any

from torch import Tensor

__all__ = ["Damaged", "pack", "unpack"]


class Damaged(Exception):  # noqa: N818  what is wrong, not an error of ours
    """What is wrong with a file."""


def pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON; its tensors go to `tensors` under their place in it."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return {"tensor": name}
    if isinstance(value, (list, tuple)):
        return [pack(item, f"{name}.{n}", tensors) for n, item in enumerate(value)]
    if dataclasses.is_dataclass(value):
        own = dataclasses.fields(value)
        return {f.name: pack(getattr(value, f.name), f"{name}.{f.name}", tensors) for f in own}
    if isinstance(value, dict):
        return json.dumps(value)
    return value


def unpack(kind: Any, content: Any, name: str, tensor: Any) -> Any:
    """JSON as a value of this type, or Damaged; unknown and missing fields are refused."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if content is None and type(None) in inner:
            return None
        (kind,) = [k for k in inner if k is not type(None)]
        return unpack(kind, content, name, tensor)
    if kind is Tensor:
        if not isinstance(content, dict) or set(content) != {"tensor"} or content["tensor"] != name:
            raise Damaged(f"{name}: expected a tensor")
        return tensor(name)
    if origin is list or origin is tuple:
        if not isinstance(content, list):
            raise Damaged(f"{name}: expected a list")
        kinds = [inner[0]] * len(content) if origin is list or inner[-1] is ... else list(inner)
        if len(kinds) != len(content):
            raise Damaged(f"{name}: expected {len(kinds)} items")
        items = [unpack(k, c, f"{name}.{n}", tensor) for n, (k, c) in enumerate(zip(kinds, content, strict=True))]  # fmt: skip
        return items if origin is list else tuple(items)
    if origin is dict:
        value = json.loads(content) if isinstance(content, str) else None
        if not isinstance(value, dict):
            raise Damaged(f"{name}: expected an object")
        return value
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        own = [f.name for f in dataclasses.fields(kind)]
        if not isinstance(content, dict) or set(content) != set(own):
            raise Damaged(f"{name}: expected the fields {', '.join(own)}")
        return kind(**{f: unpack(hints[f], content[f], f"{name}.{f}", tensor) for f in own})
    if kind is float and type(content) is int:
        content = float(content)
    if type(content) is not kind or kind not in (int, float, str, bool):
        raise Damaged(f"{name}: {str(content)[:40]!r}, expected {getattr(kind, '__name__', kind)}")
    return content
