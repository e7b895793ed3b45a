"""Speech: codes (B, n), a few at a time -> 24 kHz wave (B, 480 n) as soon as it can be: DiT by windows, then BigVGAN.

    collect   codes are noted in the state
    run       one window of each of several streams, in one batch: codes -> mel -> wave
    step      both, for one stream

The law: any chunking of the codes gives the same wave, since windows (windows.py) are cut by block index, each frame has its
own noise, and what a window sees is kept in the state. The distance to the whole-utterance run is in docs/streaming.md.

Letters: B rows, n codes, P blocks, F frames, M mel bands, D width, S samples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from thinktalk.code2wav.bigvgan import BigVGAN, receptive_field
from thinktalk.code2wav.dit import DiT, Modulation, Timbre
from thinktalk.code2wav.flow import Plan, draw_noise, plan, sample_many
from thinktalk.code2wav.speaker import Voice
from thinktalk.code2wav.windows import Windows
from thinktalk.config import Code2WavConfig
from thinktalk.errors import InputError
from thinktalk.messages import Codes
from thinktalk.stream import State, StreamModule, Windowed, WindowedState, stack, unstack

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
        self.vocoder = _Vocoder(vocoder, self.windows.vocoder_lookahead)
        self.ratio = Fraction(config.code_samples)
        self.lookahead = self._lookahead()
        with torch.no_grad():
            walk = plan(dit, points=self.windows.points, sway=self.windows.sway, method=self.windows.method)  # fmt: skip
        self._walk = replace(walk, modulation=Modulation((), walk.points))  # the tensors are below
        modulation = walk.modulation
        self.register_buffer("layers", torch.stack(modulation.layers), persistent=False)
        self.register_buffer("final", modulation.final, persistent=False)

    def _lookahead(self) -> int:
        """Codes after a code that its sound may wait for: to the end of the largest window and of the vocoder's view."""
        dit, windows = self.config.dit, self.windows
        blocks = max(windows.groups) + windows.look_ahead_blocks
        return blocks * dit.block_codes - 1 + -(-self.vocoder.lookahead // dit.repeats)

    # ------------------------------------------------------------------------------------------------------------ state

    @torch.inference_mode()
    def init_state(
        self,
        batch: int,
        *,
        device=None,
        dtype=None,
        allocator=None,
        voice: Voice | Sequence[Voice],
        seed: int | Sequence[int] = 0,
        noise: Tensor | None = None,
    ) -> SpeechState:
        """A fresh stream of `batch` rows, each with its voice and seed; memory lies where the weights are.

        The noise of mel frame f is row f of what the seed draws (the same as offline), or of `noise` (F, M) or (B, F, M).
        InputError for a voice or noise that does not fit.
        """
        voices = [voice] * batch if isinstance(voice, Voice) else list(voice)
        seeds = [seed] * batch if isinstance(seed, int) else list(seed)
        assert len(voices) == len(seeds) == batch, f"{len(voices)} voices, {len(seeds)} seeds, {batch} rows"  # fmt: skip
        primed = {id(v): self.dit.prime(v) for v in voices}
        timbre = stack([primed[id(v)] for v in voices])
        bands, generator = self.config.dit.num_mels, None
        if noise is None:
            noise = torch.zeros(batch, 0, bands)
            generator = torch.stack([torch.Generator().manual_seed(s).get_state() for s in seeds])
        elif noise.ndim == 2:
            noise = noise.expand(batch, *noise.shape)
        if noise.shape[0] != batch or noise.ndim != 3 or noise.shape[2] != bands:
            raise InputError(f"noise: got shape {tuple(noise.shape)}, expected ({batch}, frames, {bands})")  # fmt: skip
        return SpeechState(
            timbre=timbre,
            codes=torch.zeros(batch, 0, dtype=torch.int64),
            noise=noise.cpu(),
            generator=generator,
            sound=self.vocoder.fresh(batch),
        )

    # ------------------------------------------------------------------------------------------------------- what can run

    def ready(self, state: SpeechState) -> bool:
        """Whether run() has a window (or the last of the vocoder's frames) to compute."""
        return not state.done and (state.closed or self.wants(state) == 0)

    def wants(self, state: SpeechState) -> int:
        """Codes that the next window still waits for; 0 when it can run, and after the last code."""
        if state.closed:
            return 0
        _, stop = self.windows.computed(state.window)
        return max(0, stop * self.config.dit.block_codes - self._received(state))

    def _received(self, state: SpeechState) -> int:
        return state.first * self.config.dit.block_codes + state.codes.shape[1]

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
                raise InputError(f"codes: got {int(low if low < 0 else high)}, expected 0 to {dit.num_codes}")  # fmt: skip
            together = torch.cat([state.codes, ids], 1)
            if state.generator is None and together.shape[1] * dit.repeats > state.noise.shape[1]:
                raise InputError(f"noise: of {state.first * dit.block_frames + state.noise.shape[1]} frames, expected {dit.repeats} for each code")  # fmt: skip
            state.codes = together
        if last:
            state.closed = True
            state.done = state.done or not self._received(state)

    # -------------------------------------------------------------------------------------------------------------- running

    @torch.inference_mode()
    def run(self, states: Sequence[SpeechState]) -> list[Tensor]:
        """One window of each stream, all in one batch: waves (B, S), S >= 0; every stream must be ready.

        A stream's wave does not depend on its company.
        """
        jobs = [self._cut(state) for state in states]
        rows = [row for job in jobs for row in job.rows()]
        made = iter(
            sample_many(
                self.dit,
                [codes for codes, _, _ in rows],
                [timbre for _, _, timbre in rows],
                noise=[noise for _, noise, _ in rows],
                guidance=self.windows.guidance,
                walk=self._plan(),
            )
            if rows
            else ()
        )
        mels = []
        for state, job in zip(states, jobs, strict=True):
            own = [next(made)[:, job.skip : job.skip + job.keep] for _ in job.rows()]
            mels.append(torch.stack(own) if own else self.vocoder.empty_input(len(state.codes)))
        waves = self._vocode(states, mels, [job.last for job in jobs])
        for state, job in zip(states, jobs, strict=True):
            self._forget(state, job)
        return waves

    def step(
        self, x: Codes | Tensor | Sequence[int], state: SpeechState, *, last: bool = False
    ) -> Tensor:
        """The wave (B, S) that codes (B, n) complete."""
        self.collect(state, x, last=last)
        weight = self.vocoder.weight
        waves = [torch.zeros(len(state.codes), 0, dtype=weight.dtype, device=weight.device)]
        while self.ready(state):
            waves += self.run([state])
        return torch.cat(waves, 1)

    def forward(self, x: Codes | Tensor, **start) -> Tensor:
        """The wave (B, 480 n) of codes (B, n), windowed as when streamed; `start` as init_state."""
        batch = x.batch if isinstance(x, Codes) else len(x)
        return self.step(x, self.init_state(batch, **start), last=True)

    def _plan(self) -> Plan:
        return replace(self._walk, modulation=Modulation(self.layers.unbind(0), self.final))

    def _cut(self, state: SpeechState) -> _Job:
        """What the next window computes."""
        assert self.ready(state), "a stream was run that waits for codes"
        dit = self.config.dit
        start, stop = self.windows.own(state.window)
        begin, end = self.windows.computed(state.window)
        received = self._received(state)
        codes = min(end * dit.block_codes, received) - begin * dit.block_codes
        frames = codes * dit.repeats
        skip = (start - begin) * dit.block_frames
        keep = min((stop - start) * dit.block_frames, frames - skip)
        offset = (begin - state.first) * dit.block_frames
        self._draw(state, end - state.first)
        wide = torch.promote_types(state.noise.dtype, self.dit.input.weight.dtype)
        return _Job(
            timbre=state.timbre,
            codes=state.codes[:, offset // dit.repeats :][:, :codes],
            noise=state.noise[:, offset : offset + frames].to(wide),
            skip=skip,
            keep=max(0, keep),
            last=state.closed and received <= stop * dit.block_codes,
        )

    def _draw(self, state: SpeechState, blocks: int) -> None:
        """Noise for so many blocks from `first` on; whole blocks, so that a frame's noise never depends on a window."""
        size, bands = self.config.dit.block_frames, self.config.dit.num_mels
        missing = blocks - state.noise.shape[1] // size
        if state.generator is None or missing <= 0:
            return
        drawn, after = [], []
        for row in state.generator:
            generator = torch.Generator()
            generator.set_state(row.clone())  # torch reads past the offset of a view and crashes
            parts = [draw_noise(size, bands, generator=generator) for _ in range(missing)]
            drawn.append(torch.cat(parts))
            after.append(generator.get_state())
        state.noise = torch.cat([state.noise, torch.stack(drawn)], 1)
        state.generator = torch.stack(after)

    def _vocode(
        self, states: Sequence[SpeechState], mels: Sequence[Tensor], lasts: Sequence[bool]
    ) -> list[Tensor]:
        """Waves of the next mels of several streams; those of the same shape go together."""
        weight = self.vocoder.weight
        alike = defaultdict(list)
        for i, (state, mel, last) in enumerate(zip(states, mels, lasts, strict=True)):
            sound = state.sound
            alike[sound.context.shape[2], sound.pending.shape[2], mel.shape[2], last].append(i)
        waves: list[Tensor] = [torch.empty(0)] * len(states)
        for (*_, last), members in alike.items():
            mel = torch.cat([mels[i] for i in members]).to(weight.device, weight.dtype)
            together = stack([states[i].sound for i in members])
            rows = self.vocoder.step(mel, together, last=last).split([len(mels[i]) for i in members])  # fmt: skip
            parted = unstack(together)
            for i, wave in zip(members, rows, strict=True):
                own, parted = parted[: len(wave)], parted[len(wave) :]
                states[i].sound, waves[i] = stack(own), wave
        return waves

    def _forget(self, state: SpeechState, job: _Job) -> None:
        """Go on to the next window and drop what it does not look back at."""
        dit = self.config.dit
        state.window += 1
        state.done = job.last
        begin, _ = self.windows.computed(state.window)
        blocks = min(begin, self._received(state) // dit.block_codes) - state.first
        state.first += blocks
        state.codes = state.codes[:, blocks * dit.block_codes :]
        state.noise = state.noise[:, blocks * dit.block_frames :]


@dataclass
class _Job:
    """One window of one stream."""

    timbre: Timbre
    codes: Tensor  # (B, n)
    noise: Tensor  # (B, F, M)
    skip: int  # frames of the look-back
    keep: int  # own frames; none when only the vocoder's last frames are left
    last: bool

    def rows(self) -> list[tuple[Tensor, Tensor, Timbre]]:
        if not self.keep:
            return []
        return list(zip(self.codes, self.noise, unstack(self.timbre), strict=True))


class _Vocoder(Windowed):
    """BigVGAN that waits for as many frames as we say; exact only where its whole field is given."""

    time_dim, out_time_dim = 2, 1

    def __init__(self, vocoder: BigVGAN, lookahead: int | None):
        super().__init__()
        self.bigvgan = vocoder
        self.ratio, self.left = vocoder.ratio, vocoder.left
        if lookahead is None:
            lookahead = receptive_field(vocoder.config, snake_reach=0)[1]
        self.lookahead = min(lookahead, vocoder.lookahead)

    @property
    def weight(self) -> Tensor:
        """A weight: where, and in which precision, the vocoder computes."""
        return self.bigvgan.conv_post.weight

    def fresh(self, batch: int) -> WindowedState:
        return self.init_state(batch, device=self.weight.device, dtype=self.weight.dtype)

    def compute(self, window: Tensor) -> Tensor:
        return self.bigvgan.compute(window)

    def empty_input(self, batch: int, *, device=None, dtype=None) -> Tensor:
        return self.bigvgan.empty_input(batch, device=device, dtype=dtype)

    def empty_output(self, x: Tensor) -> Tensor:
        return self.bigvgan.empty_output(x)
