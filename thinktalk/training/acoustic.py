"""Codes of sentences nobody spoke: phones -> how long each lasts -> codes, learnt from speech whose phones are timed.

    symbols (n + 2,), voice, speed  --DurationPredictor-->  frames of each
    phones in time, voice           --AcousticModel----->  codes, one after the other

A Talker must find out for itself which word is due, and how words are pronounced; of five hours of speech it learns the
sentences by heart. A model that is told which phone is due when needs minutes to speak clearly. What it says of tens of
thousands of sentences is what the Talker learns from then: distillation, as FastSpeech's (Ren 2019; Kim and Rush 2016).
The report has no such stage; neither model is shipped.

Letters: B rows, L symbols, T codes, Q parts of a code (100 a second), D width, V codes there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from thinktalk.data.samples import FRAME_SECONDS, Sample
from thinktalk.data.speech import PHONES, STRESS, frame_labels, stress_labels
from thinktalk.errors import InputError, WeightsError
from thinktalk.training.beside import found, save
from thinktalk.training.losses import IGNORE
from thinktalk.training.stage import Metrics, Stage

__all__ = ["FILE", "Acoustic", "AcousticConfig", "AcousticStage", "Timed", "Utterance", "collate", "timed"]  # fmt: skip

FILE = "acoustic.safetensors"
QUARTERS = 4
"""Looks at the phones a code: some are shorter than one."""
LONGEST = 64
"""Frames of 25 ms that one phone may last; a longer one counts as this."""
SYMBOLS = (*PHONES.symbols, *STRESS, *' .,!?;:—…()"“”')
"""What durations are told of: phones, stress, the gaps between words, punctuation."""
OTHER, EDGE = 0, len(SYMBOLS) + 1
"""A symbol that is not known; silence before and after."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AcousticConfig:
    """Sizes; the defaults have 9.5 M parameters."""

    voices: tuple[str, ...]
    num_codes: int
    """Codes there are, from 0; one more begins each sentence."""
    codes_per_second: float
    width: int = 320
    embedding: int = 64
    layers: int = 4
    """Convolutions over five codes, or five symbols."""
    memory: int = 448
    """Width of the two LSTM layers that remember the codes so far."""
    timing_width: int = 192
    dropout: float = 0.2


@dataclass(frozen=True, slots=True)
class Utterance:
    """What is to be said, by whom, and when."""

    voice: str
    speed: float
    phones: Sequence[str]
    """Phones and marks, one symbol each."""
    durations: Sequence[int] | None = None
    """Frames of 25 ms: silence before, one a symbol, silence after; None to have them predicted."""


@dataclass(frozen=True, slots=True)
class Timed:
    """A batch, padded at the right."""

    voices: Tensor  # (B,) int64
    speeds: Tensor  # (B,)
    symbols: Tensor  # (B, L) int64, edges included
    durations: Tensor  # (B, L) int64, IGNORE behind the last
    phones: Tensor  # (B, T, Q) int64
    stress: Tensor  # (B, T, Q) int64
    codes: Tensor  # (B, T) int64, IGNORE behind the last


class _Convolutions(nn.Module):
    """Gated convolutions with a way round each: (B, T, D) -> (B, T, D); what stands outside of `there` (B, T) is not heard."""

    def __init__(self, width: int, layers: int, dropout: float):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(width, 2 * width, 5, padding=2) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, there_BT: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            given_BTD = norm(x_BTD) * there_BT[..., None]
            heard_BTD = F.glu(conv(given_BTD.transpose(1, 2)), 1).transpose(1, 2)
            x_BTD = x_BTD + self.dropout(heard_BTD)
        return x_BTD


class DurationPredictor(nn.Module):
    """Symbols (B, L), voices (B,), speeds (B,) -> logits of 0 to LONGEST - 1 frames (B, L, LONGEST)."""

    def __init__(self, config: AcousticConfig):
        super().__init__()
        width = config.timing_width
        self.symbols = nn.Embedding(EDGE + 1, width)
        self.voices = nn.Embedding(len(config.voices), width)
        self.speed = nn.Linear(1, width)
        self.layers = _Convolutions(width, config.layers + 1, config.dropout)
        self.out = nn.Linear(width, LONGEST)

    def forward(
        self, symbols_BL: Tensor, voices_B: Tensor, speeds_B: Tensor, there_BL: Tensor
    ) -> Tensor:
        told_BD = self.voices(voices_B) + self.speed(5 * speeds_B.log()[:, None])
        return self.out(self.layers(self.symbols(symbols_BL) + told_BD[:, None], there_BL))


class AcousticModel(nn.Module):
    """Phones in time (B, T, Q) and voices (B,) -> logits of each next code (B, T, V)."""

    def __init__(self, config: AcousticConfig):
        super().__init__()
        width, small = config.width, config.embedding
        self.num_codes = config.num_codes
        self.phones = nn.Embedding(len(PHONES) + 1, small)
        self.stress = nn.Embedding(len(STRESS) + 1, small)
        self.voices = nn.Embedding(len(config.voices), width)
        self.enter = nn.Linear(QUARTERS * small, width)
        self.layers = _Convolutions(width, config.layers, config.dropout)
        self.codes = nn.Embedding(config.num_codes + 1, width)
        self.memory = nn.LSTM(2 * width, config.memory, 2, batch_first=True, dropout=config.dropout)  # fmt: skip
        self.out = nn.Linear(config.memory + width, config.num_codes)
        self.dropout = nn.Dropout(config.dropout)

    def context(
        self, phones_BTQ: Tensor, stress_BTQ: Tensor, voices_B: Tensor, there_BT: Tensor
    ) -> Tensor:
        """What is said around each code (B, T, D)."""
        small_BTQE = self.phones(phones_BTQ) + self.stress(stress_BTQ)
        said_BTD = self.enter(small_BTQE.flatten(2)) + self.voices(voices_B)[:, None]
        return self.layers(said_BTD, there_BT)

    def forward(self, context_BTD: Tensor, before_BT: Tensor) -> Tensor:
        """All codes at once, after those `before` each."""
        return self.step(context_BTD, before_BT, None)[0]

    def step(
        self, context_BTD: Tensor, before_BT: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The next codes' logits, and what is remembered."""
        heard_BTD = self.dropout(torch.cat((context_BTD, self.codes(before_BT)), -1))
        hidden_BTM, state = self.memory(heard_BTD, state)
        return self.out(self.dropout(torch.cat((hidden_BTM, context_BTD), -1))), state


class Acoustic(nn.Module):
    """Both. `AcousticStage` trains it, `load` reads it, `speak` makes codes."""

    def __init__(self, config: AcousticConfig):
        super().__init__()
        self.config = config
        self.timing = DurationPredictor(config)
        self.voicing = AcousticModel(config)

    @torch.no_grad()
    def speak(
        self,
        utterances: Sequence[Utterance],
        *,
        temperature: float = 0.8,
        top_p: float = 0.8,
        generator: torch.Generator | None = None,
    ) -> list[tuple[list[int], list[int]]]:
        """(durations, codes) of each; drawn, from the likeliest codes that together have `top_p`.

        Errors: InputError (a voice that was not learnt).
        """
        known = {name: n for n, name in enumerate(self.config.voices)}
        if unknown := sorted({u.voice for u in utterances} - set(known)):
            raise InputError(f"voice {unknown[0]!r}: is none that was learnt, expected one of {', '.join(known)}")  # fmt: skip
        home = self.voicing.out.weight.device
        voices = torch.tensor([known[u.voice] for u in utterances], device=home)
        lasting = self._lasting(utterances, voices, temperature, generator)
        looks = [_looks(u.phones, d, self.config) for u, d in zip(utterances, lasting, strict=True)]
        phones = pad_sequence([p for p, _ in looks], batch_first=True).to(home)
        stress = pad_sequence([s for _, s in looks], batch_first=True).to(home)
        context = self.voicing.context(phones, stress, voices, _there([len(p) for p, _ in looks], home))  # fmt: skip
        before = torch.full((len(utterances), 1), self.config.num_codes, device=home)
        state, said = None, []
        for t in range(context.shape[1]):
            logits, state = self.voicing.step(context[:, t : t + 1], before, state)
            before = _draw(logits[:, 0], temperature, top_p, generator)
            said.append(before)
        codes = torch.cat(said, 1).tolist() if said else [[] for _ in utterances]
        return [(d, c[: len(p)]) for d, c, (p, _) in zip(lasting, codes, looks, strict=True)]

    def _lasting(
        self, utterances: Sequence[Utterance], voices: Tensor, temperature: float, generator: torch.Generator | None
    ) -> list[list[int]]:  # fmt: skip
        """Durations as they are given, or drawn."""
        if all(u.durations is not None for u in utterances):
            return [list(u.durations or ()) for u in utterances]
        symbols = [_symbols(u.phones) for u in utterances]
        speeds = torch.tensor([u.speed for u in utterances], device=voices.device)
        padded = pad_sequence(symbols, batch_first=True, padding_value=EDGE).to(voices.device)
        logits = self.timing(padded, voices, speeds, _there([len(s) for s in symbols], voices.device))  # fmt: skip
        drawn = _draw(logits.flatten(0, 1), temperature, 1.0, generator).view(padded.shape)
        return [
            list(u.durations) if u.durations is not None else row[: len(s)].tolist()
            for u, s, row in zip(utterances, symbols, drawn, strict=True)
        ]

    # ------------------------------------------------------------------------------------------------------------ files

    def save(self, path: str | Path, *, codes_by: str) -> None:
        """Write one file, whole or not at all; `codes_by` is the fingerprint of the tokenizer (data/coding.py)."""
        save(self, path, "acoustic", {**dataclasses.asdict(self.config), "codes_by": codes_by})

    @classmethod
    def load(cls, path: str | Path) -> tuple[Self, str]:
        """What is in `<run of k0_acoustic>/acoustic.safetensors` (the file, or its folder), and whose codes it says.

        Errors: WeightsError if it is none.
        """
        held = found(path, FILE, by="k0_acoustic")
        try:
            about = held.about("acoustic")
            codes_by = str(about.pop("codes_by"))
            with torch.device("meta"):
                model = cls(AcousticConfig(**{**about, "voices": tuple(about["voices"])}))
            model.load_state_dict(held.weights(model.state_dict()), assign=True)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(f"{held.path}: is no acoustic model ({' '.join(str(error).split())[:120]}), expected what a run of k0_acoustic leaves; train it again") from None  # fmt: skip
        return model.eval().requires_grad_(False), codes_by


# ------------------------------------------------------------------------------------------------------------- batches


def _symbols(phones: Sequence[str]) -> Tensor:
    """(n + 2,) with silence at both ends."""
    known = {symbol: n for n, symbol in enumerate(SYMBOLS, 1)}
    return torch.tensor([EDGE, *(known.get(p, OTHER) for p in phones), EDGE])


def _looks(
    phones: Sequence[str], durations: Sequence[int], config: AcousticConfig, *, count: int | None = None
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The phone and the stress (T, Q) at the middle of each part of each code; 0 is silence, and a phone that is not known."""
    record = {"phones": list(phones), "durations": list(durations)}
    sample = Sample(where="", record=record)
    if count is None:
        count = int(sum(durations) * FRAME_SECONDS * config.codes_per_second + 1e-6)
    known = dict(frames=count * QUARTERS, rate=QUARTERS * config.codes_per_second)
    phones_N, stress_N = frame_labels(sample, PHONES, **known), stress_labels(sample, **known)
    phones_N, stress_N = phones_N.clamp(min=0), stress_N.clamp(min=0)
    return phones_N.view(count, QUARTERS), stress_N.view(count, QUARTERS)


def _there(lengths: Sequence[int], device: torch.device) -> Tensor:
    """(B, longest) bool: what is no padding."""
    at = torch.arange(max(lengths), device=device)
    return at < torch.tensor(lengths, device=device)[:, None]


def _draw(
    logits_BV: Tensor, temperature: float, top_p: float, generator: torch.Generator | None
) -> Tensor:
    """(B, 1) drawn from the likeliest that together have `top_p`; temperature 0 takes the likeliest."""
    if temperature == 0:
        return logits_BV.argmax(-1, keepdim=True)
    shares, order = (logits_BV / temperature).softmax(-1).sort(-1, descending=True)
    shares = shares * (shares.cumsum(-1) - shares < top_p)
    return order.gather(1, torch.multinomial(shares, 1, generator=generator))


_Item = tuple[int, float, Tensor, Tensor, Tensor, Tensor, Tensor]


def timed(
    sample: Sample, generator: torch.Generator, *, config: AcousticConfig, codes_by: str | None
) -> _Item:
    """A recording with phones, durations and codes, as numbers.

    Errors: InputError (a field is missing, a voice is not among `config.voices`, codes of another tokenizer).
    """
    codes, durations = sample.codes, sample.durations
    if codes is None or len(durations) != len(sample.phones) + 2 or sample.frame_seconds != FRAME_SECONDS:  # fmt: skip
        raise InputError(f"{sample.where}: expected codes, phones and durations in frames of 25 ms; make them with: thinktalk data make and data codes")  # fmt: skip
    told = sample.record.get("codes_by")
    if codes_by is not None and told is not None and told != codes_by:
        raise InputError(f"{sample.where}: has codes of the tokenizer {told}, expected {codes_by}; make them anew with: thinktalk data codes")  # fmt: skip
    if sample.voice not in config.voices:
        raise InputError(f"{sample.where}: voice {sample.voice!r} is none of {', '.join(config.voices)}; leave it out")  # fmt: skip
    phones, stress = _looks(sample.phones, durations.tolist(), config, count=len(codes))
    lasting = torch.from_numpy(durations).clamp(0, LONGEST - 1)
    speed = float(sample.record.get("speed", 1.0))
    return config.voices.index(sample.voice), speed, _symbols(sample.phones), lasting, phones, stress, torch.from_numpy(codes).long()  # fmt: skip


def collate(items: Sequence[_Item]) -> Timed:
    """Of several recordings."""
    voices, speeds, symbols, durations, phones, stress, codes = zip(*items, strict=True)
    return Timed(
        voices=torch.tensor(voices), speeds=torch.tensor(speeds),
        symbols=pad_sequence(symbols, batch_first=True, padding_value=EDGE),
        durations=pad_sequence(durations, batch_first=True, padding_value=IGNORE),
        phones=pad_sequence(phones, batch_first=True), stress=pad_sequence(stress, batch_first=True),
        codes=pad_sequence(codes, batch_first=True, padding_value=IGNORE),
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- stage


class AcousticStage(Stage):
    """Batches are Timed."""

    def __init__(self, model: Acoustic, *, misheard: float = 0.2, smoothing: float = 0.02):
        """`misheard`: share of the codes so far that are heard wrong; `smoothing` of the codes' targets."""
        self.modules = self.model = model
        self.misheard, self.smoothing = misheard, smoothing

    def weight(self, batch: Timed) -> float:
        """Codes."""
        return float((batch.codes != IGNORE).sum())

    def loss(
        self, batch: Timed, *, generator: torch.Generator, **turn: str
    ) -> tuple[Tensor, Metrics]:
        """Cross-entropy of codes and of durations; `right`: codes guessed, `off`: frames that durations are wrong by."""
        model, home = self.model, self.model.voicing.out.weight.device
        codes, voices, durations = (x.to(home) for x in (batch.codes, batch.voices, batch.durations))  # fmt: skip
        said, known = codes != IGNORE, durations != IGNORE
        context = model.voicing.context(batch.phones.to(home), batch.stress.to(home), voices, said)
        logits = model.voicing(context, self._before(codes, generator))
        loss = F.cross_entropy(logits[said].float(), codes[said], label_smoothing=self.smoothing)
        timing = model.timing(batch.symbols.to(home), voices, batch.speeds.to(home), known)
        lasting = F.cross_entropy(timing[known].float(), durations[known])
        with torch.no_grad():
            plain = F.cross_entropy(logits[said].float(), codes[said])
            right = (logits[said].argmax(-1) == codes[said]).float().mean()
            off = (timing[known].argmax(-1) - durations[known]).abs().float().mean()
        return loss + lasting, {"codes": plain, "right": right, "durations": lasting.detach(), "off": off}  # fmt: skip

    def _before(self, codes_BT: Tensor, generator: torch.Generator) -> Tensor:
        """What is heard before each code: the last one, now and then another."""
        first = self.model.config.num_codes
        before = F.pad(codes_BT[:, :-1].clamp(min=0), (1, 0), value=first)
        if not self.model.training or not self.misheard:
            return before
        wrong = torch.rand(before.shape, generator=generator) < self.misheard
        others = torch.randint(first, before.shape, generator=generator)
        return torch.where(wrong.to(before.device), others.to(before.device), before)
