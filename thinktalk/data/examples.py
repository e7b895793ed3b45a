"""Examples: a conversation -> what the Thinker learns of it: token ids (T,), positions (3, T), labels (T,), media.

    messages --render--> marks, text, media --PromptBuilder--> ids, positions;  labels only where the assistant answers

An answer is cut from the rest as it is when the model runs: "assistant\\n" is read, then tokens are written until
<|im_end|>, which is learned too. Letters: T tokens, L mel frames, N patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thinktalk.config import OmniConfig
from thinktalk.data.samples import Sample
from thinktalk.errors import InputError
from thinktalk.media.image import smart_resize
from thinktalk.media.text import Tokenizer
from thinktalk.media.timeline import Timeline, audio_tokens
from thinktalk.media.video import video_size
from thinktalk.prompt import Grid, Mark, Medium, PromptBuilder, load_medium, render

__all__ = ["IGNORED", "Example", "TokenCost", "encode", "from_sample"]

IGNORED = -100
"""The label of a token that is read, not learned; what cross_entropy ignores."""
OPENING = "assistant\n"


@dataclass
class Example:
    """A conversation to learn from. Label t is token t itself: the loss shifts by one."""

    token_ids: Tensor  # (T,) int64
    positions: Tensor  # (3, T) int64: time, height, width, from 0
    labels: Tensor  # (T,) int64, IGNORED where nothing is learned
    audio: list[Tensor] = field(default_factory=list)  # log-mel (128, L)
    images: list[tuple[Tensor, Grid]] = field(default_factory=list)  # patches (N, 1176), grid
    videos: list[tuple[Tensor, Grid, float]] = field(default_factory=list)  # ..., seconds per grid
    heard: Tensor | None = (
        None  # (T, 2) int64: slots (from, to) in which the token after each place is heard, or IGNORED
    )
    name: str = ""  # shard and key

    @property
    def length(self) -> int:
        """Tokens, placeholders included."""
        return self.token_ids.shape[0]


def encode(
    messages: Sequence[Mapping[str, Any]],
    *,
    tokenizer: Tokenizer,
    config: OmniConfig,
    speech: bool = False,
    max_tokens: int | None = None,
    name: str = "",
) -> Example:
    """The example of a conversation whose media are paths, bytes or arrays (Sample.resolved gives such).

    `speech` puts the system prompt of speech where none leads. Errors: InputError (media, no answer, over `max_tokens`).
    """
    thinker = config.thinker
    timeline = Timeline(
        positions_per_second=thinker.positions_per_second, chunk_seconds=thinker.chunk_seconds
    )
    builder = PromptBuilder(tokenizer, config, max_tokens=max_tokens, timeline=timeline)
    learned: list[tuple[int, int]] = []
    segments = render(messages, speech=speech, answer=False)
    answering = False
    for before, segment in zip([None, *segments], segments, strict=False):
        if isinstance(segment, str):
            opens = before == Mark("im_start") and segment.startswith(OPENING)
            if opens:
                answering = True
                builder.text(OPENING)  # apart from the answer, as at run time
                segment = segment[len(OPENING) :]
            start = timeline.tokens
            builder.text(segment)
        else:
            start = timeline.tokens
            if isinstance(segment, Mark):
                builder.mark(segment.name)
            else:
                load_medium(segment, builder, config, allow_urls=False, heard=segment.use_audio is not False)  # fmt: skip
        if answering and (isinstance(segment, str) or segment == Mark("im_end")):
            learned.append((start, timeline.tokens))
        if segment == Mark("im_end"):
            answering = False
    if not learned:
        raise InputError(f"{name or 'messages'}: no assistant message, expected at least one to learn; add the answer")  # fmt: skip
    prompt = builder.prompt()
    labels = torch.full_like(prompt.token_ids, IGNORED)
    for start, stop in learned:
        labels[start:stop] = prompt.token_ids[start:stop]
    return Example(
        token_ids=prompt.token_ids,
        positions=prompt.positions,
        labels=labels,
        audio=prompt.audio,
        images=prompt.images,
        videos=prompt.videos,
        name=name,
    )


@dataclass(frozen=True)
class TokenCost:
    """Tokens of a record, from its metadata alone: what packing plans with.

    Text is counted exactly, sound by `seconds` (0.01 s a mel frame, 4 of them a token) or by "seconds_of": {member: seconds},
    pictures and videos by `pixels` ({member: [height, width]}, and seconds) or as the largest ones.
    """

    tokenizer: Tokenizer
    config: OmniConfig

    def __call__(self, record: Mapping[str, Any]) -> float:
        """Tokens; an upper bound where a picture's or a video's size is not told."""
        total = 0
        for segment in render(record["messages"], answer=False):
            if isinstance(segment, str):
                total += len(self.tokenizer.encode(segment)) + 1  # the cut after the opening
            elif isinstance(segment, Mark):
                total += 1
            else:
                total += self._medium(segment, record)
        return float(total)

    def sound(self, record: Mapping[str, Any], member: str) -> int:
        """Tokens of a sound and its marks."""
        seconds = record.get("seconds_of", {}).get(member, record.get("seconds", 30.0))
        return audio_tokens(int(seconds * self.config.mel.frames_per_second) + 1) + 2

    def _medium(self, medium: Medium, record: Mapping[str, Any]) -> int:
        kind, source = medium.kind, medium.source
        if kind == "audio":
            return self.sound(record, source)
        visual, factor = self.config.visual, self.config.thinker.vision.factor
        pixels = record.get("pixels", {}).get(source)
        if kind == "image" and pixels is None:
            return visual.max_pixels // factor**2 + 2
        if kind == "image":
            size = smart_resize(
                *pixels, factor=factor, min_pixels=visual.min_pixels, max_pixels=visual.max_pixels
            )
            return size[0] * size[1] // factor**2 + 2
        marks_and_sound = 2 + (0 if medium.use_audio is False else self.sound(record, source))
        if pixels is None:
            return visual.video_total_tokens + marks_and_sound
        wanted = float(record.get("seconds", 30.0)) * visual.video_fps
        frames = min(max(wanted, visual.video_min_frames), visual.video_max_frames)
        pairs = math.ceil(frames / self.config.thinker.vision.temporal_patch)
        height, width = video_size(2 * pairs, *pixels, visual, factor=factor)
        return pairs * (height * width // factor**2) + marks_and_sound


def from_sample(sample: Sample, **options: Any) -> Example:
    """`encode` of a sample's own messages."""
    return encode(sample.resolved(), name=sample.where, **options)
