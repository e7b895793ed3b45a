"""init: the first checkpoint, from nothing at tiny or nano size, or from Qwen2.5, Qwen2.5-VL and Whisper at official sizes.

thinktalk train init --set size=7b --set thinker=Qwen2.5-7B --set vision=Qwen2.5-VL-7B-Instruct --set audio=whisper-large-v3
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from thinktalk import config as cfg
from thinktalk.recipes.recipe import Making
from thinktalk.training.init import first_checkpoint, texts_of
from thinktalk.weights.hf import parse_dtype

__all__ = ["InitRecipe", "recipe", "tiny"]


def tiny() -> cfg.OmniConfig:
    """config.tiny() with a speech tokenizer of its ears' shape, 50 codes a second."""
    base = cfg.tiny()
    ears = base.thinker.audio
    wav2code = cfg.Wav2CodeConfig(
        width=ears.width, num_layers=1, num_heads=ears.num_heads, ffn_width=ears.ffn_width, pool=1
    )
    return replace(base, wav2code=wav2code)


SIZES: dict[str, Callable[[], cfg.OmniConfig]] = {
    "tiny": tiny, "nano": cfg.nano, "3b": cfg.omni_3b, "7b": cfg.omni_7b,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class InitRecipe(Making):
    """What the checkpoint is made of."""

    out: str = "out/init"
    size: Literal["tiny", "nano", "3b", "7b"] = "tiny"
    """Whose configuration."""
    thinker: str = ""
    """Directory of Qwen2.5 (or Qwen2.5-VL); nothing: from nothing."""
    vision: str = ""
    """Directory of Qwen2.5-VL."""
    audio: str = ""
    """Directory of Whisper (large-v3 at the official sizes)."""
    texts: tuple[str, ...] = ()
    """Text files and shards for the tokenizer's merges, where no Thinker brings its own; nothing: a page of our own."""
    voices: tuple[str, ...] = ("af_heart", "am_michael", "bf_emma", "bm_george")
    """Names of the voices; the first one is the default."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of what is stored."""

    def make(self, directory: Path) -> dict[str, Any]:
        """Write the checkpoint; tells how many tensors came from elsewhere."""
        given = {"thinker": self.thinker, "vision": self.vision, "audio": self.audio}
        copied = first_checkpoint(
            SIZES[self.size](), directory,
            sources={stage: path for stage, path in given.items() if path},
            texts=texts_of(self.texts), voices=self.voices, seed=self.seed, dtype=parse_dtype(self.dtype),
        )  # fmt: skip
        return {f"{stage}_copied": count for stage, count in copied.items()}


def recipe() -> InitRecipe:
    """The defaults."""
    return InitRecipe()
