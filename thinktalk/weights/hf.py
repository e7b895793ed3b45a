"""The official checkpoint layout to modules and back: the one door for weights.

    directory --read_config--> OmniConfig --build--> modules without memory --load--> modules with the files' tensors
    OmniModel --save--> config.json, sharded safetensors, spk_dict.pt, tokenizer files

A tensor whose dtype and device match is a view of its file: loading copies nothing, pages come in when used.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thinktalk.config import OmniConfig
from thinktalk.errors import ConfigError
from thinktalk.layers.quant import Int8Linear
from thinktalk.weights.assign import SCALE, Assignment, own_tensors
from thinktalk.weights.config_read import read_config, read_raw
from thinktalk.weights.config_write import write_config
from thinktalk.weights.model import PARTS, OmniModel, build
from thinktalk.weights.names import official_name
from thinktalk.weights.store import Planned, atomic_directory, write_tensors
from thinktalk.weights.voices import load_voices, save_voices

__all__ = ["ASSETS", "PARTS", "OmniModel", "build", "copy_assets", "load", "parse_dtype", "planned", "read_config", "save", "write_config"]  # fmt: skip

ASSETS = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json",
    "chat_template.json", "chat_template.jinja", "voices.safetensors", "LICENSE", "README.md",
)  # fmt: skip
"""Files beside the weights that a new checkpoint takes over unchanged."""

DTYPES = {
    "float32": torch.float32, "fp32": torch.float32, "bfloat16": torch.bfloat16, "bf16": torch.bfloat16,
    "float16": torch.float16, "fp16": torch.float16, "float64": torch.float64,
}  # fmt: skip


def load(
    directory: str | Path,
    *,
    parts: Iterable[str] | None = None,
    device: str | torch.device | Mapping[str, str] = "cpu",
    dtype: str | torch.dtype | Mapping[str, str | torch.dtype] | None = None,
    voices: Path | None = None,
) -> OmniModel:
    """A checkpoint's parts as modules in eval mode, without gradients, with its voices.

    parts:  any of "thinker", "talker", "code2wav"; None loads all there are. Files of other parts are not opened.
    device: one for all, or the placement {"thinker": "cuda:0", "talker": "cuda:1", ...}; parts not named go to the CPU.
    dtype:  "float32", "bfloat16", "float16", or "int8" (linear layers in int8, the rest as stored), for all parts or by
            part; None keeps what is stored, a float turns stored int8 into floats. code2wav is float32, even where it is
            stored as int8, unless it is named in a mapping.
    voices: a voices.safetensors of the user's, read over the checkpoint's own voices.
    WeightsError lists every missing, unexpected and mis-shaped tensor at once.
    """
    directory = Path(directory)
    config = read_config(directory)
    model = build(config, parts)
    expand = {stage for part in model.parts if _expands(dtype, part) for stage in PARTS[part]}
    files = Assignment.open(directory, model, expand=expand)
    files.check()
    for part in model.parts:
        place = torch.device(_of_part(device, part, "cpu"))
        precision, int8 = _precision(dtype, part, files.stored_dtype(part))
        for stage in PARTS[part]:
            files.fill(stage, place, precision, int8=int8)
    model.requires_grad_(False)
    if "talker" in model.parts or "code2wav" in model.parts:
        model.voices = load_voices(directory, config, extra=voices)
    return model


def parse_dtype(name: str | torch.dtype) -> torch.dtype:
    """A torch dtype from its name."""
    if isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise ConfigError(f"dtype {name!r} is unknown; have {', '.join(DTYPES)}, int8")
    return DTYPES[name]


def _of_part(value: Any, part: str, default: Any) -> Any:
    if isinstance(value, Mapping):
        if unknown := set(value) - set(PARTS):
            raise ConfigError(f"part {sorted(unknown)[0]!r} is unknown; have {', '.join(PARTS)}")
        return value.get(part, default)
    return value


def _expands(dtype: Any, part: str) -> bool:
    """Whether int8 matrices of a part become floats."""
    if part == "code2wav" and not (isinstance(dtype, Mapping) and part in dtype):
        return True
    return _of_part(dtype, part, None) not in (None, "int8")


def _precision(dtype: Any, part: str, stored: torch.dtype) -> tuple[torch.dtype, bool]:
    """(dtype of the float tensors, whether linear layers become int8) of a part."""
    asked = _of_part(dtype, part, None)
    if part == "code2wav":
        if not (isinstance(dtype, Mapping) and part in dtype):
            return (
                torch.float32,
                False,
            )  # half precision is heard: the flow adds up 36 rounded steps
        stored = torch.float32
    if asked is None or asked == "int8":
        return stored, asked == "int8"
    return parse_dtype(asked), False


# --------------------------------------------------------------------------------------------------------------- save


def save(
    model: OmniModel,
    directory: str | Path,
    *,
    source: str | Path | None = None,
    dtype: str | torch.dtype | None = None,
    max_shard_bytes: int = 5_000_000_000,
    overwrite: bool = False,
) -> None:
    """Write the model as an official checkpoint; the directory appears whole or not at all.

    `source` is the checkpoint whose tokenizer files, and configuration keys that we do not model, are taken over. `dtype`
    casts the float tensors; int8 layers stay int8. Loading the result gives the same bits.
    """
    target = None if dtype is None else parse_dtype(dtype)
    plan = [
        tensor
        for stage, module in model.stages().items()
        for tensor in planned(stage, module, model.config, target)
    ]
    config = replace(
        model.config,
        talker=model.config.talker if model.talker is not None else None,
        code2wav=model.config.code2wav if model.dit is not None else None,
    )
    base = read_raw(source) if source is not None else None
    floats = Counter(t.dtype for t in plan if t.dtype.is_floating_point)
    name = str(floats.most_common(1)[0][0] if floats else torch.float32).removeprefix("torch.")
    with atomic_directory(directory, overwrite=overwrite) as fresh:
        write_tensors(fresh, plan, max_shard_bytes=max_shard_bytes)
        write_config(config, fresh, base=base, dtype=name)
        if model.voices:
            save_voices(model.voices, fresh)
        if source is not None:
            copy_assets(Path(source), fresh)


def copy_assets(source: Path, target: Path) -> None:
    """Take over the files beside the weights."""
    for name in ASSETS:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def planned(
    stage: str, module: nn.Module, config: OmniConfig, dtype: torch.dtype | None
) -> list[Planned]:
    """The tensors of one stage under their official names and shapes; `dtype` casts the float ones but int8 scales."""
    out = []
    for path, child in module.named_modules():
        for key, tensor in own_tensors(child).items():
            full, shape, kind = f"{path}.{key}".lstrip("."), tuple(tensor.shape), tensor.dtype
            make = lambda tensor=tensor: tensor  # noqa: E731
            if isinstance(child, Int8Linear) and key in ("weight", "scale"):
                name = official_name(stage, f"{path}.weight") + (SCALE if key == "scale" else "")
                if key == "weight":
                    make = child.plain_weight  # unpacked when its turn comes
            else:
                name = official_name(stage, full)
                kind = dtype or kind
            if full == "patch_embed.weight":
                v = config.thinker.vision
                shape = (v.width, v.in_channels, v.temporal_patch, v.patch, v.patch)
            out.append(
                Planned(name, kind, shape, lambda make=make, shape=shape: make().reshape(shape))
            )
    return out
