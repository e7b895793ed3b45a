"""Textbook models and loops, as one writes them first: what the stages' speed is compared with.

Padded batches, torch.nn's own layers, logits of every place, torch.optim.AdamW, clip_grad_norm_. Same widths, heads and
numbers of layers; a gelu network of 3/2 the width stands for SwiGLU (as many products).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from thinktalk.config import AudioEncoderConfig, DecoderConfig

__all__ = ["Decoder", "Ears", "decoder_loss", "ears_loss", "loop"]


def layers(width: int, heads: int, ffn: int, count: int) -> nn.TransformerEncoder:
    """Pre-norm transformer layers."""
    layer = nn.TransformerEncoderLayer(
        width, heads, ffn, dropout=0.0, activation=F.gelu, batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, count, enable_nested_tensor=False)


class Decoder(nn.Module):
    """Token ids (B, T) -> logits (B, T, V)."""

    def __init__(self, c: DecoderConfig):
        super().__init__()
        self.embed = nn.Embedding(c.vocab_size, c.width)
        self.places = nn.Embedding(1024, c.width)
        self.layers = layers(c.width, c.num_heads, c.ffn_width * 3 // 2, c.num_layers)
        self.norm = nn.LayerNorm(c.width)
        self.head = nn.Linear(c.width, c.vocab_size, bias=False)

    def forward(self, ids_BT: Tensor) -> Tensor:
        T = ids_BT.shape[1]
        x = self.embed(ids_BT) + self.places.weight[:T]
        mask = nn.Transformer.generate_square_subsequent_mask(T, device=x.device)
        return self.head(self.norm(self.layers(x, mask=mask, is_causal=True)))


def decoder_loss(model: Decoder, rows: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Cross-entropy of (token ids, labels) rows, padded at the right."""
    ids = pad_sequence([ids for ids, _ in rows], batch_first=True)
    labels = pad_sequence([labels for _, labels in rows], batch_first=True, padding_value=-100)
    return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


class Ears(nn.Module):
    """Log-mel (B, M, L) and lengths -> letters' logits (B, L / 2, V): two convolutions, layers over the whole clip."""

    def __init__(self, c: AudioEncoderConfig, letters: int):
        super().__init__()
        self.conv1 = nn.Conv1d(c.num_mels, c.width, 3, padding=1)
        self.conv2 = nn.Conv1d(c.width, c.width, 3, stride=2, padding=1)
        self.layers = layers(c.width, c.num_heads, c.ffn_width, c.num_layers)
        self.norm = nn.LayerNorm(c.width)
        self.head = nn.Linear(c.width, letters)

    def forward(self, mels_BML: Tensor, lengths_B: Tensor) -> Tensor:
        x = F.gelu(self.conv2(F.gelu(self.conv1(mels_BML)))).transpose(1, 2)
        padding = torch.arange(x.shape[1], device=x.device) >= lengths_B[:, None]
        return self.head(self.norm(self.layers(x, src_key_padding_mask=padding)))


def ears_loss(model: Ears, batch: Any) -> Tensor:
    """CTC of Speech, clips padded to the longest."""
    mels = pad_sequence([mel.T for mel in batch.mels], batch_first=True).transpose(1, 2)
    lengths = torch.tensor([(mel.shape[1] + 1) // 2 for mel in batch.mels])
    scores = model(mels, lengths).float().log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(scores, batch.labels, lengths, batch.label_lengths, zero_infinity=True)


def loop(
    turns: Sequence[tuple[Sequence[nn.Parameter], Callable[[Any], Tensor]]],
    batches: Sequence[Any],
    clock: Callable[[], float],
    *,
    half: bool,
) -> list[float]:
    """Train on each batch once; seconds of each step. A GAN has two turns: parameters and loss of each."""
    optimizers = [torch.optim.AdamW(list(parameters), lr=1e-4) for parameters, _ in turns]
    times = []
    for batch in batches:
        began = clock()
        for optimizer, (parameters, loss_of) in zip(optimizers, turns, strict=True):
            optimizer.zero_grad()
            device = next(iter(parameters)).device.type
            with torch.autocast(device, torch.bfloat16, enabled=half):
                loss = loss_of(batch)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            loss.item()
        times.append(clock() - began)
    return times
