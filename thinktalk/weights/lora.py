"""LoRA adapters (PEFT files, as ms-swift and LLaMA-Factory write them) merged into official weights.

    W' = W + s B A,   s = alpha / r, or alpha / sqrt(r) with rslora            (Hu et al. 2021, Kalajdzievski 2023)

    adapter_config.json + adapter_model.safetensors -> LoraAdapter -> merge(official name, W) -> W'

ms-swift trains the whole model (base_model.model.thinker.model.layers.0...), LLaMA-Factory its Thinker alone
(base_model.model.model.layers.0...), and transformers 5 nests the language model once more: all become official names.
What cannot be merged exactly is refused: DoRA, adapters that changed the base at their start, tokens trained one by one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from thinktalk.errors import WeightsError
from thinktalk.weights.assign import canonical_name, locate
from thinktalk.weights.files import TensorFiles, read_header, read_json

__all__ = ["LoraAdapter"]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_PREFIX = "base_model.model."
_REFUSED = {  # key of adapter_config.json -> what it is
    "use_dora": "DoRA", "alora_invocation_tokens": "an activated LoRA", "use_qalora": "QALoRA", "use_bdlora": "BD-LoRA",
    "layer_replication": "layer replication", "trainable_token_indices": "single trained tokens",
    "target_parameters": "adapted parameters without a layer", "arrow_config": "Arrow routing",
    "kasa_config": "KaSA", "monteclora_config": "MonteCLoRA", "megatron_config": "a Megatron layer",
}  # fmt: skip
_CHANGES_BASE = (
    "pissa",
    "olora",
    "corda",
    "loftq",
    "lora_ga",
)  # these start by subtracting from the base weights

_KINDS = (  # ending of a tensor's name -> its role; the first that fits counts
    (".lora_A.weight", "a"), (".lora_B.weight", "b"), (".lora_B.bias", "b_bias"),
    (".lora_embedding_A", "embedding_a"), (".lora_embedding_B", "embedding_b"),
)  # fmt: skip


@dataclass
class _Change:
    """What an adapter does to one official tensor: names in its file by role."""

    module: str  # the module's name as the training tool saw it; rank and alpha patterns match it
    parts: dict[str, str] = field(default_factory=dict)


class LoraAdapter:
    """One adapter, opened and checked. `changes` holds the official names of the tensors it touches."""

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        if not self.directory.is_dir():
            raise WeightsError(
                f"{directory}: no such directory; expected a PEFT LoRA adapter; check the path"
            )
        self.config = read_json(self.directory / CONFIG)
        self._check_config()
        if (
            not (self.directory / WEIGHTS).exists()
            and (self.directory / "adapter_model.bin").exists()
        ):
            raise WeightsError(
                f"{self.directory}: holds a pickle, adapter_model.bin, expected {WEIGHTS}; save it with safe_serialization"
            )
        self.files = TensorFiles.of(read_header(self.directory / WEIGHTS))
        self.changes: dict[str, _Change] = {}
        unknown = [name for name in self.files if not self._place(name)]
        unknown += [name for name, change in self.changes.items() if not _is_complete(change.parts)]
        if unknown:
            told = ", ".join(sorted(unknown)[:8]) + (
                f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
            )
            raise WeightsError(
                f"{self.directory / WEIGHTS}: {len(unknown)} tensors fit no layer of this model: {told}; "
                "expected a LoRA adapter of Qwen2.5-Omni; check which model it was trained on"
            )

    def _check_config(self) -> None:
        where, c = self.directory / CONFIG, self.config
        if c.get("peft_type") != "LORA":
            raise WeightsError(
                f"{where}: peft_type is {c.get('peft_type')!r:.40}, expected 'LORA'; other adapters are not merged"
            )
        for key, what in _REFUSED.items():
            if c.get(key):
                raise WeightsError(
                    f"{where}: {key} is set: {what} cannot be merged here; merge it with the tool that trained it"
                )
        start = c.get("init_lora_weights")
        if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
            raise WeightsError(
                f"{where}: init_lora_weights is {start!r:.40}, which changed the base weights; convert it to a plain LoRA "
                "first (PEFT: path_initial_model_for_weight_conversion)"
            )
        for key in ("rank_pattern", "alpha_pattern"):
            if not isinstance(c.get(key) or {}, dict):
                raise WeightsError(f"{where}: {key} is not an object; copy it again")

    def _place(self, name: str) -> bool:
        """Note the role of one tensor of the file; False when it belongs to nothing."""
        inner = name.removeprefix(_PREFIX)
        for ending, role in _KINDS:
            if inner.endswith(ending):
                module, tensor = (
                    inner.removesuffix(ending),
                    "bias" if role == "b_bias" else "weight",
                )
                break
        else:  # a layer trained whole (modules_to_save), a trained bias, an embedding saved along
            inner = re.sub(
                r"\.(modules_to_save(\.default)?|base_layer|original_module)\.", ".", inner
            )
            module, _, tensor = inner.rpartition(".")
            role = "whole"
        official = self.official(module, tensor)
        if official is None or (official in self.changes and role in self.changes[official].parts):
            return False
        self.changes.setdefault(official, _Change(module)).parts[role] = name
        return True

    @staticmethod
    def official(module: str, tensor: str) -> str | None:
        """The official name of a module's tensor, trained within the whole model or within the Thinker alone."""
        for start in ("", "thinker."):
            name = canonical_name(f"{start}{module}.{tensor}")
            place = locate(name)
            if place is not None and place[0]:
                return name
        return None

    def scaling(self, module: str, rank: int) -> float:
        """s of a module whose A has `rank` rows."""
        alpha: Any = self.config.get("lora_alpha", 8)
        for pattern, value in (self.config.get("alpha_pattern") or {}).items():
            try:
                found = re.fullmatch(rf"(.*\.)?({pattern})", module)
            except re.error:
                found = None
            if found:
                alpha = value
                break
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)):
            raise WeightsError(
                f"{self.directory / CONFIG}: lora_alpha is {alpha!r:.40}, expected a number"
            )
        return alpha / (rank**0.5 if self.config.get("use_rslora") else rank)

    def merge(self, name: str, weight: Tensor) -> Tensor:
        """The tensor `name` with the adapter in it: float32 sums, then the dtype that came; untouched ones as they are.

        fan_in_fan_out has no effect: PEFT itself ignores it for linear layers, and this model has no others.
        """
        change = self.changes.get(name)
        if change is None:
            return weight
        read = {role: self.files.read(part).float() for role, part in change.parts.items()}
        if "whole" in read:
            merged = read["whole"]
            self._fits(name, merged, weight)
            merged = merged.reshape(weight.shape)
        else:
            merged = weight.float()
        if "a" in read or "embedding_a" in read:
            a, b = (
                (read["a"], read["b"])
                if "a" in read
                else (read["embedding_a"], read["embedding_b"])
            )
            if a.ndim != 2 or b.ndim != 2 or not len(a) or len(a) != b.shape[1]:
                raise WeightsError(
                    f"{self.directory / WEIGHTS}: A {list(a.shape)} and B {list(b.shape)} of {name} do not multiply; "
                    "convolutions are not merged; check the adapter"
                )
            delta = b @ a if "a" in read else (b @ a).T
            self._fits(name, delta, weight)
            merged = merged + self.scaling(change.module, len(a)) * delta.reshape(weight.shape)
        if "b_bias" in read:
            rank = self._rank_beside(name)
            self._fits(name, read["b_bias"], weight)
            merged = merged + self.scaling(change.module, rank) * read["b_bias"]
        if not merged.isfinite().all():
            raise WeightsError(
                f"{self.directory / WEIGHTS}: {name} becomes NaN or infinite; check the adapter"
            )
        return merged.to(weight.dtype)

    def _rank_beside(self, bias: str) -> int:
        """The rank of the matrix that a lora_B.bias belongs to."""
        matrix = self.changes.get(bias.removesuffix("bias") + "weight")
        if matrix is None or "a" not in matrix.parts:
            raise WeightsError(
                f"{self.directory / WEIGHTS}: {bias} is adapted without its matrix; check the adapter"
            )
        return self.files[matrix.parts["a"]].shape[0]

    def _fits(self, name: str, delta: Tensor, weight: Tensor) -> None:
        if delta.numel() != weight.numel() or (
            delta.ndim == weight.ndim and delta.shape != weight.shape
        ):
            raise WeightsError(
                f"{self.directory / WEIGHTS}: {name} changes by {list(delta.shape)}, expected {list(weight.shape)}; "
                "the adapter is of a model of another size"
            )


def _is_complete(parts: dict[str, str]) -> bool:
    """A without B is a damaged adapter."""
    return ("a" in parts) == ("b" in parts) and ("embedding_a" in parts) == ("embedding_b" in parts)
