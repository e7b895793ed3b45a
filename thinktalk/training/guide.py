"""Guided attention: heads of a Talker are told where in its text the speech is (Tachibana 2017, who knew only the diagonal).

    phones and durations  --word_times-->  seconds of each word  --tokens_said-->  the reply's token that each code says
    loss = - mean log a        a: what a guided head gives to that token's place where it predicts the code

A Talker finds its place in the text by attention alone, and learning that takes it longer than anything else; synthetic
speech has the answer for nothing. Only learning knows of it: the weights are a Talker's like any other, and the recipe's
default is not to guide. Guided is the first head of each layer but the outermost two.

Letters: B rows, T time steps (queries and slots), K head width, N places that are guided.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinktalk.data.samples import FRAME_SECONDS
from thinktalk.layers.decoder import Decoder
from thinktalk.layers.rope import Rotary, rotate
from thinktalk.training.losses import IGNORE

__all__ = ["Times", "guided", "tokens_said", "word_times"]

Times = Sequence[tuple[float, float]]
"""Start and end of each word in seconds."""


def word_times(record: Mapping[str, Any], prefix: str = "") -> Times | None:
    """Times of the words of a record's speech, `prefix` "answer_" for an answer's; None where its phones are not known."""
    phones, durations = record.get(prefix + "phones"), record.get(prefix + "durations")
    if not phones or not durations or len(durations) != len(phones) + 2:
        return None
    ends = np.cumsum(durations) * float(record.get("frame_seconds", FRAME_SECONDS))
    spaces = [-1, *(i for i, phone in enumerate(phones) if phone == " "), len(phones)]
    # ends[i] is where phone i begins: what comes first is the silence before
    return [(float(ends[a + 1]), float(ends[b])) for a, b in pairwise(spaces) if b > a + 1]


def tokens_said(
    text: str, ends: Sequence[int], times: Times | None, count: int, rate: float
) -> Tensor | None:
    """Number (count,) int64 of the token that each code says; in a pause the next one, after the last word len(ends).

    `ends`: letters of `text` up to the end of each token; `rate`: codes a second. None where the words of the text are not
    as many as `times`: figures, for one, are several words when they are said.
    """
    words = text.split()
    if times is None or len(words) != len(times) or (ends and ends[-1] != len(text)):
        return None
    until = np.zeros(len(text) + 1)  # until when the first n letters are said
    at = 0
    for word, (start, end) in zip(words, times, strict=True):
        first = text.index(word, at)
        until[at : first + 1] = until[at]
        at = first + len(word)
        until[first + 1 : at + 1] = start + (end - start) * np.arange(1, len(word) + 1) / len(word)
    until[at:] = until[at]
    middles = (np.arange(count) + 0.5) / rate
    return torch.from_numpy(np.searchsorted(until[list(ends)], middles, side="right"))


@contextmanager
def guided(decoder: Decoder, slots_BT: Tensor) -> Iterator[list[Tensor]]:
    """While it is open, forward passes of the decoder put the loss and the mean weight (2,) of each guided head into the list.

    `slots_BT`: the slot that is to be looked at from each place, IGNORE where none is.
    """
    seen: list[Tensor] = []
    places = (slots_BT != IGNORE).nonzero()
    layers = list(decoder.layers)[1:-1] or list(decoder.layers)[-1:]

    def watch(layer: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(_head(layer, *args, places, slots_BT))

    handles = [x.register_forward_pre_hook(watch) for x in layers] if len(places) else []
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _head(layer: nn.Module, x_BTD: Tensor, turn: Rotary, places: Tensor, slots_BT: Tensor) -> Tensor:  # fmt: skip
    """Cross-entropy of the first head's attention to the wanted slots, and the mean weight that they have."""
    attn = layer.attn
    K = attn.head_dim
    x_BTD = layer.norm1(x_BTD)
    q, k = (F.linear(x_BTD, part.weight[:K], part.bias[:K]) for part in (attn.q, attn.k))
    q_BTK, k_BTK = rotate(torch.stack((q, k), 2), turn).unbind(2)
    scores_BTT = (q_BTK @ k_BTK.transpose(1, 2)).float() * K**-0.5
    T = scores_BTT.shape[1]
    later = torch.ones(T, T, dtype=torch.bool, device=scores_BTT.device).triu(1)
    row, query = places.unbind(1)
    logs_NT = scores_BTT.masked_fill(later, -torch.inf)[row, query].log_softmax(-1)
    wanted_N = logs_NT.gather(1, slots_BT[row, query][:, None])[:, 0]
    return torch.stack((-wanted_N.mean(), wanted_N.detach().exp().mean()))
