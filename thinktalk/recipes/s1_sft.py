"""s1_sft: answers over text, sound, pictures and video; the whole Thinker, or with --set lora.rank=16 adapters in it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from thinktalk.errors import ConfigError
from thinktalk.recipes.thinker_recipe import ThinkerRecipe
from thinktalk.training.lora import LoraConfig
from thinktalk.training.optim import OptimConfig
from thinktalk.training.s1_sft import SftStage
from thinktalk.training.stage import Stage

__all__ = ["SftRecipe", "recipe"]


@dataclass(frozen=True, kw_only=True)
class SftRecipe(ThinkerRecipe):
    """The numbers of the run."""

    out: str = "out/s1_sft"
    steps: int = 3_000
    shards: str = "data/chats/*.tar"
    learns: str = "thinker"
    lora: LoraConfig = field(default_factory=LoraConfig)
    frozen: Literal["float32", "bfloat16"] = "float32"
    """How what does not learn is held; bfloat16 takes half the memory and wants precision=bf16."""
    tasks: str = "transcribe,repeat,read"
    augment: bool = False
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-4))

    def stage(self) -> SftStage:
        """Encoders and Thinker of `start`, with fresh adapters where asked for."""
        if self.frozen == "bfloat16" and self.precision != "bf16":
            raise ConfigError(f"frozen=bfloat16 with precision={self.precision}: what learns and what does not would not multiply; set precision=bf16")  # fmt: skip
        torch.manual_seed(self.seed)
        stage = SftStage(self.load("thinker"), lora=self.lora, **self.options())
        if self.frozen == "bfloat16":
            stage.half()
        return stage

    def export(self, stage: Stage, directory: str | Path) -> None:
        """The checkpoint with the adapters merged; beside it, in `adapter`, the adapters as PEFT files."""
        assert isinstance(stage, SftStage)
        if (
            self.frozen == "bfloat16"
        ):  # merge into what `start` holds, not into what was rounded for the run
            learnt = {n: p for n, p in stage.modules.state_dict().items() if stage.is_trained(n)}
            stage = replace(self, frozen="float32").stage()
            stage.modules.load_state_dict(learnt, strict=False)
        super().export(stage, directory)
        if stage.lora is not None:
            stage.save_adapter(Path(directory).parent / "adapter", base=self.start)


def recipe() -> SftRecipe:
    """The defaults."""
    return SftRecipe()
