"""Layouts: the public table of prompts and the ids their tokens must have, layouts.json -> Layout.

The file needs nothing of thinktalk: a layout has its token ids in the official vocabulary as runs [id, count], the
arguments of transformers' get_rope_index, and what that must return. docs/conformance.md describes it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from thinktalk.config import TokenIds
from thinktalk.media.timeline import Audio, Image, Span, Text, Video

__all__ = [
    "FORMAT",
    "KINDS",
    "TEXT_ID",
    "Layout",
    "audio_counts",
    "joined",
    "load_layouts",
    "read_table",
]

FORMAT = "qwen2.5-omni-layouts/1"
TEXT_ID = 9  # any ordinary word
KINDS = ("audio_bos", "audio", "audio_eos", "vision_bos", "image", "video", "vision_eos")
"""Tokens that are no text, by their field of TokenIds."""

_SPANS = {"text": Text, "audio": Audio, "image": Image, "video": Video}


@dataclass(frozen=True)
class Layout:
    """One prompt of the table."""

    name: str
    group: str
    """ "text", "audio", "image", "video", "audio-in-video" or "turns"."""
    about: str
    spans: tuple[Span, ...]
    runs: tuple[tuple[str, int], ...]
    """Tokens in order: ("text" or one of KINDS, how many)."""
    positions: Tensor  # (3, T) int64, what must come out
    delta: int

    @property
    def kinds(self) -> list[str]:
        """The kind of each token."""
        return [kind for kind, count in self.runs for _ in range(count)]

    def token_ids(self, ids: TokenIds) -> Tensor:
        """(T,) int64 in a vocabulary with these special tokens."""
        return torch.tensor([TEXT_ID if k == "text" else getattr(ids, k) for k in self.kinds])

    @property
    def images(self) -> list[tuple[int, int, int]]:
        """Patches of each picture: times, rows, columns (two patches a token and side)."""
        return [(1, 2 * s.rows, 2 * s.columns) for s in self.spans if isinstance(s, Image)]

    @property
    def videos(self) -> list[Video]:
        return [span for span in self.spans if isinstance(span, Video)]

    @property
    def audio_frames(self) -> list[int]:
        """Mel frames of each sound, those of videos too: the fewest that give its tokens."""
        tokens = [
            s.tokens if isinstance(s, Audio) else s.audio_tokens
            for s in self.spans
            if isinstance(s, Audio | Video)
        ]
        return [4 * n - 1 for n in tokens if n]

    @property
    def sounding(self) -> bool:
        """Whether the sound of its videos is heard."""
        return any(video.audio_tokens for video in self.videos)


def joined(runs: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Neighbouring runs of one kind as one.

    >>> joined([("video", 2), ("video", 1), ("audio", 4)])
    [('video', 3), ('audio', 4)]
    """
    return [(kind, sum(n for _, n in same)) for kind, same in groupby(runs, key=lambda run: run[0])]


def token_runs(
    span: Span, order: Callable[[Video], list[tuple[str, int]]]
) -> list[tuple[str, int]]:
    """The tokens of a span, marks included; `order` says how picture and sound of a video stand."""
    match span:
        case Text(tokens):
            return [("text", tokens)]
        case Audio(tokens):
            return [("audio_bos", 1), ("audio", tokens), ("audio_eos", 1)]
        case Image(rows, columns):
            return [("vision_bos", 1), ("image", rows * columns), ("vision_eos", 1)]
        case Video(audio_tokens=0):
            return [("vision_bos", 1), ("video", span.video_tokens), ("vision_eos", 1)]
        case Video():
            inner = order(span)
            return [("vision_bos", 1), ("audio_bos", 1), *inner, ("audio_eos", 1), ("vision_eos", 1)]  # fmt: skip


@functools.cache
def read_table() -> dict[str, Any]:
    """The table as it stands in the file; treat it as read-only."""
    return json.loads(files(__package__).joinpath("layouts.json").read_text(encoding="utf-8"))


def audio_counts() -> dict[int, int]:
    """Mel frames of a clip -> audio tokens."""
    return {int(frames): tokens for frames, tokens in read_table()["audio_tokens"].items()}


@functools.cache
def load_layouts() -> tuple[Layout, ...]:
    """Every layout of the table, in its order.

    >>> [layout.name for layout in load_layouts()][:2]
    ['one-token', 'text']
    """
    names = {getattr(TokenIds(), kind): kind for kind in KINDS} | {TEXT_ID: "text"}
    return tuple(
        Layout(
            name=told["name"],
            group=told["group"],
            about=told["about"],
            spans=tuple(_SPANS[kind](**sizes) for span in told["spans"] for kind, sizes in span.items()),
            runs=tuple((names[token], count) for token, count in told["input_id_runs"]),
            positions=torch.tensor(told["position_ids"]),
            delta=told["rope_delta"],
        )
        for told in read_table()["layouts"]
    )  # fmt: skip
