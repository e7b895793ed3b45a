"""Starting points for training, as the report initialises: stages filled from checkpoints of other models.

    Qwen2.5 (or the language model of Qwen2.5-VL) -> Thinker;  Qwen2.5-VL visual -> VisionEncoder;  Whisper -> AudioEncoder

Tensors are copied into stages that have memory already; what the source does not know (the audio projection, new tokens)
keeps the values it had and is named in the answer. Settings that no shape betrays (heads, window, rotary base) must agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thinktalk.encoders.audio import AudioEncoder
from thinktalk.encoders.vision import VisionEncoder
from thinktalk.errors import ConfigError, WeightsError
from thinktalk.thinker.model import Thinker
from thinktalk.weights.files import TensorFiles, read_json
from thinktalk.weights.names import PART_PREFIXES, our_name

__all__ = ["Initialised", "init_audio", "init_thinker", "init_vision"]

# whisper's table is stored in half precision, whose step below 1 is 0.0005
_POSITION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Initialised:
    """What came from the source and what did not; names are ours."""

    copied: tuple[str, ...]
    """Tensors that hold the source's values."""
    partial: tuple[str, ...]
    """Tables of which some rows are the source's: vocabularies of different sizes."""
    untouched: tuple[str, ...]
    """Tensors that keep the values they had."""


def init_thinker(thinker: Thinker, directory: str | Path) -> Initialised:
    """Fill the Thinker from a Qwen2.5 or Qwen2.5-VL checkpoint directory.

    A source with a tied head gives its embedding to our head. Where the vocabularies differ, the rows both have are copied.
    """
    config, c = _config(directory, "qwen2", "qwen2_5_vl"), thinker.config
    if isinstance(config.get("text_config"), dict):
        config = config | config["text_config"]
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    rope = config.get("rope_parameters") or {}
    _agree(directory, {
        "num_attention_heads": (heads, c.num_heads),
        "num_key_value_heads": (config.get("num_key_value_heads"), c.num_kv_heads),
        "head_dim": (config.get("head_dim") or (width // heads if width and heads else None), c.head_dim),
        "num_hidden_layers": (config.get("num_hidden_layers"), c.num_layers),
        "rope_theta": (rope.get("rope_theta", config.get("rope_theta", 10_000.0)), c.rope_theta),
        "rms_norm_eps": (config.get("rms_norm_eps", 1e-6), c.norm_eps),
    })  # fmt: skip
    files = TensorFiles(Path(directory), lambda name: "visual." not in name)
    source = {}
    for name in files:
        inner = re.sub(r"^(model\.language_model\.|language_model\.model\.)", "model.", name)
        source["thinker", re.sub(r"^language_model\.lm_head", "lm_head", inner)] = name
    found = _by_our_name("thinker", source)
    if "lm_head.weight" not in found and "embed.weight" in found:
        found["lm_head.weight"] = found["embed.weight"]  # a tied head
    return _copy(thinker, found, files, directory, rows=("embed.weight", "lm_head.weight"))


def init_vision(vision: VisionEncoder, directory: str | Path) -> Initialised:
    """Fill the vision tower from a Qwen2.5-VL checkpoint directory; its fused q, k, v become three.

    The merger's last layer is copied only where the language models are equally wide.
    """
    config, c = _config(directory, "qwen2_5_vl"), vision.config
    v = config.get("vision_config")
    if not isinstance(v, dict):
        raise WeightsError(
            f"{directory}: its config.json has no vision_config; expected Qwen2.5-VL"
        )
    _agree(directory, {
        "depth": (v.get("depth", 32), c.depth), "num_heads": (v.get("num_heads", 16), c.num_heads),
        "window_size": (v.get("window_size", 112), c.window), "patch_size": (v.get("patch_size", 14), c.patch),
        "spatial_merge_size": (v.get("spatial_merge_size", 2), c.merge),
        "temporal_patch_size": (v.get("temporal_patch_size", 2), c.temporal_patch),
        "fullatt_block_indexes": (tuple(v.get("fullatt_block_indexes", (7, 15, 23, 31))), c.full_attention_layers),
    })  # fmt: skip
    files = TensorFiles(Path(directory), lambda name: "visual." in name)
    source: dict[tuple[str, str], str] = {}
    for name in files:
        inner = name.rpartition("visual.")[2]
        if fused := re.fullmatch(r"(blocks\.\d+\.attn\.)qkv(\.\w+)", inner):
            for letter in "qkv":
                source[letter, fused[1] + letter + fused[2]] = name
        else:
            source["vision", inner] = name
    optional = ("merger.down.weight", "merger.down.bias")
    return _copy(vision, _by_our_name("vision", source), files, directory, optional=optional)


def init_audio(audio: AudioEncoder, directory: str | Path) -> Initialised:
    """Fill the audio encoder from a Whisper checkpoint directory (large-v3 at the official sizes).

    Whisper's position table must be the sinusoids that the encoder computes. The projection to the Thinker stays as it is.
    """
    config, c = _config(directory, "whisper"), audio.config
    _agree(directory, {
        "encoder_layers": (config.get("encoder_layers"), c.num_layers),
        "encoder_attention_heads": (config.get("encoder_attention_heads"), c.num_heads),
        "activation_function": (config.get("activation_function", "gelu"), "gelu"),
        "num_mel_bins": (config.get("num_mel_bins", 80), c.num_mels),
    })  # fmt: skip
    files = TensorFiles(Path(directory), lambda name: "encoder." in name and "decoder." not in name)
    source = {}
    for name in files:
        inner = name.rpartition("encoder.")[2]
        if inner == "embed_positions.weight":
            _check_positions(files.read(name).float(), directory)
        else:
            source["audio", re.sub(r"^layer_norm\.", "ln_post.", inner)] = name
    return _copy(
        audio,
        _by_our_name("audio", source),
        files,
        directory,
        optional=("proj.weight", "proj.bias", "bos_eos.weight"),
    )


def _check_positions(table: Tensor, directory: str | Path) -> None:
    length, width = table.shape
    frequencies = 10_000.0 ** -(torch.arange(width // 2) / (width // 2 - 1))
    angles = torch.arange(length)[:, None] * frequencies
    error = (table - torch.cat([angles.sin(), angles.cos()], 1)).abs().max().item()
    if error > _POSITION_TOLERANCE:
        raise WeightsError(
            f"{directory}: its positions differ from sinusoids by {error:.3g}, expected Whisper's fixed ones; "
            "a model with trained positions cannot be taken over"
        )


def _config(directory: str | Path, *model_types: str) -> dict[str, Any]:
    config = read_json(Path(directory) / "config.json")
    if config.get("model_type") not in model_types:
        raise WeightsError(
            f"{directory}: model_type is {config.get('model_type')!r:.40}, expected {' or '.join(model_types)}; "
            "choose another checkpoint"
        )
    return config


def _agree(directory: str | Path, settings: dict[str, tuple[Any, Any]]) -> None:
    wrong = [
        f"{name} {theirs} against {ours}"
        for name, (theirs, ours) in settings.items()
        if theirs != ours
    ]
    if wrong:
        raise ConfigError(
            f"{directory}: its settings differ from the stage's: {', '.join(wrong)}; change the recipe's configuration"
        )


def _by_our_name(stage: str, source: dict[tuple[str, str], str]) -> dict[str, tuple[str, str]]:
    """{our name: (which third of q, k, v or the stage, name in the file)}."""
    found = {}
    for (slice_, inner), name in source.items():
        place = our_name(PART_PREFIXES[stage] + inner)
        if place is None:
            raise WeightsError(
                f"{name}: is no tensor of this kind of model; choose another checkpoint"
            )
        found[place[1]] = (slice_, name)
    return found


@torch.no_grad()
def _copy(
    module: torch.nn.Module, found: dict[str, tuple[str, str]], files: TensorFiles, directory: str | Path, *,
    optional: Iterable[str] = (), rows: Iterable[str] = (),
) -> Initialised:  # fmt: skip
    """Copy all that fits; one error that lists what should fit and does not. Nothing is copied before all is checked."""
    copied, partial, untouched, faults, work = [], [], [], [], []
    state = module.state_dict()
    for key, tensor in state.items():
        if key not in found:
            (untouched if key in optional else faults).append(key)
            continue
        third, name = found[key]
        shape = files[name].shape
        if third in ("q", "k", "v"):
            shape = (shape[0] // 3, *shape[1:]) if shape[0] % 3 == 0 else shape
        size = torch.Size(shape).numel()
        if size == tensor.numel() and shape[:1] == tuple(tensor.shape[:1]):
            work.append((key, third, name, len(tensor)))
            copied.append(key)
        elif key in rows and shape[1:] == tuple(tensor.shape[1:]):
            work.append((key, third, name, min(len(tensor), shape[0])))
            partial.append(key)
        elif key in optional:
            untouched.append(key)
        else:
            faults.append(f"{key} {list(shape)} expected {list(tensor.shape)}")
    faults += [
        f"{key} (unexpected)" for key in found if key not in state and key != "lm_head.weight"
    ]
    if faults:
        more = f" and {len(faults) - 12} more" if len(faults) > 12 else ""
        raise WeightsError(
            f"{directory}: {len(faults)} tensors do not fit: {', '.join(faults[:12])}{more}; choose another checkpoint"
        )
    for key, third, name, count in work:
        value = files.read(name)
        if third in ("q", "k", "v"):
            value = value.chunk(3)["qkv".index(third)]
        target = state[key][:count]
        target.copy_(value[:count].reshape(target.shape))
    return Initialised(tuple(copied), tuple(partial), tuple(untouched))
