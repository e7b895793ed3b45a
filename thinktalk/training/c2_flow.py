"""c2: codes to mel by flow matching. Utterances of codes and their mels -> loss of the DiT and its speaker encoder.

    x_t = (1 - t) noise + t mel        v(x_t, t | codes, voice) -> mel - noise        Lipman 2023, eq. 22 with sigma_min 0

    t          logit-normal an utterance (Esser 2024), and t = 0 for a share of them: there the best answer is the mean of
               all mels that fit the codes, a regression, which is learnt first and from which every walk starts
    guidance   a share is trained as the free half of sampling hears it: null code, silent reference, nobody's voice
    voice      a sample of the same speaker, or a piece of the utterance itself, which is then not asked for
    blocks     a share is heard as a stream: some borders between blocks hide what comes after, of some also what was before
    draft      in the beginning the lower layers are also asked what the mel is, without noise, by a head of their own (L1):
               at little compute a regression learns codes and their neighbours many times sooner than the flow does; its
               weight falls to 0 and it is never shipped

So one model makes whole sentences and streams them (code2wav/windows.py). The EMA is the loop's (optim.ema).

Letters: B utterances, n codes, P blocks, F frames a block, M mel bands, T frames of a reference, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor, nn

from thinktalk.code2wav.blocks import Blocks
from thinktalk.code2wav.dit import Condition, DiT, Timbre
from thinktalk.code2wav.flow import sample_many
from thinktalk.layers.linear import Linear
from thinktalk.training.shown import Shown, spectrogram
from thinktalk.training.stage import Stage
from thinktalk.wav2code.encoder import SpeechTokenizer

SHOWN_BLOCKS = 12  # of a mel that is looked at: 2.9 s at 240 ms a block

__all__ = ["Draft", "Draw", "FlowConfig", "FlowModules", "FlowStage", "Utterances", "begin", "hide"]


@dataclass(frozen=True)
class Utterances:
    """Codes and what they sounded like."""

    codes: Sequence[Tensor]
    """(n,) each."""
    mels: Sequence[Tensor]
    """(M, repeats x n) natural-log mel of each (layers/mel.py speech_mel)."""
    references: Sequence[Tensor] | None = None
    """(M, T) mel of another sample of each speaker; None: a piece of the utterance itself."""
    voices: Tensor | None = None
    """(B, speaker_width) `cond` of each voice; None: zeros."""


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """How examples are drawn."""

    start_share: float = 0.1
    """Utterances at t = 0."""
    free_share: float = 0.15
    """Utterances without codes and voice, for guidance."""
    stream_share: float = 0.5
    """Utterances with hidden borders."""
    forget_share: float = 0.2
    """Of those, the ones whose borders hide the past too."""
    reference_frames: tuple[int, int] = (100, 300)
    """Shortest and longest sample of a voice."""
    draft_until: float = 0.3
    """Share of the run over which the draft's weight falls from 1 to 0; 0: no draft."""


@dataclass(frozen=True)
class Draw:
    """All that chance decides for a batch, on the CPU."""

    times: Tensor  # (B,)
    noise: list[Tensor]  # (repeats x n, M) each
    free: Tensor  # (B,) bool
    samples: list[
        tuple[int, int]
    ]  # first frame and frames of each voice's sample; 0 frames: unknown voice
    no_after: Tensor  # (P,) bool: this block hears nothing of the next
    no_before: Tensor  # (P,) bool: nothing of the one before


class Draft(nn.Module):
    """A first mel (P, F, M) from what the DiT's lower layers make of codes and voice alone, without noise, at t = 0.

    As many layers as it takes to have heard the next block.
    """

    def __init__(self, dit: DiT):
        super().__init__()
        config = dit.config
        self.num_layers = 1 + min(config.look_ahead_layers, default=config.num_layers // 2)
        self.norm = nn.LayerNorm(config.width)
        self.out = Linear(config.width, config.num_mels)

    def forward(self, dit: DiT, condition: Condition) -> Tensor:
        x_PFD = condition.constant
        tables = dit.modulate(x_PFD.new_zeros(1, dtype=torch.float32)).at(0).layers
        for layer, table in zip(dit.layers[: self.num_layers], tables, strict=False):
            x_PFD = layer(x_PFD, table, condition.blocks)
        return self.out(self.norm(x_PFD))


class FlowModules(nn.Module):
    """The DiT, and the draft that helps it begin."""

    def __init__(self, dit: DiT, *, draft: bool = False):
        super().__init__()
        self.dit = dit
        self.draft = Draft(dit) if draft else None


class FlowStage(Stage):
    """Batches are Utterances; the DiT with its speaker encoder learns."""

    def __init__(self, dit: DiT, config: FlowConfig | None = None):
        self.config = config or FlowConfig()
        self.modules: FlowModules = FlowModules(dit, draft=self.config.draft_until > 0)

    def parts(self) -> Mapping[str, nn.Module]:
        """The DiT."""
        return {"dit": self.modules.dit}

    def weight(self, batch: Utterances) -> float:
        """Codes."""
        return float(sum(len(codes) for codes in batch.codes))

    def loss(
        self, batch: Utterances, *, generator: torch.Generator, **turn: str
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Mean squared error of the velocity over the frames that are asked for, and the draft's distance while it counts.

        `start` is the error of t = 0 alone.
        """
        return self.loss_of(batch, self.draw(batch, generator))

    def loss_of(
        self, batch: Utterances, draw: Draw, *, heard: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The loss once chance has decided. `heard` (n, code_width) each stands where the codes' own embeddings would."""
        dit, device = self.modules.dit, self.modules.dit.input.weight.device
        codes = [c * (not free) for c, free in zip(batch.codes, draw.free, strict=True)]
        timbres = self._timbres(batch, draw)
        condition = dit.condition(codes, timbres, guided=False)
        blocks = hide(condition.blocks, no_after=draw.no_after, no_before=draw.no_before)
        condition = replace(condition, blocks=blocks)
        if heard is not None:
            swaps = [(h - dit.codes(c.to(device))).repeat_interleave(dit.config.repeats, 0) for h, c in zip(heard, codes, strict=True)]  # fmt: skip
            swapped = condition.constant + dit.input.coded(blocks.pack(swaps))
            condition = replace(condition, constant=swapped)
        mels = [mel.T.to(device, torch.float32)[:n] for mel, n in zip(batch.mels, blocks.frames, strict=True)]  # fmt: skip
        target_PFM = blocks.pack(mels)
        noise_PFM = blocks.pack([noise.to(device) for noise in draw.noise])
        asked_PF = blocks.pack([asked.to(device) for asked in self._asked(batch, draw, blocks)])
        counts = torch.tensor([-(-n // blocks.size) for n in blocks.frames])
        row_P = torch.arange(len(counts)).repeat_interleave(counts).to(device)
        time_B = draw.times.to(device, torch.float32)
        t_P11 = time_B[row_P][:, None, None]
        x_PFM = (1 - t_P11) * noise_PFM + t_P11 * target_PFM
        velocity_PFM = dit(x_PFM, dit.modulate(time_B).at(row_P), condition).float()
        error_PF = (velocity_PFM - (target_PFM - noise_PFM)).square().mean(2)
        loss = _mean(error_PF, asked_PF)
        start = asked_PF * (time_B[row_P] == 0)[:, None]
        metrics: dict[str, Tensor | float] = {"flow": loss.detach()}
        if bool((draw.times == 0).any()):
            metrics["start"] = _mean(error_PF, start).detach()
        if self.modules.draft is not None and self.progress < self.config.draft_until:
            guess_PFM = self.modules.draft(dit, condition).float()
            said_PF = asked_PF * ~draw.free.to(device)[row_P][:, None]
            gap = _mean((guess_PFM - target_PFM).abs().mean(2), said_PF)
            loss = loss + (1 - self.progress / self.config.draft_until) * gap
            metrics["draft"] = gap.detach()
        return loss, metrics

    def show(self, batch: Utterances, *, generator: torch.Generator) -> Shown:
        """The mel of the beginning of the batch's first utterance: as it was, and below as it is spoken now."""
        dit = self.modules.dit
        codes = batch.codes[0][: SHOWN_BLOCKS * dit.config.block_codes]
        one = replace(
            batch, codes=[codes], mels=batch.mels[:1], references=batch.references and batch.references[:1],
            voices=None if batch.voices is None else batch.voices[:1],
        )  # fmt: skip
        draw = replace(self.draw(one, generator), free=torch.zeros(1, dtype=torch.bool))
        said = self._timbres(one, draw)[0].said
        codes = codes.to(said.device)
        noise = draw.noise[0]
        (mel,) = sample_many(dit, [codes], [Timbre(said=said, free=said)], noise=[noise], guidance=0.0, points=8, method="midpoint")  # fmt: skip
        return {"mel": spectrogram(batch.mels[0][:, : mel.shape[1]], mel)}

    # ----------------------------------------------------------------------------------------------------------- chance

    def draw(self, batch: Utterances, generator: torch.Generator) -> Draw:
        """What is to be learnt from this batch this time; a function of the generator's state alone."""
        config, dit = self.config, self.modules.dit.config
        frames = [len(codes) * dit.repeats for codes in batch.codes]
        counts = [-(-n // dit.block_frames) for n in frames]
        B, P = len(frames), sum(counts)

        def uniform(size: int) -> Tensor:
            return torch.rand(size, generator=generator, device=generator.device).cpu()

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=generator.device)

        times = torch.sigmoid(normal(B).cpu())
        times[uniform(B) < config.start_share] = 0
        free = uniform(B) < config.free_share
        known = batch.references or batch.mels
        shortest, longest = config.reference_frames
        length = shortest + int(uniform(1) * (longest - shortest + 1))
        samples = [self._sample(mel.shape[1], length, float(u), batch) for mel, u in zip(known, uniform(B), strict=True)]  # fmt: skip
        # each stream has its own density of borders, from none to one after every block
        density_B = uniform(B) * (uniform(B) < config.stream_share)
        forgets_B = uniform(B) < config.forget_share
        row_P = torch.arange(B).repeat_interleave(torch.tensor(counts))
        border_P = uniform(P) < density_B[row_P]
        return Draw(
            times=times,
            noise=[normal(n, dit.num_mels) for n in frames],
            free=free,
            samples=samples,
            no_after=border_P,
            no_before=(border_P & forgets_B[row_P]).roll(1),
        )

    def _sample(self, frames: int, length: int, u: float, batch: Utterances) -> tuple[int, int]:
        """Where the sample of a voice is taken: at most half of the utterance itself, so that something is left to ask."""
        length = min(length, frames if batch.references is not None else frames // 2)
        if length < self.modules.dit.speaker.min_frames:
            return 0, 0
        return int(u * (frames - length + 1)), length

    # ----------------------------------------------------------------------------------------------------------- voices

    def _timbres(self, batch: Utterances, draw: Draw) -> list[Timbre]:
        """Who speaks each utterance, (1, D) rows; samples of one length are heard together."""
        dit = self.modules.dit
        like = dict(dtype=dit.input.weight.dtype, device=dit.input.weight.device)
        known = batch.references or batch.mels
        nobody = torch.zeros(dit.config.speaker_width, **like)
        silence = torch.zeros(dit.speaker.min_frames, dit.config.num_mels, **like)
        heard: list[Tensor] = []
        voices: list[Tensor] = []
        for i, (start, length) in enumerate(draw.samples):
            free = bool(draw.free[i])
            sample = known[i][:, start : start + length].T.to(**like)
            heard.append(silence if free or not length else sample)
            voices.append(nobody if free or batch.voices is None else batch.voices[i].to(**like))
        order = sorted(range(len(heard)), key=lambda i: len(heard[i]))
        rows: list[Tensor] = [nobody] * len(heard)
        for _, same in groupby(order, key=lambda i: len(heard[i])):
            group = list(same)
            for i, speaker in zip(group, dit.speaker(torch.stack([heard[i] for i in group])), strict=True):  # fmt: skip
                rows[i] = speaker
        said_BD = dit.input.voiced(torch.stack(rows), torch.stack(voices))
        return [Timbre(said=said_1D, free=said_1D) for said_1D in said_BD.split(1)]

    def _asked(self, batch: Utterances, draw: Draw, blocks: Blocks) -> list[Tensor]:
        """1 for each frame that is asked for, 0 for one shown as the voice's sample."""
        asked = [torch.ones(n) for n in blocks.frames]
        if batch.references is None:
            for row, (start, length), free in zip(asked, draw.samples, draw.free, strict=True):
                row[start : start + length] *= bool(free)
        return asked


def _mean(error_PF: Tensor, asked_PF: Tensor) -> Tensor:
    return (error_PF * asked_PF).sum() / asked_PF.sum().clamp(min=1)


@torch.no_grad()
def begin(
    modules: FlowModules,
    *,
    tokenizer: SpeechTokenizer | None = None,
    mean_mel: Tensor | None = None,
) -> None:
    """How a flow is begun: every layer as nothing (AdaLN-zero, Peebles & Xie 2023), what comes out as the mean mel (M,) of
    speech, and codes that are near each other on the tokenizer's grid alike; drawn from torch's own generator.
    """
    dit = modules.dit
    for zero in (*(layer.modulation for layer in dit.layers), dit.modulation, dit.output):
        nn.init.zeros_(zero.weight)
        nn.init.zeros_(zero.bias)
    if mean_mel is not None:
        # log-mels lie around -6: bands would wait thousands of steps for a bias to walk there
        for out in (dit.output, *([modules.draft.out] if modules.draft is not None else [])):
            out.bias.copy_(mean_mel)
    if tokenizer is None or tokenizer.fsq is None:
        return
    first, count = tokenizer.config.first_code, tokenizer.config.num_codes
    grid = tokenizer.fsq.grid(torch.arange(count))
    shared = grid / grid.std(0) @ torch.randn(grid.shape[1], dit.config.code_width) / grid.shape[1] ** 0.5  # fmt: skip
    own = dit.codes.weight[first : first + count]
    own.add_(shared).mul_(0.5**0.5)  # half its neighbours', half its own, as large as before


def hide(blocks: Blocks, *, no_after: Tensor, no_before: Tensor) -> Blocks:
    """The same layout where block n of P hears nothing of the next if no_after[n], of the one before if no_before[n]."""
    F, device = blocks.size, blocks.back.device
    after = ~no_after.to(device)[:, None, None, None]
    before = ~no_before.to(device)[:, None, None, None]
    whole = torch.ones_like(blocks.ahead[..., :F])
    return replace(
        blocks,
        back=blocks.back & torch.cat([before & whole, whole], -1),
        ahead=blocks.ahead & torch.cat([whole, after & whole], -1),
        around=blocks.around & torch.cat([before & whole, whole, after & whole], -1),
    )
