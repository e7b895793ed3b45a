"""Guided attention: heads are told where to look while they learn (Tachibana 2017, who knew only the diagonal).

    phones and durations  --data/words.py-->  seconds of each word
        Talker    --tokens_said-->   the reply's token that each code says
        Thinker   --tokens_heard-->  the slots of sound in which each written token is heard
    boxes and times of things  --data/pointing.py-->  the slots of picture or sound that an answer's words are about
    loss = - mean log a        a: what a guided head gives to those slots, where it predicts the code or the token

Both find their place by attention alone, and learning that takes a small model longer than anything else; synthetic speech
and drawn pictures have the answer for nothing. Only learning knows of it: the weights are like any other, and the recipes' default is not to
guide. Guided is the first head of each layer but the outermost two.

Letters: B rows, T time steps (queries and slots), K head width, N places that are guided, R tokens of a reply.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinktalk.data.words import Times
from thinktalk.layers.decoder import Decoder
from thinktalk.layers.rope import Rotary, rotate
from thinktalk.prompt import Tokenizer
from thinktalk.training.losses import IGNORE

__all__ = ["guided", "inputs_of", "letter_times", "token_ends", "tokens_heard", "tokens_said"]


def letter_times(text: str, times: Times | None) -> tuple[np.ndarray, np.ndarray] | None:
    """When each letter of `text` begins and ends, a word's letters sharing its time; spaces stand between.

    None where the words of the text are not as many as `times`: figures, for one, are several words when they are said.
    """
    words = text.split()
    if times is None or len(words) != len(times):
        return None
    begins, ends = np.zeros(len(text)), np.zeros(len(text))
    at, now = 0, 0.0
    for word, (start, end) in zip(words, times, strict=True):
        first = text.index(word, at)
        begins[at:first] = ends[at:first] = now
        at, now = first + len(word), end
        edges = np.linspace(start, end, len(word) + 1)
        begins[first:at], ends[first:at] = edges[:-1], edges[1:]
    begins[at:] = ends[at:] = now
    return begins, ends


def token_ends(tokenizer: Tokenizer, token_ids: Sequence[int]) -> list[int]:
    """Letters of the text up to the end of each token; a letter of several tokens ends with the last of them."""
    return [len(tokenizer.decode(token_ids[: i + 1])) for i in range(len(token_ids))]


def tokens_said(
    text: str, ends: Sequence[int], times: Times | None, count: int, rate: float
) -> Tensor | None:
    """Number (count,) int64 of the token that each code says; in a pause the next one, after the last word len(ends).

    `ends`: letters of `text` up to the end of each token; `rate`: codes a second. None where it is not known.
    """
    letters = letter_times(text, times)
    if letters is None or not ends or ends[-1] != len(text):
        return None
    until = letters[1][np.maximum(np.asarray(ends), 1) - 1]
    middles = (np.arange(count) + 0.5) / rate
    return torch.from_numpy(np.searchsorted(until, middles, side="right"))


def tokens_heard(
    text: str, ends: Sequence[int], times: Times | None, count: int, rate: float
) -> Tensor | None:
    """Slots (R, 2) int64, from and to, of `count` slots of sound, in which each token is heard, one more on either side.

    `rate`: slots a second. None where it is not known.
    """
    letters = letter_times(text, times)
    if letters is None or not ends or ends[-1] != len(text) or not count:
        return None
    first = [0, *ends[:-1]]
    # a space before a word is not heard
    first = [f + len(text[f:e]) - len(text[f:e].lstrip()) for f, e in zip(first, ends, strict=True)]
    begins, until = letters
    last = len(text) - 1
    slots = [(begins[min(f, last)] * rate - 1, until[max(e - 1, 0)] * rate + 1) for f, e in zip(first, ends, strict=True)]  # fmt: skip
    found = torch.tensor([(math.floor(a), math.ceil(b)) for a, b in slots]).clamp(0, count)
    found[:, 0].clamp_(max=count - 1)
    return torch.stack((found[:, 0], torch.maximum(found[:, 1], found[:, 0] + 1)), 1)


@contextmanager
def guided(
    decoder: Decoder, slots_BT2: Tensor | None, segments_BT: Tensor | None = None
) -> Iterator[list[Tensor]]:
    """While it is open, forward passes of the decoder put the loss and the mean weight (2,) of each guided head into the list.

    `slots_BT2`: from and to of the slots that are to be looked at from each place, IGNORE where none is, None for nowhere;
    `segments_BT` parts rows of many conversations.
    """
    seen: list[Tensor] = []
    if slots_BT2 is None:
        yield seen
        return
    places = tuple((slots_BT2[..., 0] != IGNORE).nonzero().unbind(1))
    layers = list(decoder.layers)[1:-1] or list(decoder.layers)[-1:]

    def watch(layer: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(_head(layer, args[0], args[1], hidden_NT, wanted_NT, places))

    handles = []
    if len(places[0]):
        row, query = places
        slot_T = torch.arange(slots_BT2.shape[1], device=slots_BT2.device)
        hidden_NT = slot_T > query[:, None]
        if segments_BT is not None:
            hidden_NT = hidden_NT | (segments_BT[row] != segments_BT[row, query, None])
        first, last = slots_BT2[places].unbind(1)
        wanted_NT = (slot_T >= first[:, None]) & (slot_T < last[:, None])
        handles = [x.register_forward_pre_hook(watch) for x in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def inputs_of(decoder: Decoder, *numbers: int) -> Iterator[dict[int, Tensor]]:
    """While it is open, forward passes of the decoder leave what these layers are given (B, T, D)."""
    held: dict[int, Tensor] = {}

    def watch(number: int, layer: nn.Module, args: tuple[Any, ...]) -> None:
        held[number] = args[0]

    layers = list(decoder.layers)
    handles = [layers[n].register_forward_pre_hook(partial(watch, n)) for n in set(numbers)]
    try:
        yield held
    finally:
        for handle in handles:
            handle.remove()


def _head(
    layer: nn.Module, x_BTD: Tensor, turn: Rotary, hidden_NT: Tensor, wanted_NT: Tensor, places: tuple[Tensor, ...]
) -> Tensor:  # fmt: skip
    """Cross-entropy of the first head's attention to the wanted slots, and the mean weight that they have."""
    attn = layer.attn
    K = attn.head_dim
    x_BTD = layer.norm1(x_BTD)
    q, k = (F.linear(x_BTD, part.weight[:K], part.bias[:K]) for part in (attn.q, attn.k))
    q_BTK, k_BTK = rotate(torch.stack((q, k), 2), turn).unbind(2)
    row = places[0]
    q_NK = q_BTK[places]
    scores_NT = (
        torch.cat([q_NK[row == b] @ k_BTK[b].T for b in range(len(k_BTK))]).float() * K**-0.5
    )
    logs_NT = scores_NT.masked_fill(hidden_NT, -torch.inf).log_softmax(-1)
    wanted_N = logs_NT.masked_fill(~wanted_NT, -torch.inf).logsumexp(-1)
    return torch.stack((-wanted_N.mean(), wanted_N.detach().exp().mean()))
