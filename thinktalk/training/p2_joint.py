"""p2: everything learns from everything: text, sound, pictures and video in one row of tokens, 8192 of them officially.

Plain text is learnt whole, of conversations the answers. With text alone it is the language stage of a Thinker that begins
from nothing: encoders that meet no media are not even asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from thinktalk.training.thinker_stage import ThinkerStage
from thinktalk.weights.model import OmniModel

__all__ = ["JointStage"]


class JointStage(ThinkerStage):
    """Batches are Packed; encoders and Thinker learn."""

    def __init__(
        self, model: OmniModel, learns: Sequence[str] = ("audio", "vision", "thinker"), **options: Any
    ):  # fmt: skip
        super().__init__(model, learns, **options)
