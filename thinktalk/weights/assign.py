"""Files' tensors into modules: whose tensor is it, does all fit, and one copy at most.

TensorFiles -> {stage: {key of the module: name in the file}} -> check (one error) -> fill (one tensor at a time)
"""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections import Counter
from collections.abc import Callable, Container
from pathlib import Path

import torch
from torch import Tensor, nn

from thinktalk.errors import WeightsError
from thinktalk.layers.quant import Int8Linear, dequantize
from thinktalk.weights.config_read import THINKER_ONLY
from thinktalk.weights.files import TensorFiles, read_json
from thinktalk.weights.model import PARTS, OmniModel
from thinktalk.weights.names import IGNORED, official_name, our_name

__all__ = ["SCALE", "Assignment", "canonical_name", "locate", "naming_of", "own_tensors"]

SCALE = ".scale"
"""`name` int8 + `name.scale` float32: an int8 matrix with one scale an output channel."""


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


def naming_of(directory: Path) -> Callable[[str], str]:
    """How this checkpoint's names become official ones: a Thinker saved alone lacks the prefix."""
    alone = read_json(directory / "config.json").get("model_type") == THINKER_ONLY
    return (lambda name: canonical_name("thinker." + name)) if alone else canonical_name


def locate(name: str) -> tuple[str, str] | None:
    """(stage, our name) of an official name, int8 scales included; ("", "") of what is to be ignored; None if unknown."""
    scale = name.endswith(".weight" + SCALE)
    place = our_name(name.removesuffix(SCALE) if scale else name)
    if place is not None:
        return (place[0], place[1] + SCALE) if scale else place
    if name.startswith("wav2code.") or any(re.fullmatch(rule, name) for rule in IGNORED):
        return ("", "")
    return None


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and persistent buffers of a module itself, without its children; a packed int8 weight by its form."""
    own = {key: p for key, p in module._parameters.items() if p is not None}
    for key, buffer in module._buffers.items():
        if buffer is not None and key not in module._non_persistent_buffers_set:
            own[key] = buffer
    if isinstance(module, Int8Linear) and "weight" not in own:
        own["weight"] = torch.empty(
            module.out_features, module.in_features, dtype=torch.int8, device="meta"
        )
    return own


class Assignment:
    """Which tensor of the files goes where in the model.

    Linear layers that are int8 in the files are Int8Linear in the model, but in the stages of `expand`: there they are
    floats again.
    """

    def __init__(
        self,
        directory: Path,
        model: OmniModel,
        files: TensorFiles,
        naming: Callable[[str], str],
        expand: Container[str] = (),
    ):
        self.directory, self.model, self.files = directory, model, files
        self.strangers: list[str] = []
        self.names: dict[str, dict[str, str]] = {stage: {} for stage in model.stages()}
        for name in files:
            place = locate(naming(name))
            if place is None:
                self.strangers.append(name)
            elif place[0] in self.names:
                self.names[place[0]][place[1]] = name
        if model.thinker is not None and model.config.thinker.text.tie_embeddings:
            self.names["thinker"].pop(
                "lm_head.weight", None
            )  # some tools write the tied head all the same
        for stage, module in model.stages().items():
            if stage in expand:
                continue
            for ours in [ours for ours in self.names[stage] if ours.endswith(".weight" + SCALE)]:
                self._expect_int8(stage, module, ours)

    @classmethod
    def open(cls, directory: Path, model: OmniModel, *, expand: Container[str] = ()) -> Assignment:
        """The files of a directory that hold the model's stages."""
        naming, stages = naming_of(directory), model.stages()

        def wanted(name: str) -> bool:
            place = locate(naming(name))
            return place is None or place[0] in stages

        return cls(directory, model, TensorFiles(directory, wanted), naming, expand)

    def _expect_int8(self, stage: str, module: nn.Module, ours: str) -> None:
        """Put an Int8Linear where the file holds an int8 matrix of a linear layer."""
        path = ours.removesuffix(".weight" + SCALE)
        owner, _, leaf = path.rpartition(".")
        linear = dict(module.named_modules()).get(path)
        if isinstance(linear, nn.Linear):
            made = Int8Linear(
                linear.in_features, linear.out_features, linear.bias is not None, device="meta"
            )
            setattr(module.get_submodule(owner), leaf, made.eval())
            self.names[stage][path + SCALE] = self.names[stage].pop(ours)

    def check(self) -> None:
        """WeightsError that lists everything missing, unexpected, mis-shaped or of the wrong kind."""
        faults: dict[str, list[str]] = {
            "missing": [],
            "unexpected": list(self.strangers),
            "mis-shaped": [],
            "mis-typed": [],
        }
        for stage, module in self.model.stages().items():
            names, state = self.names[stage], module.state_dict()
            for key, tensor in state.items():
                if key not in names:
                    base = key.removesuffix(SCALE)
                    faults["missing"].append(
                        official_name(stage, base + ".weight") + SCALE
                        if base != key
                        else official_name(stage, key)
                    )
                    continue
                entry = self.files[names[key]]
                integer = tensor.dtype == torch.int8 or key + SCALE in names
                if entry.shape != tuple(tensor.shape) and not _same_memory(
                    key, entry.shape, tensor
                ):
                    faults["mis-shaped"].append(
                        f"{names[key]} {list(entry.shape)} expected {list(tensor.shape)}"
                    )
                elif (entry.dtype == torch.int8) != integer or not (
                    integer or entry.dtype.is_floating_point
                ):
                    faults["mis-typed"].append(f"{names[key]} {entry.dtype}")
            for key, name in names.items():
                if key not in state and key.removesuffix(SCALE) not in state:
                    faults["unexpected"].append(name)
        told = "; ".join(
            f"{len(items)} {what}: {_some(items)}" for what, items in faults.items() if items
        )
        if told:
            raise WeightsError(
                f"{self.directory}: {told}; expected the tensors that its config.json describes; copy the checkpoint again"
            )

    def stored_dtype(self, part: str) -> torch.dtype:
        """The float dtype in which most of a part is stored."""
        sizes: Counter[torch.dtype] = Counter()
        for stage in PARTS[part]:
            for key, name in self.names[stage].items():
                if self.files[name].dtype.is_floating_point and not key.endswith(SCALE):
                    sizes[self.files[name].dtype] += self.files[name].nbytes
        return sizes.most_common(1)[0][0] if sizes else torch.float32

    def fill(
        self, stage: str, device: torch.device, dtype: torch.dtype, *, int8: bool = False
    ) -> None:
        """Give every tensor of a stage its memory, one tensor at a time; `int8` quantises its linear layers as they come."""
        module = self.model.stages()[stage]
        # 2 % of a stage may lie about as freed memory before it goes back to the system
        slack, freed = sum(self.files[name].nbytes for name in self.names[stage].values()) // 50, 0
        for path, child in list(module.named_modules()):
            linear = int8 and isinstance(child, nn.Linear)
            packs = linear or isinstance(child, Int8Linear)
            tensors = {
                # a matrix about to be quantised is read where it can be freed, not seen through the file
                key: self._tensor(
                    stage, f"{path}.{key}".lstrip("."), old.dtype if _is_int8(child, key) else dtype, device, fresh=packs
                ).reshape(old.shape)
                for key, old in own_tensors(child).items()
            }  # fmt: skip
            freed += sum(tensor.nbytes for tensor in tensors.values()) if packs else 0
            if tensors:
                child.load_state_dict(tensors, strict=False, assign=True)
            del tensors
            if linear:
                owner, _, leaf = path.rpartition(".")
                made = Int8Linear.from_linear(child, release=True)
                setattr(module.get_submodule(owner), leaf, made)
            if freed > slack:
                _give_back()
                freed = 0
        left = [
            name
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]
            if tensor.is_meta
        ]
        assert not left, (
            f"no memory was given to {_some(left)}: constants must not live in modules built on meta"
        )

    def _tensor(
        self, stage: str, key: str, dtype: torch.dtype, device: torch.device, *, fresh: bool
    ) -> Tensor:
        name, names = self.names[stage][key], self.names[stage]
        entry = self.files[name]
        if key + SCALE in names:  # an int8 matrix that is to be floats
            scale = self.files.read(names[key + SCALE])
            return (
                dequantize(self.files.read(name).flatten(1), scale, dtype)
                .reshape(entry.shape)
                .to(device)
            )
        if entry.dtype == dtype and device.type == "cpu" and not fresh and dtype != torch.int8:
            return self.files.view(name)
        return self.files.read(name, torch.empty(entry.shape, dtype=dtype, device=device))


def _give_back() -> None:
    """Hand freed memory to the system: glibc keeps the holes between the tensors that stay."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _is_int8(module: nn.Module, key: str) -> bool:
    return isinstance(module, Int8Linear) and key in ("weight", "scale")


def _same_memory(key: str, shape: tuple[int, ...], tensor: Tensor) -> bool:
    """The patch embedding is a convolution in the file, (D, 3, 2, 14, 14), and a linear layer here, (D, 1176)."""
    return (
        key == "patch_embed.weight"
        and shape[:1] == tensor.shape[:1]
        and torch.Size(shape).numel() == tensor.numel()
    )


def _some(items: list[str], limit: int = 24) -> str:
    items = sorted(items)
    return ", ".join(items[:limit]) + (
        f" and {len(items) - limit} more" if len(items) > limit else ""
    )
