"""Prompt: messages -> token ids (T,), TMRoPE positions (3, T), and the media to be encoded, in order of appearance.

    messages --render--> text, marks and media in the order of the chat template
             --PromptBuilder--> every medium as so many placeholder ids as its encoder will give embeddings

The chat template and the placeholders are the reference's, token for token, except that special tokens written in a
user's text are ordinary text here. Letters: T tokens, L mel frames, N patches.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinktalk.config import OmniConfig, TokenIds
from thinktalk.errors import InputError
from thinktalk.layers.mel import log_mel
from thinktalk.media.audio import load_audio
from thinktalk.media.fetch import describe
from thinktalk.media.image import image_patches, load_image, patchify
from thinktalk.media.text import SPECIAL_TOKENS, TextStream, Tokenizer
from thinktalk.media.timeline import Audio, Image, Text, Timeline, Video, audio_tokens, interleave
from thinktalk.media.video import load_video

__all__ = [
    "DEFAULT_SYSTEM", "SPECIAL_TOKENS", "SPEECH_SYSTEM", "Mark", "Medium", "Prompt", "PromptBuilder", "TextStream",
    "Tokenizer", "build_prompt", "load_medium", "render",
]  # fmt: skip

DEFAULT_SYSTEM = "You are a helpful assistant."
SPEECH_SYSTEM = (
    "You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of perceiving auditory and "
    "visual inputs, as well as generating text and speech."
)
"""The model speaks well only under this system prompt."""

ROLES = ("system", "user", "assistant")
MEDIA = ("image", "audio", "video")

Grid = tuple[int, int, int]
"""Patches of a picture or video: times, rows, columns."""


# -------------------------------------------------------------------------------------------------------------- render


@dataclass(frozen=True, slots=True)
class Mark:
    """A special token of the conversation."""

    name: str
    """A field of TokenIds."""


@dataclass(frozen=True, slots=True)
class Medium:
    """A picture, a sound or a video, not yet loaded."""

    kind: str
    """ "image", "audio" or "video"."""
    source: Any
    """Path, bytes, URL, PIL image, (samples, rate), frames."""
    where: str
    """Where in the messages it stands, for error messages."""
    use_audio: bool | None = None
    """Whether a video is heard; None where the message does not say."""


Segment = str | Mark | Medium


def render(
    messages: Sequence[Mapping[str, Any]], *, speech: bool = False, answer: bool = True
) -> list[Segment]:
    """The conversation in the order of the chat template; neighbouring texts are one, as the tokenizer will see them.

    Where no system message leads, one is put there: SPEECH_SYSTEM with `speech`, else DEFAULT_SYSTEM. `answer` opens
    the assistant's turn at the end. Errors: InputError names the place, as in "messages[0].content[1]".
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise InputError(
            f'messages: {type(messages).__name__}, expected a list; write [{{"role": "user", "content": ...}}]'
        )
    if not messages:
        raise InputError("messages: none, expected at least one; add a user message")
    turns = [_turn(message, f"messages[{i}]") for i, message in enumerate(messages)]
    if turns[0][0] != "system":
        turns.insert(0, ("system", [SPEECH_SYSTEM if speech else DEFAULT_SYSTEM]))
    segments: list[Segment] = []
    for role, content in turns:
        segments += [Mark("im_start"), f"{role}\n", *content, Mark("im_end"), "\n"]
    if answer:
        segments += [Mark("im_start"), "assistant\n"]
    return _join_texts(segments)


def _turn(message: Any, where: str) -> tuple[str, list[str | Medium]]:
    """A checked message: its role and its content."""
    if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
        got = sorted(map(str, message)) if isinstance(message, Mapping) else type(message).__name__
        raise InputError(f'{where}: {got}, expected a dict with "role" and "content"; write both')
    role, content = message["role"], message["content"]
    if not isinstance(role, str) or role not in ROLES:
        raise InputError(
            f"{where}: role {_excerpt(role)} is unknown; use one of {', '.join(ROLES)}"
        )
    if isinstance(content, str):
        return role, [content]
    if isinstance(content, (bytes, Mapping)) or not isinstance(content, Sequence):
        raise InputError(
            f"{where}.content: {type(content).__name__}, expected a string or a list of parts; write text as a string"
        )
    return role, [_part(part, f"{where}.content[{j}]") for j, part in enumerate(content)]


def _part(part: Any, where: str) -> str | Medium:
    """A checked part of a message: its text, or its medium."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(kind, str) or kind not in ("text", *MEDIA):
        got = f"type {_excerpt(kind)}" if isinstance(part, Mapping) else type(part).__name__
        raise InputError(
            f'{where}: {got}, expected a dict whose "type" is text, image, audio or video; give one of these'
        )
    allowed = {"type", kind} | ({"use_audio"} if kind == "video" else set())
    if kind not in part or not set(part) <= allowed:
        raise InputError(
            f"{where}: keys {sorted(map(str, part))} for a part of type {kind}, expected {sorted(allowed)}; add or remove keys"
        )
    value = part[kind]
    if kind == "text":
        if not isinstance(value, str):
            raise InputError(
                f"{where}: text is {type(value).__name__}, expected a string; give a string"
            )
        return value
    use_audio = part.get("use_audio")
    if not isinstance(use_audio, bool | None):
        raise InputError(
            f"{where}: use_audio is {_excerpt(use_audio)}, expected true or false; give one of them"
        )
    return Medium(kind, value, where, use_audio)


def _join_texts(segments: list[Segment]) -> list[Segment]:
    joined: list[Segment] = []
    for segment in segments:
        if isinstance(segment, str) and joined and isinstance(joined[-1], str):
            joined[-1] += segment  # the split into words may cross from one text to the next
        else:
            joined.append(segment)
    return joined


def _excerpt(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."


# --------------------------------------------------------------------------------------------------------------- build


@dataclass
class Prompt:
    """What the Thinker reads before it answers."""

    token_ids: Tensor  # (T,) int64
    positions: Tensor  # (3, T) int64: time, height, width
    next_position: int  # position of the first generated token; each further one is one more
    audio: list[Tensor] = field(default_factory=list)  # log-mel (128, L) of each sound
    images: list[tuple[Tensor, Grid]] = field(default_factory=list)  # patches (N, 1176), grid
    videos: list[tuple[Tensor, Grid, float]] = field(default_factory=list)  # ..., seconds per grid

    @property
    def length(self) -> int:
        """Tokens, placeholders included."""
        return self.token_ids.shape[0]

    @property
    def delta(self) -> int:
        """Token number n, once generation runs, stands at n + delta."""
        return self.next_position - self.length


class PromptBuilder:
    """Writes a prompt piece by piece: ids, positions and media stay in step.

    >>> builder = PromptBuilder(tokenizer, omni_7b())
    >>> builder.text("What is this?"); builder.image(patches, (1, 16, 16)); prompt = builder.prompt()
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: OmniConfig,
        *,
        max_tokens: int | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        """`timeline`: where earlier pieces of the same prompt end; this one goes on from there."""
        thinker = config.thinker
        self._tokenizer = tokenizer
        self._ids: TokenIds = thinker.ids
        self._merge = thinker.vision.merge
        context = thinker.text.max_positions
        self._limit = context if max_tokens is None else min(context, max_tokens)
        self._timeline = timeline or Timeline(
            positions_per_second=thinker.positions_per_second, chunk_seconds=thinker.chunk_seconds
        )
        self._token_ids: list[int] = []
        self._positions: list[Tensor] = [torch.empty(3, 0, dtype=torch.long)]
        self._audio: list[Tensor] = []
        self._images: list[tuple[Tensor, Grid]] = []
        self._videos: list[tuple[Tensor, Grid, float]] = []

    def text(self, text: str) -> None:
        """Ordinary text."""
        self._write(self._tokenizer.encode(text), None, "text")

    def mark(self, name: str) -> None:
        """A special token, by its name in TokenIds."""
        self._write([getattr(self._ids, name)], None, "text")

    def audio(self, mel: Tensor, *, name: str = "audio") -> None:
        """A sound: log-mel (128, L). Errors: InputError when it is too short for one token."""
        span = Audio(audio_tokens(mel.shape[1]))
        if span.tokens == 0:
            raise InputError(
                f"{name}: {mel.shape[1]} frames of 10 ms, expected at least 3; give a longer sound"
            )
        ids = self._ids
        self._write([ids.audio_bos, *[ids.audio] * span.tokens, ids.audio_eos], span, name)
        self._audio.append(mel)

    def image(self, patches: Tensor, grid: Grid, *, name: str = "image") -> None:
        """A picture: patches (N, 1176), their grid (1, rows, columns)."""
        span = Image(grid[1] // self._merge, grid[2] // self._merge)
        ids = self._ids
        inner = [ids.image] * (span.rows * span.columns)
        self._write([ids.vision_bos, *inner, ids.vision_eos], span, name)
        self._images.append((patches, grid))

    def video(
        self,
        patches: Tensor,
        grid: Grid,
        seconds_per_grid: float,
        *,
        mel: Tensor | None = None,
        name: str = "video",
    ) -> None:
        """A video: patches (N, 1176), their grid; with `mel` (128, L) its sound is interleaved, 2 s by 2 s."""
        sound = 0 if mel is None else audio_tokens(mel.shape[1])
        rows, columns = grid[1] // self._merge, grid[2] // self._merge
        span = Video(grid[0], rows, columns, seconds_per_grid, audio_tokens=sound)
        ids = self._ids
        begin, end, inner = [ids.vision_bos], [ids.vision_eos], [ids.video] * span.video_tokens
        if sound:
            timeline = self._timeline
            runs = interleave(
                span,
                positions_per_second=timeline.positions_per_second,
                chunk_seconds=timeline.chunk_seconds,
            )
            placeholder = {"video": ids.video, "audio": ids.audio}
            inner = [i for run in runs for i in [placeholder[run.kind]] * run.tokens]
            begin, end = [*begin, ids.audio_bos], [ids.audio_eos, *end]
        self._write([*begin, *inner, *end], span, name)
        self._videos.append((patches, grid, seconds_per_grid))
        if sound:
            self._audio.append(mel)

    def prompt(self) -> Prompt:
        """What was written so far."""
        return Prompt(
            token_ids=torch.tensor(self._token_ids, dtype=torch.long),
            positions=torch.cat(self._positions, 1),
            next_position=self._timeline.next_position,
            audio=list(self._audio),
            images=list(self._images),
            videos=list(self._videos),
        )

    def _write(self, token_ids: list[int], span: Audio | Image | Video | None, name: str) -> None:
        total = self._timeline.tokens + len(token_ids)
        if total > self._limit:
            raise InputError(
                f"{name}: the prompt has {total} tokens with it, {len(token_ids)} of them its own, expected at most {self._limit}; shorten it"
            )
        self._token_ids += token_ids
        self._positions.append(self._timeline.place(span or Text(len(token_ids))))


def build_prompt(
    messages: Sequence[Mapping[str, Any]],
    *,
    tokenizer: Tokenizer,
    config: OmniConfig,
    speech: bool,
    allow_urls: bool = False,
    use_audio_in_video: bool | None = None,
    max_tokens: int | None = None,
) -> Prompt:
    """Load the media of a conversation and write its prompt, the assistant's turn open at the end.

    Videos are heard when they have a sound track, unless `use_audio_in_video` or the message says otherwise (the message
    decides). At most `max_tokens`, and never more than the model's context. Errors: InputError names the medium.
    """
    builder = PromptBuilder(tokenizer, config, max_tokens=max_tokens)
    for segment in render(messages, speech=speech):
        match segment:
            case str():
                builder.text(segment)
            case Mark():
                builder.mark(segment.name)
            case Medium():
                heard = segment.use_audio if segment.use_audio is not None else use_audio_in_video
                load_medium(
                    segment, builder, config, allow_urls=allow_urls, heard=heard is not False
                )
    return builder.prompt()


def load_medium(
    medium: Medium, builder: PromptBuilder, config: OmniConfig, *, allow_urls: bool, heard: bool
) -> None:
    """Decode one medium and write it down."""
    source, vision, visual = medium.source, config.thinker.vision, config.visual
    name = describe(source)
    if not isinstance(source, (str, os.PathLike)):
        name = f"{medium.where} ({name})"  # bytes and arrays have no name of their own
    rate, opening = config.mel.sample_rate, dict(name=name, allow_urls=allow_urls)

    def mel(pcm: np.ndarray) -> Tensor:
        return log_mel(torch.from_numpy(pcm)[None], config.mel)[0]

    match medium.kind:
        case "audio":
            builder.audio(mel(load_audio(source, sample_rate=rate, **opening)), name=name)
        case "image":
            picture = load_image(source, **opening)
            builder.image(*image_patches(picture, vision, visual), name=name)
        case "video":
            video = load_video(
                source, visual=visual, want_audio=heard, factor=vision.factor, **opening
            )
            patches, grid = patchify(video.frames, vision, visual)
            seconds = video.seconds_per_grid(vision.temporal_patch)
            sound = None if video.audio is None else mel(video.audio)
            builder.video(patches, grid, seconds, mel=sound, name=name)
