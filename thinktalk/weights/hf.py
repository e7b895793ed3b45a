"""The official checkpoint layout to modules and back: the one door for weights.

    directory --read_config--> OmniConfig --build--> modules without memory --load--> modules with the files' tensors
    OmniModel --save--> config.json, sharded safetensors, spk_dict.pt, tokenizer files

A part ("thinker", "talker", "code2wav") is what one asks for; a stage (audio, vision, thinker, talker, dit, vocoder) is a
module. A tensor whose dtype and device match is a view of its file: loading copies nothing, pages come in when used.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thinktalk.code2wav.bigvgan import BigVGAN
from thinktalk.code2wav.dit import DiT
from thinktalk.code2wav.speaker import Voice
from thinktalk.config import OmniConfig
from thinktalk.encoders.audio import AudioEncoder
from thinktalk.encoders.vision import VisionEncoder
from thinktalk.errors import ConfigError, WeightsError
from thinktalk.layers.quant import Int8Linear
from thinktalk.talker.model import Talker
from thinktalk.thinker.model import Thinker
from thinktalk.weights.config_read import THINKER_ONLY, read_config, read_raw
from thinktalk.weights.config_write import write_config
from thinktalk.weights.files import TensorFiles, read_json
from thinktalk.weights.names import IGNORED, official_name, our_name
from thinktalk.weights.store import Planned, atomic_directory, write_tensors
from thinktalk.weights.voices import load_voices, save_voices

__all__ = ["ASSETS", "PARTS", "OmniModel", "build", "canonical_name", "load", "parse_dtype", "read_config", "save", "write_config"]  # fmt: skip

PARTS = {
    "thinker": ("audio", "vision", "thinker"),
    "talker": ("talker",),
    "code2wav": ("dit", "vocoder"),
}
"""What a user asks for -> the stages it holds."""

ASSETS = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json",
    "chat_template.json", "chat_template.jinja", "voices.safetensors", "LICENSE", "README.md",
)  # fmt: skip
"""Files beside the weights that a new checkpoint takes over unchanged."""

DTYPES = {
    "float32": torch.float32, "fp32": torch.float32, "bfloat16": torch.bfloat16, "bf16": torch.bfloat16,
    "float16": torch.float16, "fp16": torch.float16, "float64": torch.float64,
}  # fmt: skip

_SCALE = (
    ".scale"  # `name` int8 + `name.scale` float32: an int8 matrix with one scale an output channel
)
_BUILDERS = {
    "audio": lambda c: AudioEncoder(c.thinker.audio),
    "vision": lambda c: VisionEncoder(c.thinker.vision),
    "thinker": lambda c: Thinker(c.thinker.text),
    "talker": lambda c: Talker(c.talker),
    "dit": lambda c: DiT(c.code2wav.dit),
    "vocoder": lambda c: BigVGAN(c.code2wav.vocoder),
}


class OmniModel(nn.Module):
    """The stages of one checkpoint; a stage that was not loaded is None."""

    audio: AudioEncoder | None
    vision: VisionEncoder | None
    thinker: Thinker | None
    talker: Talker | None
    dit: DiT | None
    vocoder: BigVGAN | None

    def __init__(self, config: OmniConfig, parts: Iterable[str] | None = None):
        super().__init__()
        self.config = config
        self.parts = resolve_parts(config, parts)
        self.voices: dict[str, Voice] = {}
        stages = {stage for part in self.parts for stage in PARTS[part]}
        for stage, builder in _BUILDERS.items():
            self.add_module(stage, builder(config) if stage in stages else None)

    def stages(self) -> dict[str, nn.Module]:
        """The stages that are there, by name."""
        return {name: module for name, module in self.named_children() if module is not None}


def resolve_parts(config: OmniConfig, parts: Iterable[str] | None) -> tuple[str, ...]:
    """The parts to load, in order; None means all that the configuration has."""
    have = {
        "thinker": True,
        "talker": config.talker is not None,
        "code2wav": config.code2wav is not None,
    }
    if parts is None:
        return tuple(part for part in PARTS if have[part])
    asked = {parts} if isinstance(parts, str) else set(parts)
    for part in asked:
        if part not in PARTS:
            raise ConfigError(f"part {part!r} is unknown; have {', '.join(PARTS)}")
        if not have[part]:
            raise WeightsError(
                f"this checkpoint has no {part}; its configuration has {', '.join(p for p in have if have[p])}"
            )
    return tuple(part for part in PARTS if part in asked)


def build(
    config: OmniConfig, parts: Iterable[str] | None = None, *, device: str | torch.device = "meta"
) -> OmniModel:
    """The modules of some parts; on "meta" they take no memory until weights are assigned."""
    with torch.device(device):
        return OmniModel(config, parts).eval()


# --------------------------------------------------------------------------------------------------------------- load


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
            part; None keeps what is stored. code2wav stays float32 unless it is named in a mapping.
    voices: a voices.safetensors of the user's, read over the checkpoint's own voices.
    WeightsError lists every missing, unexpected and mis-shaped tensor at once.
    """
    directory = Path(directory)
    config = read_config(directory)
    model = build(config, parts)
    wanted = {stage: part for part in model.parts for stage in PARTS[part]}
    naming = thinker_naming(directory)
    files = TensorFiles(directory, lambda name: _is_wanted(naming(name), wanted))
    found: dict[str, dict[str, str]] = {
        stage: {} for stage in wanted
    }  # stage -> our name -> name in the file
    strangers = []
    for name in files:
        place = locate(naming(name))
        if place is None:
            strangers.append(name)
        elif place[0] in found:
            found[place[0]][place[1]] = name
    _drop_tied(model, found)
    for stage, module in model.stages().items():
        _swap_int8(module, {ours for ours in found[stage] if ours.endswith("weight" + _SCALE)})
        found[stage] = {_module_key(module, ours): name for ours, name in found[stage].items()}
    _compare(directory, model, found, files, strangers)
    for stage, module in model.stages().items():
        part = wanted[stage]
        place = torch.device(_of_part(device, part, "cpu"))
        names = [found[s][key] for s in PARTS[part] if s in found for key in found[s]]
        precision, int8 = _precision(dtype, part, names, files)
        _fill(module, found[stage], files, place, precision, int8)
    _check_whole(model)
    model.requires_grad_(False)
    if "talker" in model.parts or "code2wav" in model.parts:
        model.voices = load_voices(directory, config, extra=voices)
    return model


def canonical_name(name: str) -> str:
    """The official name of a tensor that a newer transformers or a fine-tuning tool saved under its in-memory name.

    >>> canonical_name("thinker.model.language_model.layers.0.mlp.up_proj.weight")
    'thinker.model.layers.0.mlp.up_proj.weight'
    """
    for inner, official in (
        ("thinker.model.audio_tower.", "thinker.audio_tower."),
        ("thinker.model.visual.", "thinker.visual."),
        ("thinker.model.language_model.", "thinker.model."),
    ):
        if name.startswith(inner):
            return official + name[len(inner) :]
    return name


def thinker_naming(directory: Path):
    """How this checkpoint's names become official ones: a Thinker saved alone lacks the prefix."""
    alone = read_json(directory / "config.json").get("model_type") == THINKER_ONLY
    return (lambda name: canonical_name("thinker." + name)) if alone else canonical_name


def locate(name: str) -> tuple[str, str] | None:
    """(stage, our name) of an official name, int8 scales included; ("", "") of what is to be ignored; None if unknown."""
    scale = name.endswith(".weight" + _SCALE)
    place = our_name(name.removesuffix(_SCALE) if scale else name)
    if place is not None:
        return (place[0], place[1] + _SCALE) if scale else place
    if name.startswith("wav2code.") or any(rule.fullmatch(name) for rule in IGNORED):
        return ("", "")
    return None


def _is_wanted(name: str, stages: Iterable[str]) -> bool:
    place = locate(name)
    return place is None or place[0] in stages


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


def _precision(
    dtype: Any, part: str, names: list[str], files: TensorFiles
) -> tuple[torch.dtype, bool]:
    """(dtype of the float tensors, whether linear layers become int8) of a part."""
    asked = _of_part(dtype, part, None)
    if part == "code2wav" and not (isinstance(dtype, Mapping) and part in dtype):
        return torch.float32, False  # half precision is heard: the flow adds 36 rounding errors
    if asked is not None and asked != "int8":
        return parse_dtype(asked), False
    sizes: Counter[torch.dtype] = Counter()
    for name in names:
        if files[name].dtype.is_floating_point and not name.endswith(_SCALE):
            sizes[files[name].dtype] += files[name].nbytes
    stored = sizes.most_common(1)[0][0] if sizes else torch.float32
    return torch.float32 if part == "code2wav" else stored, asked == "int8"


def _drop_tied(model: OmniModel, found: dict[str, dict[str, str]]) -> None:
    """A head that is the embedding is no tensor of its own, though some tools write it."""
    if model.thinker is not None and model.config.thinker.text.tie_embeddings:
        found["thinker"].pop("lm_head.weight", None)


def _swap_int8(module: nn.Module, scales: set[str]) -> None:
    """Put Int8Linears where the file holds int8 matrices of linear layers."""
    for ours in scales:
        path = ours.removesuffix(".weight" + _SCALE)
        owner, _, leaf = path.rpartition(".")
        try:
            linear = module.get_submodule(path)
        except AttributeError:
            continue
        if type(linear) is nn.Linear:
            made = Int8Linear(
                linear.in_features, linear.out_features, linear.bias is not None, device="meta"
            )
            setattr(module.get_submodule(owner), leaf, made.eval())


def _module_key(module: nn.Module, ours: str) -> str:
    """Where a tensor goes in the module: the scale of an Int8Linear is its `scale`; other scales stay by name."""
    if ours.endswith(".weight" + _SCALE):
        path = ours.removesuffix(".weight" + _SCALE)
        try:
            if isinstance(module.get_submodule(path), Int8Linear):
                return path + _SCALE
        except AttributeError:
            pass
    return ours


def _compare(
    directory: Path, model: OmniModel, found: dict[str, dict[str, str]], files: TensorFiles, strangers: list[str]
) -> None:  # fmt: skip
    """One error that lists all that does not fit."""
    missing, shapes = [], []
    for stage, module in model.stages().items():
        state = module.state_dict()
        for key, tensor in state.items():
            name = found[stage].get(key)
            if name is None or name not in files:
                missing.append(
                    official_name(stage, key) if not key.endswith(_SCALE) else f"{stage}.{key}"
                )
            elif files[name].shape != tuple(tensor.shape) and not _same_memory(
                key, files[name].shape, tensor
            ):
                shapes.append(f"{name} {list(files[name].shape)} expected {list(tensor.shape)}")
        for key, name in found[stage].items():
            if key not in state and key.removesuffix(_SCALE) not in state:
                strangers.append(name)
    faults = [
        f"{len(items)} {what}: {_some(items)}"
        for what, items in (("missing", missing), ("unexpected", strangers), ("mis-shaped", shapes))
        if items
    ]
    if faults:
        raise WeightsError(
            f"{directory}: {'; '.join(faults)}; expected the tensors that its config.json describes; copy the checkpoint again"
        )


def _some(items: list[str], limit: int = 24) -> str:
    items = sorted(items)
    return ", ".join(items[:limit]) + (
        f" and {len(items) - limit} more" if len(items) > limit else ""
    )


def _same_memory(key: str, shape: tuple[int, ...], tensor: Tensor) -> bool:
    """The patch embedding is a convolution in the file, (D, 3, 2, 14, 14), and a linear layer here, (D, 1176)."""
    return (
        key == "patch_embed.weight"
        and shape[:1] == tensor.shape[:1]
        and tensor.numel() == torch.Size(shape).numel()
    )


def _fill(
    module: nn.Module,
    found: dict[str, str],
    files: TensorFiles,
    device: torch.device,
    dtype: torch.dtype,
    int8: bool,
) -> None:
    """Give every tensor of a stage its memory: one tensor at a time, so nothing is held twice."""
    for path, child in list(module.named_modules()):
        own = {key: f"{path}.{key}".lstrip(".") for key in child.state_dict() if "." not in key}
        tensors = {
            key: _tensor(found, full, files, device, dtype, child) for key, full in own.items()
        }
        if tensors:
            child.load_state_dict(
                {key: t.reshape(child.state_dict()[key].shape) for key, t in tensors.items()},
                strict=False,
                assign=True,
            )
        if int8 and type(child) is nn.Linear:
            owner, _, leaf = path.rpartition(".")
            setattr(module.get_submodule(owner), leaf, Int8Linear.from_linear(child))


def _tensor(
    found: dict[str, str],
    key: str,
    files: TensorFiles,
    device: torch.device,
    dtype: torch.dtype,
    owner: nn.Module,
) -> Tensor:
    name = found[key]
    stored = files[name].dtype
    if isinstance(owner, Int8Linear) and not key.endswith("bias"):
        target = torch.float32 if key.endswith("scale") else torch.int8
    elif key + _SCALE in found:  # an int8 matrix of a layer that is not linear
        wide = files.read(name).float().reshape(files[name].shape[0], -1)
        return (
            (wide * files.read(found[key + _SCALE])[:, None])
            .to(device, dtype)
            .reshape(files[name].shape)
        )
    else:
        target = dtype
    if stored == target and device.type == "cpu" and not isinstance(owner, Int8Linear):
        return files.view(name)
    out = torch.empty(files[name].shape, dtype=target, device=device)
    return files.read(name, out)


def _check_whole(model: OmniModel) -> None:
    left = [
        name
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        if tensor.is_meta
    ]
    assert not left, (
        f"no memory was given to {_some(left)}: constants must not live in modules built on meta"
    )


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
    """The tensors of one stage under their official names and shapes."""
    out = []
    state = module.state_dict()
    for key, tensor in state.items():
        scale = key.endswith(_SCALE) and key.removesuffix(_SCALE) + ".weight" in state
        name = (
            official_name(stage, key.removesuffix(_SCALE) + ".weight") + _SCALE
            if scale
            else official_name(stage, key)
        )
        shape = tuple(tensor.shape)
        if key == "patch_embed.weight":
            v = config.thinker.vision
            shape = (v.width, v.in_channels, v.temporal_patch, v.patch, v.patch)
        kind = tensor.dtype if scale or dtype is None or not tensor.is_floating_point() else dtype
        out.append(
            Planned(name, kind, shape, lambda tensor=tensor, shape=shape: tensor.reshape(shape))
        )
    return out
