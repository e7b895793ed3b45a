"""Energon's state <-> plain values: numbers, strings, bytes, tensors, and lists and dicts of them.

A checkpoint holds no pickled classes (nothing in it is executed when it is read); energon's state is made of its own. What
comes back is equal to what went in; only classes of megatron.energon are ever made.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from thinktalk.errors import ConfigError

__all__ = ["objects", "plain"]


def plain(value: Any) -> Any:
    """A state of energon's loader as plain values. Errors: ConfigError names what cannot be made plain."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, torch.Tensor)):
        return value
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, tuple):
        return {"kind": "tuple", "items": [plain(v) for v in value]}
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
        return {"kind": "array", "dtype": str(value.dtype), "values": value.tolist()}
    if isinstance(value, Mapping):
        kind = "flex" if type(value).__name__ == "FlexState" else "dict"
        return {"kind": kind, "items": [[plain(k), plain(v)] for k, v in value.items()]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": f"{type(value).__module__}:{type(value).__qualname__}", "fields": fields}
    raise ConfigError(f"energon: its state holds {type(value).__name__}, expected plain values; use the version that pyproject.toml names")  # fmt: skip


def objects(value: Any) -> Any:
    """What `plain` made plain. Errors: ConfigError where a class is named that is not energon's."""
    if isinstance(value, list):
        return [objects(v) for v in value]
    if not isinstance(value, dict):
        return value
    kind = value["kind"]
    if kind == "tuple":
        return tuple(objects(v) for v in value["items"])
    if kind == "array":
        return np.array(value["values"], value["dtype"])
    if kind in ("dict", "flex"):
        items = {objects(k): objects(v) for k, v in value["items"]}
        return items if kind == "dict" else _named("megatron.energon.state:FlexState")(items)
    return _named(kind)(**{name: objects(v) for name, v in value["fields"].items()})


def _named(kind: str) -> type:
    module, _, name = kind.partition(":")
    if module.split(".")[:2] != ["megatron", "energon"] or not name.isidentifier():
        raise ConfigError(f"energon: the state names {kind[:80]}, expected one of energon's classes; the checkpoint is damaged")  # fmt: skip
    return getattr(importlib.import_module(module), name)
