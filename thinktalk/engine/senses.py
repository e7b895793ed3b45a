"""Senses: live sound -> blocks of log-mel, live pictures -> those on the screen at regular times. What came waits in LiveState.

    hear(pcm)           resampled, log-mel in blocks of 2 s
    see(frame, at_s)    the frame on the screen at 0, 1 / fps, 2 / fps, ... s, resized as the first one

The log-mel's clip-wide maximum is not known in time, a running one takes its place: `LiveState.exact` says whether that made
a difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinktalk.config import OmniConfig
from thinktalk.errors import ConfigError, InputError
from thinktalk.layers.mel import DEPTH, LogMel, LogMelState
from thinktalk.layers.resample import ResamplerState, resampler
from thinktalk.media.image import load_image, resize_image
from thinktalk.media.video import video_size
from thinktalk.stream import State

__all__ = ["LiveState", "Senses"]

MAX_GAP_S = 3600.0
"""Longest time from one picture to the next."""
SAME_TIME_S = 1e-6
"""Time stamps that differ by less are the same: 1/3 s is no exact fraction."""


@dataclass
class LiveState(State):
    """A stretch of live input: what has come and is not written yet, and where writing stands."""

    origin_s: float
    """Where the stretch begins on the clock of the turn."""
    kind: str = ""
    """"sound", "video" or "both"; empty until the first 2 s are there."""
    # heard
    rate: int = 0
    """Rate at which sound comes; 0: none came."""
    resampler: ResamplerState | None = None
    mel: LogMelState | None = None
    samples: int = 0
    """Samples heard, at the model's rate."""
    blocks: list[Tensor] = field(default_factory=list)
    """(M, L) finished blocks of log-mel, not written yet."""
    peak: float = -math.inf
    """Loudest log power so far."""
    faintest: float = math.inf
    """Faintest log power so far, as normalised."""
    faintest_before: float = math.inf
    """The same, of the blocks before the peak last rose."""
    # seen
    shown: Tensor | None = None
    """(H, W, 3) uint8, the picture on the screen now."""
    frames: list[Tensor] = field(default_factory=list)
    """Pictures taken, not written yet."""
    taken: int = 0
    """Pictures taken in all."""
    seen_s: float = 0.0
    """Latest time stamp, from the origin."""
    # written
    start: int = 0
    """Id from which the positions of pictures and sound count."""
    grids: int = 0
    tokens: int = 0
    """Of sound."""
    chunk: int = 0
    """The 2 s under way."""
    sounding: bool = False
    """The pictures of these 2 s are written; their sound is next."""
    full: bool = False
    """The context had no room: what came later was dropped."""

    @property
    def exact(self) -> bool:
        """Whether the log-mel is that of the whole recording: no block before the loudest reached 80 dB below it."""
        return self.faintest_before >= self.peak - DEPTH + 1e-5  # float32 rounds at 1e-6

    def seconds(self, rate: int) -> float:
        """How long the stretch is so far."""
        return max(self.samples / rate, self.seen_s)


class Senses:
    """Settings of live input; all memory is in LiveState. Errors: ConfigError for settings that cannot be."""

    def __init__(
        self, config: OmniConfig, *, fps: float | None = None, frame_tokens: int | None = None
    ):
        """`fps`: pictures taken a second; `frame_tokens`: most tokens a pair of pictures gets. Both stay fixed: a
        reference's own choice would depend on how long the video becomes."""
        thinker, visual = config.thinker, config.visual
        self.config = config
        self.fps = visual.video_fps if fps is None else float(fps)
        least_fps = thinker.vision.temporal_patch / thinker.chunk_seconds
        if not least_fps <= self.fps <= 100:
            raise ConfigError(
                f"fps {fps}: expected {least_fps:g} to 100, a pair of pictures at least every {thinker.chunk_seconds} s"
            )
        if frame_tokens is not None:
            if not 4 <= frame_tokens <= visual.video_max_tokens:
                raise ConfigError(
                    f"frame_tokens {frame_tokens}: expected 4 to {visual.video_max_tokens}"
                )
            visual = replace(
                visual,
                video_max_tokens=frame_tokens,
                video_min_tokens=min(visual.video_min_tokens, frame_tokens),
            )
        self.visual = visual
        self.seconds_per_grid = thinker.vision.temporal_patch / self.fps
        self.mel = LogMel(config.mel, block_frames=thinker.audio.block_frames)
        self.chunk_ids = thinker.positions_per_second * thinker.chunk_seconds

    # ----------------------------------------------------------------------------------------------------------- senses

    def hear(self, pcm: Tensor, rate: int, state: LiveState) -> None:
        """Take in mono sound (S,) at `rate`."""
        target = self.config.mel.sample_rate
        if rate != state.rate:
            if state.rate:  # the sender changed its rate: finish the old one, go on with the new
                self._listen(self._drain(state), state)
            fresh = resampler(rate, target)  # checks the rate
            state.rate = rate
            state.resampler = fresh.init_state(1) if rate != target else None
        if state.resampler is not None:
            pcm = resampler(rate, target).step(pcm[None], state.resampler)[0]
        self._listen(pcm, state)

    def see(self, frame: Any, at_s: float, state: LiveState) -> None:
        """A picture that is on the screen from `at_s` (of the stretch) on; None: still the same one."""
        if not (math.isfinite(at_s) and state.seen_s - SAME_TIME_S <= at_s):
            raise InputError(
                f"frame at {at_s:.3f} s: expected {state.seen_s:.3f} s or later; give frames in the order of time"
            )
        if at_s - state.seen_s > MAX_GAP_S:
            raise InputError(
                f"frame at {at_s:.0f} s: {at_s - state.seen_s:.0f} s after the one before, expected at most {MAX_GAP_S:.0f}"
            )
        picture = None if frame is None else self._fit(frame, state)
        before = picture if state.shown is None else state.shown
        if before is not None:
            self._take(before, at_s - SAME_TIME_S, state)
        state.shown = state.shown if picture is None else picture
        state.seen_s = max(state.seen_s, at_s)

    def _drain(self, state: LiveState) -> Tensor:
        """What the resampler still holds."""
        if state.resampler is None:
            return torch.empty(0)
        module = resampler(state.rate, self.config.mel.sample_rate)
        return module.step(torch.empty(1, 0), state.resampler, last=True)[0]

    def _listen(self, pcm: Tensor, state: LiveState, *, last: bool = False) -> None:
        """Log-mel of more sound, cut into blocks."""
        if state.mel is None:
            state.mel = self.mel.init_state(1, dtype=torch.float32)
        state.samples += len(pcm)
        mel = self.mel.step(pcm[None], state.mel, last=last)[0]
        blocks = [b for b in mel.split(self.mel.block_frames, 1) if b.shape[1]]
        for n, block in enumerate(blocks, 1):
            self._watch(block, state, newest=n == len(blocks))
            if not state.full:
                state.blocks.append(block.clone())

    def _watch(self, block: Tensor, state: LiveState, *, newest: bool) -> None:
        """Keep book of loudness for `exact`; y = (log + 4) / 4."""
        assert state.mel is not None
        faintest, loudest = (float(v) * 4 - 4 for v in block.aminmax())
        if newest:  # windows beyond the last frame count too
            loudest = max(loudest, float(state.mel.peak))
        if loudest > state.peak:
            state.peak, state.faintest_before = loudest, state.faintest
        state.faintest = min(state.faintest, faintest)

    def _fit(self, frame: Any, state: LiveState) -> Tensor:
        """A picture at the size that the first one decided."""
        picture = load_image(frame, name="frame")
        if state.shown is not None:
            height, width = state.shown.shape[:2]
        else:
            height, width = video_size(
                self.visual.video_min_frames,
                picture.height,
                picture.width,
                self.visual,
                factor=self.config.thinker.vision.factor,
            )
        return torch.from_numpy(np.array(resize_image(picture, height, width)))

    def _take(self, picture: Tensor, until_s: float, state: LiveState) -> None:
        """The picture stands for every moment before `until_s` that has none."""
        while state.taken / self.fps < until_s:
            state.taken += 1
            if not state.full:
                state.frames.append(picture)

    def end(self, state: LiveState) -> None:
        """Everything that waits becomes whole."""
        rate = self.config.mel.sample_rate
        if state.rate:
            self._listen(self._drain(state), state, last=True)
        if state.shown is not None:
            # the last picture stays while there is sound; a picture at t is there even if nothing follows
            until_s = max(state.samples / rate - SAME_TIME_S, state.seen_s + SAME_TIME_S)
            self._take(state.shown, until_s, state)
