"""Speech: codes (B, n), a few at a time -> 24 kHz wave (B, 480 n) as soon as it can be: DiT by windows, then BigVGAN.

    collect   codes are noted in the state
    run       one window of each of several streams, in one batch: codes -> mel -> wave
    step      both, for one stream

The law: any chunking of the codes gives the same wave. Windows are cut by block index (windows.py), each mel frame has its
own noise, and what a window hears of the past is in the state. The distance to the whole utterance: docs/streaming.md.

Letters: B rows, n codes, F mel frames, M mel bands, D width, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from thinktalk.code2wav.bigvgan import BigVGAN
from thinktalk.code2wav.dit import DiT, Modulation, Timbre
from thinktalk.code2wav.flow import MIN_GUIDANCE, draw_noise, plan
from thinktalk.code2wav.speaker import Voice
from thinktalk.code2wav.vocoding import StreamVocoder
from thinktalk.code2wav.windows import Cut, Windows, sample_windows
from thinktalk.config import Code2WavConfig
from thinktalk.errors import InputError
from thinktalk.messages import Codes
from thinktalk.stream import State, StreamModule, WindowedState, stack

__all__ = ["Speech", "SpeechState", "Windows"]


@dataclass
class SpeechState(State):
    """What a stream remembers: no more than a window, however long it speaks. Its rows are at the same window."""

    timbre: Timbre  # (B, D) each
    codes: Tensor  # (B, n) int64 on the CPU, from block `first` on
    noise: (
        Tensor  # (B, F, M) on the CPU, from block `first` on: drawn so far, or all that was given
    )
    generator: (
        Tensor | None
    )  # (B, bytes) uint8, where each row's noise goes on; None when it was given
    past: (
        Tensor | None
    )  # (B, C, H, F, D) what the look-back layers heard of the block before; None at the start
    sound: WindowedState  # the vocoder's
    first: int = 0  # oldest block that is kept
    window: int = 0  # windows run so far
    closed: bool = False  # no codes will follow
    done: bool = False  # all sound is out


class Speech(StreamModule):
    """Streams speech; made once, after the weights are in their place. Offline twin: model.Code2Wav."""

    def __init__(
        self, dit: DiT, vocoder: BigVGAN, config: Code2WavConfig, *, windows: Windows | None = None
    ):
        super().__init__()
        self.dit, self.config, self.windows = dit, config, windows or Windows()
        self.vocoder = StreamVocoder(vocoder, self.windows.vocoder_lookahead)
        self.ratio = Fraction(config.code_samples)
        # a code waits for the end of the largest window, of what that looks ahead at, and of the vocoder's view
        blocks = max(self.windows.groups) + self.windows.look_ahead_blocks
        wait = -(-self.vocoder.lookahead // config.dit.repeats)
        self.lookahead = blocks * config.dit.block_codes - 1 + wait
        flow = dict(points=self.windows.points, sway=self.windows.sway, method=self.windows.method)
        with torch.no_grad():
            walk = plan(
                dit, **flow, dtype=torch.promote_types(torch.float32, dit.input.weight.dtype)
            )
        # its tensors are buffers, so that they move with the module
        self._walk = replace(walk, modulation=Modulation((), walk.points))
        layers = torch.stack(walk.modulation.layers)
        self.register_buffer("layers", layers, persistent=False)  # (layers, times, 6, D)
        self.register_buffer("final", walk.modulation.final, persistent=False)  # (times, 2, D)

    @property
    def past_bytes(self) -> int:
        """Bytes of nearly all that a speaking stream keeps: what it remembers of its last block (14 MB officially)."""
        dit, windows = self.config.dit, self.windows
        if windows.look_back_blocks is not None:
            return 0
        evaluations = sum(len(stages) for stages in self._walk.stages)
        halves = 1 + (windows.guidance >= MIN_GUIDANCE)
        blocks = evaluations * len(dit.look_backward_layers) * halves
        return blocks * dit.block_frames * dit.width * self.dit.input.weight.element_size()

    # ----------------------------------------------------------------------------------------------------------- state

    @torch.inference_mode()
    def init_state(
        self,
        batch: int,
        *,
        device=None,
        dtype=None,
        allocator=None,
        voice: Voice | Timbre | Sequence[Voice | Timbre],
        seed: int | Sequence[int] = 0,
        noise: Tensor | None = None,
    ) -> SpeechState:
        """A fresh stream of `batch` rows, each with its voice (primed or not) and seed; memory lies where the weights are.

        The noise of mel frame f is row f of what the seed draws (the same as offline), or of `noise` (F, M) or (B, F, M).
        InputError for a voice or noise that does not fit.
        """
        voices = [voice] * batch if isinstance(voice, (Voice, Timbre)) else list(voice)
        seeds = [seed] * batch if isinstance(seed, int) else list(seed)
        assert len(voices) == len(seeds) == batch, f"{len(voices)} voices, {len(seeds)} seeds, {batch} rows"  # fmt: skip
        primed = {id(v): v if isinstance(v, Timbre) else self.dit.prime(v) for v in voices}
        bands, generator = self.config.dit.num_mels, None
        if noise is None:
            noise = torch.zeros(batch, 0, bands)
            generator = torch.stack([torch.Generator().manual_seed(s).get_state() for s in seeds])
        elif noise.ndim == 2:
            noise = noise.expand(batch, *noise.shape)
        if noise.ndim != 3 or (noise.shape[0], noise.shape[2]) != (batch, bands):
            raise InputError(f"noise: got shape {tuple(noise.shape)}, expected ({batch}, frames, {bands})")  # fmt: skip
        weight = self.vocoder.weight
        return SpeechState(
            timbre=stack([primed[id(v)] for v in voices]),
            codes=torch.zeros(batch, 0, dtype=torch.int64),
            noise=noise.cpu(),
            generator=generator,
            past=None,
            sound=self.vocoder.init_state(batch, device=weight.device, dtype=weight.dtype),
        )

    def collect(
        self, state: SpeechState, codes: Codes | Tensor | Sequence[int], *, last: bool = False
    ) -> None:
        """Note codes (B, n), or n codes of a single row; with `last` none will follow.

        InputError for a code that the model has no row for, or codes that outlast a given noise; the state is as before.
        """
        ids = codes.ids if isinstance(codes, Codes) else torch.as_tensor(codes, dtype=torch.int64)
        ids = (ids[None] if ids.ndim == 1 else ids).cpu()
        assert not state.closed or not ids.numel(), "codes after the last one"
        dit = self.config.dit
        if ids.numel():
            low, high = torch.aminmax(ids)
            if low < 0 or high > dit.num_codes:
                raise InputError(f"codes: got {int(low if low < 0 else high)}, expected 0 to {dit.num_codes}; suppress ids above that in the Talker")  # fmt: skip
            known = torch.cat([state.codes, ids], 1)
            if state.generator is None and known.shape[1] * dit.repeats > state.noise.shape[1]:
                given = state.first * dit.block_frames + state.noise.shape[1]
                raise InputError(f"noise: {given} frames, expected {dit.repeats} for each code; hand in more of it")  # fmt: skip
            state.codes = known
        if last:
            state.closed = True
            state.done = state.done or not self._received(state)

    def wants(self, state: SpeechState) -> int:
        """Codes that the next window still waits for; 0 when it can run, and after the last code."""
        _, stop = self.windows.computed(state.window)
        missing = stop * self.config.dit.block_codes - self._received(state)
        return 0 if state.closed else max(0, missing)

    def ready(self, state: SpeechState) -> bool:
        """Whether run() has a window, or the vocoder's last frames, to compute."""
        return not state.done and self.wants(state) == 0

    def _received(self, state: SpeechState) -> int:
        return state.first * self.config.dit.block_codes + state.codes.shape[1]

    # --------------------------------------------------------------------------------------------------------- running

    @torch.inference_mode()
    def run(self, states: Sequence[SpeechState]) -> list[Tensor]:
        """One window of each stream, all in one batch: waves (B, S), S >= 0, where the vocoder is.

        Every stream must be ready. What it says does not depend on its company.
        """
        cuts = [self._cut(state) for state in states]
        walk = replace(self._walk, modulation=Modulation(self.layers.unbind(0), self.final))
        remember = self.windows.look_back_blocks is None
        spoken = [cut for cut in cuts if cut.keep]
        made = iter(sample_windows(self.dit, spoken, walk, guidance=self.windows.guidance, remember=remember))  # fmt: skip
        silence = [(self.vocoder.empty_input(len(cut.codes)), None) for cut in cuts]
        mels, pasts = zip(*(next(made) if cut.keep else none for cut, none in zip(cuts, silence, strict=True)), strict=True)  # fmt: skip
        sounds = [state.sound for state in states]
        waves = self.vocoder.step_many(mels, sounds, [cut.last for cut in cuts])
        for state, cut, past in zip(states, cuts, pasts, strict=True):  # nothing can fail any more
            self._go_on(state, cut, past)
        return waves

    def step(
        self, x: Codes | Tensor | Sequence[int], state: SpeechState, *, last: bool = False
    ) -> Tensor:
        """The wave (B, S) that codes (B, n) complete."""
        self.collect(state, x, last=last)
        waves = [self.vocoder.weight.new_zeros(len(state.codes), 0)]
        while self.ready(state):
            waves += self.run([state])
        return torch.cat(waves, 1)

    def forward(self, x: Codes | Tensor, **start) -> Tensor:
        """The wave (B, 480 n) of codes (B, n), windowed as when streamed; `start` as init_state."""
        batch = x.batch if isinstance(x, Codes) else len(x)
        return self.step(x, self.init_state(batch, **start), last=True)

    def _cut(self, state: SpeechState) -> Cut:
        """The next window of a stream."""
        assert self.ready(state), "a stream was run that waits for codes"
        dit, received = self.config.dit, self._received(state)
        start, stop = self.windows.own(state.window)
        begin, end = self.windows.computed(state.window)
        offset = begin - state.first
        codes = state.codes[:, offset * dit.block_codes : (end - state.first) * dit.block_codes]
        frames, skip = codes.shape[1] * dit.repeats, (start - begin) * dit.block_frames
        self._draw(state, offset * dit.block_frames + frames)
        # the walk is never coarser than float32; in float64 the law is checked
        wide = torch.promote_types(state.noise.dtype, self.dit.input.weight.dtype)
        keep = max(0, min((stop - start) * dit.block_frames, frames - skip))
        # a window that waits for nothing may run before the end is known, so the vocoder's last frames always come apart
        apart = keep > 0 and self.windows.look_ahead_blocks == 0
        return Cut(
            timbre=state.timbre,
            codes=codes,
            noise=state.noise[:, offset * dit.block_frames :][:, :frames].to(wide),
            past=state.past,
            skip=skip,
            keep=keep,
            last=state.closed and received <= stop * dit.block_codes and not apart,
        )

    def _draw(self, state: SpeechState, frames: int) -> None:
        """Noise for so many frames from `first` on, block by block: a frame's noise never depends on where windows end."""
        size, bands = self.config.dit.block_frames, self.config.dit.num_mels
        missing = -(-(frames - state.noise.shape[1]) // size)
        if state.generator is None or missing <= 0:
            return
        drawn, after = [], []
        for row in state.generator:
            generator = torch.Generator()
            generator.set_state(row.clone())  # torch 2.13 crashes on a view with an offset
            parts = [draw_noise(size, bands, generator=generator) for _ in range(missing)]
            drawn.append(torch.cat(parts))
            after.append(generator.get_state())
        state.noise = torch.cat([state.noise, torch.stack(drawn)], 1)
        state.generator = torch.stack(after)

    def _go_on(self, state: SpeechState, cut: Cut, past: Tensor | None) -> None:
        """To the next window; what that does not look back at is dropped."""
        dit = self.config.dit
        state.window, state.done, state.past = state.window + 1, cut.last, past
        begin, _ = self.windows.computed(state.window)
        gone = min(begin, self._received(state) // dit.block_codes) - state.first
        state.first += gone
        state.codes = state.codes[:, gone * dit.block_codes :]
        state.noise = state.noise[:, gone * dit.block_frames :]
