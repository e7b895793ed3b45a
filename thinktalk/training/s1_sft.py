"""s1: answers. Conversations over text, sound, pictures and video -> loss of what the assistant says; the Thinker learns.

Encoders stay as they are, so what they say of a medium can be kept from epoch to epoch (`cache_mb`). With LoRA the Thinker
stays, too, and low-rank differences learn; `parts` gives them as one matrix again, `adapter` as PEFT's files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thinktalk.errors import ConfigError
from thinktalk.training.lora import LoraConfig, add_lora, merged, save_adapter
from thinktalk.training.thinker_stage import ThinkerStage, begins
from thinktalk.weights.model import OmniModel

__all__ = ["SftStage"]


class SftStage(ThinkerStage):
    """Batches are Packed; the Thinker learns, or adapters in it, and what else `learns` names."""

    def __init__(
        self,
        model: OmniModel,
        learns: Sequence[str] = ("thinker",),
        *,
        lora: LoraConfig | None = None,
        **options: Any,
    ):
        """`lora`: of rank 0 is none. A is drawn from torch's generator."""
        self.lora = lora if lora is not None and lora.rank else None
        if self.lora is not None and options.get("guide"):
            raise ConfigError("guide and lora: attention is guided by weights that LoRA leaves as they are; use one of them")  # fmt: skip
        if self.lora is not None and model.thinker is not None:
            add_lora(model.thinker, self.lora)
        super().__init__(model, learns, **options)

    def is_trained(self, name: str) -> bool:
        """With LoRA, of the Thinker only A and B."""
        own = self.lora is None or not begins(name, "thinker") or name.endswith((".a", ".b"))
        return own and super().is_trained(name)

    def half(self) -> None:
        """Hold what does not learn in bfloat16: half the memory, for runs that compute in it anyway."""
        for name, parameter in self.modules.named_parameters():
            if not self.is_trained(name):
                parameter.data = parameter.data.to(torch.bfloat16)

    def parts(self) -> Mapping[str, nn.Module]:
        """What learns, adapters merged."""
        return {name: merged(module) for name, module in super().parts().items()}

    def save_adapter(self, directory: str | Path, *, base: str) -> None:
        """The adapters as PEFT files; `base` names the model they were trained on."""
        assert self.lora is not None, "there are no adapters"
        save_adapter(directory, "thinker", self.thinker, self.lora, base=base)
