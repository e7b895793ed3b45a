"""k3: chosen speakers. Lines in some voices -> the Talker as these voices' own; what tells it the voice may learn, too.

A voice is a token of the Thinker's vocabulary: its embedding opens the Talker's input and says who speaks. In a Thinker
that never met the token its row is noise, so the rows of the voices may be trained with the Talker; no other row is, and the
Thinker answers as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from thinktalk.errors import ConfigError
from thinktalk.training.talker_batches import Line
from thinktalk.training.talker_stage import TalkerStage
from thinktalk.weights.model import OmniModel

__all__ = ["SpeakerStage", "VoiceRows"]


class VoiceRows(nn.Module):
    """The embeddings (V, D) of some voices' tokens, apart from the Thinker's table."""

    def __init__(self, table: Tensor, tokens: Sequence[int]):
        super().__init__()
        self.tokens = tuple(tokens)
        self.weight = nn.Parameter(table[list(tokens)].detach().float().clone())

    def forward(self, tokens: Sequence[int], table: Tensor) -> Tensor:
        """(B, D): one's own row where the token has one, else the table's."""
        rows = [
            self.weight[self.tokens.index(token)] if token in self.tokens else table[token].to(self.weight)
            for token in tokens
        ]  # fmt: skip
        return torch.stack(rows)


class SpeakerStage(TalkerStage):
    """Batches are lists of Lines of chosen voices."""

    def __init__(
        self, model: OmniModel, tokens: Sequence[int] = (), *, eos_weight: float = 3.0, cache: str | Path | None = None
    ):  # fmt: skip
        """`tokens`: the voices whose rows learn; none: the Talker alone. Errors: ConfigError (a token beyond the vocabulary)."""
        super().__init__(model, eos_weight=eos_weight, cache=cache)
        table = self.teller.embedding
        if wrong := [token for token in tokens if not 0 <= token < len(table)]:
            raise ConfigError(f"voice token {wrong[0]} is none of the Thinker's {len(table)}; make the voice again")  # fmt: skip
        self.rows = VoiceRows(table, tokens) if tokens else None
        if self.rows is not None:
            self.modules = nn.ModuleDict({"talker": self.talker, "rows": self.rows})

    def voices(self, batch: Sequence[Line]) -> Tensor:
        """The embedding (B, D) of who speaks each line; gradients flow into the rows of the voices."""
        if self.rows is None:
            return super().voices(batch)
        return self.rows([line.voice for line in batch], self.teller.embedding)

    def parts(self) -> dict[str, nn.Module]:
        """The Talker; and the Thinker with the rows of the voices in their places, where they have learned."""
        if self.rows is None:
            return super().parts()
        thinker = self.teller.model.thinker
        assert thinker is not None
        with torch.no_grad():
            table = thinker.embed.weight
            table[list(self.rows.tokens)] = self.rows.weight.to(table)
        return {"talker": self.talker, "thinker": thinker}
