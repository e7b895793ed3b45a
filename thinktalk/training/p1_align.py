"""p1: encoders learn to speak the Thinker's language. Pairs of sound or picture and text -> loss; the Thinker stays as it is.

    first    the adapters: the audio encoder's norm and projection, the vision encoder's merger
    then     the whole encoders with them

In this order, as the report says (section 3): trained at once, encoders make up for what a fresh adapter cannot do yet, and
forget what they had heard and seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from torch import Tensor

from thinktalk.errors import ConfigError
from thinktalk.training.thinker_stage import ThinkerStage, adapters_only
from thinktalk.weights.model import OmniModel

__all__ = ["AlignStage"]


class AlignStage(ThinkerStage):
    """Batches are Packed; adapters learn from the beginning, the rest of the encoders after a share of the run."""

    def __init__(
        self, model: OmniModel, learns: Sequence[str] = ("audio", "vision"), *, adapters_first: float = 0.3, **options: Any
    ):  # fmt: skip
        """`adapters_first`: share of the run in which only adapters learn."""
        if not 0 <= adapters_first <= 1:
            raise ConfigError(f"adapters_first is {adapters_first}, expected 0 to 1")
        super().__init__(model, learns, **options)
        self.adapters_first = adapters_first

    def encode(self, part: str, items: Sequence[Any], run: Callable) -> list[Tensor]:
        """Features whose gradient ends at the adapter as long as adapters learn alone."""
        first = self.progress < self.adapters_first
        with adapters_only(self.modules[part]) if first else nullcontext():
            return run(items)
