"""LoRA: linear layers (in -> out) that learn a low-rank difference; what was learnt as one matrix again, or as PEFT's files.

y = W x + s B A x,   s = alpha / r, or alpha / sqrt(r) with rslora      (Hu et al. 2021, Kalajdzievski 2023)

add_lora(thinker, config)      its linear layers become LoraLinear, in place: W frozen, A (r, in) drawn, B (out, r) zero
merged(thinker)                the same module with W + s B A: what a checkpoint holds
save_adapter(...)              adapter_config.json and adapter_model.safetensors, as PEFT writes and reads them
"""

from __future__ import annotations

import copy
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinktalk.errors import ConfigError
from thinktalk.layers.direct import direct
from thinktalk.weights.names import official_name
from thinktalk.weights.store import Planned, atomic_write, write_file

__all__ = ["LoraConfig", "LoraLinear", "add_lora", "merged", "save_adapter"]


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The adapters of a run."""

    rank: int = 0
    """Inner width; 0 is no LoRA: the whole model learns."""
    alpha: float = 16.0
    """How strong they are: y changes by alpha / rank."""
    dropout: float = 0.0
    """Share of inputs that an adapter does not see while it learns."""
    targets: str = "q,k,v,o,gate,up,down"
    """Linear layers of the decoder that get one, by the last part of their names."""
    rslora: bool = False
    """alpha / sqrt(rank) instead: the strength does not fall with the rank."""

    def __post_init__(self) -> None:
        if self.rank < 0 or not self.alpha > 0 or not 0 <= self.dropout < 1:
            raise ConfigError(f"lora: rank {self.rank}, alpha {self.alpha}, dropout {self.dropout}; expected rank 0 or more, alpha above 0, dropout 0 <= x < 1")  # fmt: skip

    @property
    def scale(self) -> float:
        """s."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


class LoraLinear(nn.Module):
    """A linear layer (..., in) -> (..., out) whose difference to `base` learns."""

    def __init__(self, base: nn.Linear, config: LoraConfig):
        super().__init__()
        self.base, self.scale, self.dropout = base.requires_grad_(False), config.scale, config.dropout  # fmt: skip
        like = dict(
            device=base.weight.device, dtype=torch.float32
        )  # W may be held in half precision, what learns is not
        self.a = nn.Parameter(torch.empty(config.rank, base.in_features, **like))
        self.b = nn.Parameter(torch.zeros(base.out_features, config.rank, **like))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))  # as PEFT draws it

    def forward(self, x: Tensor) -> Tensor:
        """W x + s B A x; dropout before A only."""
        seen = F.dropout(x, self.dropout, self.training) if self.dropout else x
        change = F.linear(F.linear(seen.to(self.a.dtype), self.a), self.b) * self.scale
        y = direct(self.base, x)
        return y + change.to(y.dtype)

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """One linear layer W + s B A, in the precision of W; sums in float32."""
        linear = _shallow(self.base)
        weight = self.base.weight
        whole = (weight.float() + self.scale * (self.b.float() @ self.a.float())).to(weight.dtype)
        linear.weight = nn.Parameter(whole, requires_grad=False)
        return linear


def add_lora(module: nn.Module, config: LoraConfig) -> list[str]:
    """Put adapters on the targets inside lists called `layers`; gives the names of the layers that have one now.

    A is drawn from torch's generator. Errors: ConfigError for a target that no layer has.
    """
    targets = [name.strip() for name in config.targets.split(",") if name.strip()]
    inside = [n for n, m in module.named_modules() if isinstance(m, nn.Linear) and re.match(r"(.*\.)?layers\.\d+\.", n)]  # fmt: skip
    names = {path.rpartition(".")[2] for path in inside}
    if missing := [t for t in targets if t not in names] or ([] if targets else ["none"]):
        raise ConfigError(f"lora.targets {', '.join(missing)}: no layer is called so; have {', '.join(sorted(names))}")  # fmt: skip
    chosen = [path for path in inside if path.rpartition(".")[2] in targets]
    for path in chosen:
        parent, _, name = path.rpartition(".")
        base = module.get_submodule(path)
        assert isinstance(base, nn.Linear)
        setattr(module.get_submodule(parent), name, LoraLinear(base, config))
    return chosen


def merged(module: nn.Module) -> nn.Module:
    """The module with every adapter in its matrix; all else is shared with `module`, which stays as it is."""
    if isinstance(module, LoraLinear):
        return module.merge()
    whole = _shallow(module)
    for name, child in module.named_children():
        whole._modules[name] = merged(child)
    return whole


def _shallow(module: nn.Module) -> nn.Module:
    """A module of its own that holds the same tensors and children."""
    twin = copy.copy(module)
    twin.__dict__ = {k: v.copy() if isinstance(v, dict) else v for k, v in module.__dict__.items()}
    return twin


def save_adapter(
    directory: str | Path, part: str, module: nn.Module, config: LoraConfig, *, base: str = ""
) -> None:
    """Write the adapters of a part ("thinker") as PEFT files for the official model.

    `base` is what they were trained on. PEFT (over transformers 5) and `thinktalk convert --lora` read them.
    """
    plan, layers = [], set()
    for path, child in module.named_modules():
        if isinstance(child, LoraLinear):
            layer = official_name(part, f"{path}.weight").removesuffix(".weight")
            # where transformers holds it since version 5; in the checkpoint it has kept its name
            layer = layer.replace("thinker.model.", "thinker.model.language_model.", 1)
            layers.add(layer.rpartition(".")[2])
            for letter, tensor in (("A", child.a), ("B", child.b)):
                value = tensor.detach().contiguous()
                name = f"base_model.model.{layer}.lora_{letter}.weight"
                plan.append(Planned(name, value.dtype, tuple(value.shape), lambda value=value: value))  # fmt: skip
    assert plan, f"{part} has no adapters"
    told = {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": base, "bias": "none", "inference_mode": True,
        "r": config.rank, "lora_alpha": config.alpha, "lora_dropout": config.dropout, "use_rslora": config.rslora,
        "init_lora_weights": True, "fan_in_fan_out": False, "modules_to_save": None,
        # with its place: encoders and Talker have layers of the same names
        "target_modules": rf"thinker\.model\.language_model\.layers\.\d+\.\w+\.({'|'.join(sorted(layers))})",
    }  # fmt: skip
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_file(directory / "adapter_model.safetensors", plan)
    atomic_write(directory / "adapter_config.json", (json.dumps(told, indent=2) + "\n").encode())
