"""Talker: Embedded (B, T, input width) -> hidden (B, T, D) -> logits (B, codes) of the next speech code, 50 a second.

What it reads is made from the Thinker's reply by prepare.py.
"""

from __future__ import annotations

from torch import Tensor, nn

from thinktalk.config import TalkerConfig
from thinktalk.layers.decoder import Decoder
from thinktalk.layers.direct import direct

__all__ = ["Talker"]


class Talker(Decoder):
    """The codec language model. Codes are embedded at the Thinker's width and projected together with what it said."""

    def __init__(self, config: TalkerConfig):
        super().__init__(config.decoder)
        self.talker_config = config
        self.embed = nn.Embedding(config.decoder.vocab_size, config.input_width)
        self.proj = nn.Linear(config.input_width, config.decoder.width)
        self.head = nn.Linear(config.decoder.width, config.decoder.vocab_size, bias=False)

    def enter(self, embeds: Tensor) -> Tensor:
        return direct(self.proj, embeds)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (..., codes) float32 of the next code."""
        return direct(self.head, hidden).float()
