"""Checking: what a saved session must be before it is used: forms, lengths and ranges, against the model at hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thinktalk.code2wav.flow import METHODS
from thinktalk.config import OmniConfig
from thinktalk.engine.alignment import Pace
from thinktalk.engine.listening import ListenerState
from thinktalk.engine.live import Live, LiveState
from thinktalk.engine.packing import Damaged
from thinktalk.errors import ThinktalkError
from thinktalk.layers.resample import resampler
from thinktalk.pipeline import Options
from thinktalk.prompt import Prompt
from thinktalk.weights.hf import OmniModel

__all__ = ["Memory", "Record", "check"]

LONGEST_S = 86_400.0  # a turn


@dataclass
class Memory:
    """Keys and values of one decoder, as far as they are used."""

    keys: Tensor  # (layers, Hkv, T, K)
    values: Tensor  # (layers, Hkv, T, K)


@dataclass
class Record:
    """All that a session is, apart from the model."""

    version: int
    fingerprint: str
    voice: str | None
    options: Options
    fps: float
    frame_tokens: int | None
    allow_urls: bool
    use_audio_in_video: bool | None
    history: str  # JSON
    pace: Pace
    state: ListenerState
    opening: list[Prompt]  # not read yet
    thinker: Memory
    talker: Memory | None
    latest: Tensor | None  # (1,) where the Talker's positions stand
    highest: Tensor | None  # (1,)
    hidden: Tensor | None  # (1, D)
    token_ids: Tensor  # (1, T)
    next_position: int


def check(record: Record, model: OmniModel) -> None:
    """Shapes, lengths and ranges; after this the record may be used."""
    config = model.config
    text = config.thinker.text
    _check_options(record, config)
    history = _json(record.history)
    if not isinstance(history, list) or not all(
        isinstance(m, dict)
        and set(m) == {"role", "content"}
        and isinstance(m["content"], str | list)
        for m in history
    ):
        raise Damaged("its history is no list of messages")
    T = record.token_ids.shape[-1]
    _form(record.token_ids, (1, T), torch.int64, "token_ids")
    if text.max_positions < T or (T and not 0 <= int(record.token_ids.min()) <= int(record.token_ids.max()) < text.vocab_size):  # fmt: skip
        raise Damaged("its token ids are not of this model")
    assert model.thinker is not None
    dtype = model.thinker.norm.weight.dtype
    _check_memory(record.thinker, text, T, dtype, "thinker")
    if (record.hidden is None) != (T == 0):
        raise Damaged("its last hidden state is missing, or too many")
    if record.hidden is not None:
        _form(record.hidden, (1, text.width), dtype, "hidden")
    speaks = record.voice is not None
    if {speaks} != {record.talker is not None, record.latest is not None, record.highest is not None}:  # fmt: skip
        raise Damaged("has a voice and no Talker, or a Talker and no voice")
    if record.talker is not None:
        if model.talker is None or config.talker is None:
            raise Damaged("speaks, and the model was loaded without its talker")
        _check_memory(record.talker, config.talker.decoder, T, model.talker.norm.weight.dtype, "talker")  # fmt: skip
        for place in (record.latest, record.highest):
            assert place is not None
            _form(place, (1,), torch.int64, "positions")
            _position(int(place), "positions")
    _position(record.next_position, "next_position")
    if record.options.speech and not speaks:
        raise Damaged("is to speak and has no voice")
    _check_listener(record, config, T)


def _check_options(record: Record, config: OmniConfig) -> None:
    options, g = record.options, record.options.generation
    ranges = (
        (g.max_text_tokens, 1, 1 << 30), (g.max_codes, 1, 1 << 30), (g.text_top_k, 0, 1 << 30), (g.code_top_k, 0, 1 << 30),
        (g.text_temperature, 1e-6, 1e3), (g.code_temperature, 1e-6, 1e3), (g.text_top_p, 1e-9, 1), (g.code_top_p, 1e-9, 1),
        (g.text_repetition_penalty, 1e-3, 1e3), (g.code_repetition_penalty, 1e-3, 1e3), (g.flow_points, 2, 1000),
        (g.flow_guidance, -100, 100), (g.flow_sway, -100, 100), (record.pace.expected_s, 0, 1e12),
        (record.pace.voiced_s, 0, 1e12), (record.fps, 0, 100),
    )  # fmt: skip
    if not all(least <= value <= most for value, least, most in ranges):  # NaN is in no range
        raise Damaged("has options that cannot be")
    if g.flow_method not in METHODS or abs(options.seed) >= 1 << 63:
        raise Damaged("has options that cannot be")
    try:
        Live(config, fps=record.fps, frame_tokens=record.frame_tokens)
    except ThinktalkError:
        raise Damaged("samples pictures in a way that cannot be") from None


def _check_memory(memory: Memory, config: Any, T: int, dtype: torch.dtype, name: str) -> None:
    shape = (config.num_layers, config.num_kv_heads, T, config.head_dim)
    _form(memory.keys, shape, dtype, f"{name}.keys")
    _form(memory.values, shape, dtype, f"{name}.values")


def _check_listener(record: Record, config: OmniConfig, T: int) -> None:
    state = record.state
    timeline, thinker = state.timeline, config.thinker
    waiting = 0
    for n, prompt in enumerate(record.opening):
        P = prompt.token_ids.shape[-1]
        _form(prompt.token_ids, (P,), torch.int64, f"opening.{n}")
        _form(prompt.positions, (3, P), torch.int64, f"opening.{n}")
        if prompt.audio or prompt.images or prompt.videos or not P:
            raise Damaged("its opening holds media")
        if not 0 <= int(prompt.token_ids.min()) <= int(prompt.token_ids.max()) < thinker.text.vocab_size:  # fmt: skip
            raise Damaged("its token ids are not of this model")
        if int(prompt.positions.min()) < 0:
            raise Damaged("its positions are negative")
        _position(int(prompt.positions.max()), "positions")
        _position(prompt.next_position, "next_position")
        waiting += P
    if timeline.tokens != T + waiting:
        raise Damaged(f"counts {timeline.tokens} tokens and holds {T + waiting}")
    _position(timeline.following, "following")
    _position(timeline.largest + 1, "largest")
    rates = (timeline.positions_per_second, timeline.chunk_seconds)
    if rates != (thinker.positions_per_second, thinker.chunk_seconds):
        raise Damaged("its clock is of another model")
    if not 0 <= state.clock_s < LONGEST_S:
        raise Damaged(f"its clock stands at {state.clock_s} s")
    if state.live is not None:
        _check_live(state.live, config)


def _check_live(live: LiveState, config: OmniConfig) -> None:
    mel, block = config.mel, config.thinker.audio.block_frames
    if live.kind not in ("", "sound", "video", "both"):
        raise Damaged(f"a stretch of the kind {live.kind[:20]!r}")
    counts = (live.samples, live.taken, live.start, live.grids, live.tokens, live.chunk, live.rate)
    if not all(0 <= n < 1 << 40 for n in counts):
        raise Damaged("a stretch with counts that cannot be")
    times = (live.origin_s, live.seen_s, live.samples / mel.sample_rate)
    if not all(0 <= s < LONGEST_S for s in times):
        raise Damaged("a stretch with times that cannot be")
    if live.rate:
        module = resampler(live.rate, mel.sample_rate)
        if (live.resampler is None) != (live.rate == mel.sample_rate) or live.mel is None:
            raise Damaged("a stretch whose sound has no state")
        if live.resampler is not None:
            S = live.resampler.pcm.shape[-1]
            _form(live.resampler.pcm, (1, S), torch.float32, "resampler")
            if not module.context <= S < module.context + module.M + module.half:
                raise Damaged("a resampler out of step")
    if live.mel is not None:
        n, frames = live.mel.pcm.shape[-1], live.mel.log.shape[-1]
        _form(live.mel.pcm, (1, n), torch.float32, "mel")
        _form(live.mel.log, (1, mel.num_mels, frames), torch.float32, "mel")
        _form(live.mel.peak, (1, 1, 1), torch.float32, "mel")
        if n >= mel.n_fft + mel.hop or frames >= block:
            raise Damaged("a log-mel out of step")
    if len(live.blocks) > 10_000 or len(live.frames) > 10_000:
        raise Damaged("a stretch that holds too much")
    for piece in live.blocks:
        _form(piece, (mel.num_mels, block), torch.float32, "blocks")
    if live.shown is not None:
        H, W = live.shown.shape[:2]
        factor = config.thinker.vision.factor
        if H % factor or W % factor or not 0 < H * W <= 1 << 28:
            raise Damaged("a picture of a size that cannot be")
        for picture in (live.shown, *live.frames):
            _form(picture, (H, W, 3), torch.uint8, "pictures")
    elif live.frames or live.kind in ("video", "both"):
        raise Damaged("a stretch without its picture")


def _form(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise Damaged(f"{name} is {tensor.dtype} {list(tensor.shape)}, not {dtype} {list(shape)}")


def _position(value: int, name: str) -> None:
    if not -1 <= value < 1 << 31:
        raise Damaged(f"{name} {value} cannot be")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Damaged("its history is no JSON") from None
