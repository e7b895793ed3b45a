"""Thinker: Embedded (B, T, D) -> hidden (B, T, D) -> logits (B, V) of the next text token.

embeds = merge_media(thinker.embed(ids), ids, {audio_id: audio features, ...})
hidden = thinker.step(Embedded(embeds, positions), state)
logits = thinker.logits(last_of(hidden))
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from thinktalk.config import DecoderConfig
from thinktalk.layers.decoder import Decoder
from thinktalk.layers.direct import direct

__all__ = ["Thinker", "merge_media"]


class Thinker(Decoder):
    """The multimodal language model; what it hears and sees comes in as embeddings."""

    def __init__(self, config: DecoderConfig):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.width)
        # a tied head is no tensor of its own: neither in memory nor in the file
        self.lm_head = (
            None
            if config.tie_embeddings
            else nn.Linear(config.width, config.vocab_size, bias=False)
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (..., V) float32 of the next token; give it the last hidden states only, the vocabulary is wide."""
        if self.lm_head is None:
            return F.linear(hidden, self.embed.weight).float()
        return direct(self.lm_head, hidden).float()


def merge_media(
    embeds: Tensor, token_ids: Tensor, media: Mapping[int, Tensor]
) -> tuple[Tensor, Tensor]:
    """Put features (N, D) where their placeholder token stands, in order; row after row for a batch.

    embeds (B, T, D) are those of token_ids (B, T); `media` maps a placeholder's id to its features.
    Returns what the Thinker reads, and the same with zeros where a medium stands, which is what the Talker hears of it.
    """
    if not media:
        return embeds, embeds
    read, heard = embeds.clone(), embeds.clone()
    for token_id, features in media.items():
        here = token_ids == token_id
        assert (count := int(here.sum())) == len(features), (
            f"{count} placeholders {token_id} in the prompt, {len(features)} features for them"
        )
        read[here] = features.to(read)
        heard[here] = 0
    return read, heard
