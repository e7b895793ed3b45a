"""c1: the speech tokenizer learns to hear. Log-mels with what was said -> loss of the encoder and its quantiser.

    mel -> tokenizer -> code embedding --+-- x pool: 50/s -> layers -> CTC over what was said      (content)
       \\                                 |                          -> the phone of each frame     (content, where known)
        \\                                +-- + speaker -> convolutions -> mel                      (a little sound)
         noisy copy -> tokenizer -> the same numbers before rounding                               (agreement)

Supervised by content a code says what was spoken; the mel loss keeps a little of how, and is kept light: it
took Qwen's 25 Hz tokenizer from 7.5 to 10.4 % WER (Qwen3-TTS report). The speaker is told to the mel head, so
codes need not carry who speaks. CTC reads 50 slots a second because 25 are too few for letters. Only `tokenizer` is
shipped; what listens to letters is left beside it and reads codes aloud for the Talker's rewards (training/reader.py).

Letters: B clips, N codes of all clips, D width, V labels, P phones, M mel bands, L mel frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from thinktalk.config import Wav2CodeConfig
from thinktalk.data.speech import LETTERS, Symbols
from thinktalk.encoders.audio import AudioEncoder
from thinktalk.errors import ConfigError
from thinktalk.layers.linear import Linear
from thinktalk.metrics.wer import Errors, character_errors, word_errors
from thinktalk.training.losses import IGNORE, ctc
from thinktalk.training.reader import CodeReader, Listener
from thinktalk.training.shown import Shown, spectrogram
from thinktalk.training.stage import Stage
from thinktalk.wav2code.encoder import SpeechTokenizer

__all__ = [
    "Speech",
    "TokenizerHeads",
    "TokenizerModules",
    "TokenizerStage",
    "Weights",
    "content_loss",
    "noisy_copy",
    "take_ears",
    "usage",
]

DEPTH = 8.0  # log10 units kept below the maximum, as the log-mel itself has them


@dataclass(frozen=True)
class Speech:
    """Clips with what was said in them."""

    mels: Sequence[Tensor]
    """(M, L) log-mel of each clip, 100 frames a second."""
    labels: Tensor
    """(B, most) letters or phones said, 1 and up; 0 is CTC's blank and fills rows up."""
    label_lengths: Tensor
    """(B,)"""
    phones: Sequence[Tensor] | None = None
    """(50 a second,) of each clip: the phone of each frame, IGNORE where unknown."""
    speakers: Tensor | None = None
    """(B,) number of the speaker, 0 where unknown."""
    texts: Sequence[str] | None = None
    """What was said as it is written, where it matters."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How much each loss counts."""

    ctc: float = 1.0
    phones: float = 1.0
    mel: float = 0.1
    agreement: float = 0.7
    """At 0.2 noise 60 dB below the loudest frame changed a third of all codes (LOG.md)."""


class TokenizerHeads(Listener):
    """What listens to codes while they are learnt: (N, D) code embeddings -> labels, phones, mel."""

    def __init__(
        self, config: Wav2CodeConfig, *, labels: int, phones: int = 0, speakers: int = 1, num_layers: int = 2
    ):  # fmt: skip
        super().__init__(config, labels=labels, num_layers=num_layers)
        width = config.width
        self.phones = Linear(width, phones) if phones else None
        self.speakers = nn.Embedding(speakers, width)
        self.conv1 = nn.Conv1d(width, width, 5, padding=2)
        self.conv2 = nn.Conv1d(width, width, 5, padding=2)
        self.mel = Linear(width, config.frames_per_code * config.num_mels)

    def draw(self, embedding: Sequence[Tensor], speakers: Tensor) -> list[Tensor]:
        """Mel (M, n * frames_per_code) of each clip's code embeddings (n, D), spoken by speakers (B,)."""
        lengths = [len(clip) for clip in embedding]
        x_BDn = pad_sequence(list(embedding), batch_first=True).transpose(1, 2)
        inside = torch.arange(x_BDn.shape[2], device=x_BDn.device) < torch.tensor(lengths, device=x_BDn.device)[:, None]  # fmt: skip
        voice_BD1 = self.speakers(speakers.to(x_BDn.device))[:, :, None]
        for conv in (self.conv1, self.conv2):
            # zeros beyond the end of a clip, so that a clip is drawn as if it were alone
            x_BDn = (x_BDn + voice_BD1) * inside[:, None]
            x_BDn = x_BDn + F.gelu(conv(x_BDn))
        y_BnM = self.mel(x_BDn.transpose(1, 2))
        frames = y_BnM.unflatten(2, (self.config.frames_per_code, -1)).flatten(1, 2)
        per = self.config.frames_per_code
        return [row[: n * per].T for row, n in zip(frames, lengths, strict=True)]


class TokenizerModules(nn.Module):
    """The tokenizer and its heads."""

    def __init__(self, tokenizer: SpeechTokenizer, heads: TokenizerHeads):
        super().__init__()
        self.tokenizer = tokenizer
        self.heads = heads


class TokenizerStage(Stage):
    """Batches are Speech; everything learns.

    Start the tokenizer from ears that already recognise (`start_from`): from random weights few codes are used at first
    (perplexity 3 to 8 after 50 to 230 steps of 24 s of speech, with agreement or without).
    """

    def __init__(self, modules: TokenizerModules, *, weights: Weights | None = None):
        self.modules: TokenizerModules = modules
        self.weights = weights or Weights()

    def start_from(self, ears: AudioEncoder) -> list[str]:
        """Take over an audio encoder that hears: its front and lower layers, and above the codes as many of the next ones
        as there are; the names of what was taken. ConfigError when sizes differ.
        """
        lower = take_ears(self.modules.tokenizer, ears)
        heads, below = self.modules.heads, self.modules.tokenizer.config.num_layers
        upper = {}
        for name, tensor in ears.layers[below : below + len(heads.layers)].state_dict().items():
            number, _, inner = name.partition(".")
            upper[f"layers.{number}.{inner}"] = tensor
        heads.load_state_dict(upper, strict=False)
        return sorted([f"tokenizer.{name}" for name in lower] + [f"heads.{name}" for name in upper])

    def parts(self) -> Mapping[str, nn.Module]:
        """The tokenizer."""
        return {"wav2code": self.modules.tokenizer}

    @torch.no_grad()
    def reader(self, symbols: Symbols = LETTERS) -> CodeReader:
        """What reads the codes of this tokenizer aloud, a copy."""
        fsq = self.modules.tokenizer.fsq
        assert fsq is not None
        return self.modules.heads.reader(fsq.embed(torch.arange(fsq.num_codes)), symbols)

    def weight(self, batch: Speech) -> float:
        """Mel frames."""
        return float(sum(mel.shape[1] for mel in batch.mels))

    def loss(
        self, batch: Speech, *, generator: torch.Generator, **turn: str
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Weighted sum of the four losses; `codes_used`, `perplexity` and `agree` tell a collapse early."""
        tokenizer, heads, weights = self.modules.tokenizer, self.modules.heads, self.weights
        fsq = tokenizer.fsq
        assert fsq is not None, "a tokenizer that chooses another decoder's codes is c1_inverse's"
        x_ND, pieces = tokenizer.features(batch.mels)
        made = fsq(x_ND)
        slots = heads.slots(made.embedding, pieces)
        parts: dict[str, Tensor] = {}
        parts["ctc"], left_out = content_loss(heads, slots, batch)
        metrics: dict[str, Tensor | float] = {"too_short": float(left_out)}
        if batch.phones is not None and heads.phones is not None:
            parts["phones"], metrics["phones_right"] = self._phones(slots, batch.phones)
        speakers = torch.zeros(len(slots), dtype=torch.int64) if batch.speakers is None else batch.speakers  # fmt: skip
        drawn = heads.draw(pieces.join(made.embedding), speakers)
        parts["mel"] = _mean_l1(drawn, batch.mels)
        noisy, _ = tokenizer.features([noisy_copy(mel, generator) for mel in batch.mels])
        other = fsq(noisy)
        # the noisy copy is drawn to the codes of the clean one, never the other way
        parts["agreement"] = (other.bounded - made.rounded.detach()).square().mean()
        total = torch.stack([getattr(weights, name) * part for name, part in parts.items()]).sum()
        metrics |= {name: part.detach() for name, part in parts.items()}
        metrics |= usage(made.indices, fsq.num_codes)
        metrics["agree"] = (other.indices == made.indices).float().mean()
        return total, metrics

    def show(self, batch: Speech, *, generator: torch.Generator) -> Shown:
        """The log-mel of the batch's first clip, and below what its codes keep of it."""
        tokenizer, heads = self.modules.tokenizer, self.modules.heads
        assert tokenizer.fsq is not None
        mel = batch.mels[0]
        x_ND, pieces = tokenizer.features([mel])
        speakers = torch.zeros(1, dtype=torch.int64) if batch.speakers is None else batch.speakers[:1]  # fmt: skip
        (drawn,) = heads.draw(pieces.join(tokenizer.fsq(x_ND).embedding), speakers)
        return {"mel": spectrogram(mel[:, : drawn.shape[1]], drawn)}

    def errors(
        self, batches: Iterable[Speech], symbols: Symbols = LETTERS
    ) -> tuple[Errors, Errors]:
        """Errors in letters and in words of what is read from the codes of clips that were not learnt from."""
        reader, letters, words = self.reader(symbols), Errors(), Errors()
        for batch in batches:
            read = reader.read(self.modules.tokenizer.encode(batch.mels))
            for said, labels, n in zip(read, batch.labels, batch.label_lengths, strict=True):
                true = symbols.text(labels[:n].tolist())
                letters += character_errors(true, said, normal=False)
                words += word_errors(true, said)
        return letters, words

    def _phones(self, slots: Sequence[Tensor], phones: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the frames whose phone is known, and how many are right."""
        assert self.modules.heads.phones is not None
        pairs = [(h[: len(p)], p[: len(h)]) for h, p in zip(slots, phones, strict=True)]
        logits_NP = self.modules.heads.phones(torch.cat([h for h, _ in pairs])).float()
        target_N = torch.cat([p for _, p in pairs]).to(logits_NP.device)
        known = (target_N != IGNORE).sum().clamp(min=1)
        loss = F.cross_entropy(logits_NP, target_N, ignore_index=IGNORE, reduction="sum") / known
        right = (logits_NP.argmax(-1) == target_N).sum() / known
        return loss, right.detach()


def take_ears(tokenizer: SpeechTokenizer, ears: AudioEncoder) -> list[str]:
    """Give a tokenizer the front and the lower layers of an audio encoder; their names. ConfigError when sizes differ."""
    ours, theirs = tokenizer.config, ears.config
    for name in ("num_mels", "width", "ffn_width", "num_heads"):
        if getattr(ours, name) != getattr(theirs, name):
            raise ConfigError(f"wav2code.{name} {getattr(ours, name)}: expected {getattr(theirs, name)} as the audio encoder has; make them alike, or start without ears")  # fmt: skip
    own = tokenizer.state_dict()
    # the norm stands above other layers
    lower = {name: t for name, t in ears.state_dict().items() if name in own and not name.startswith("norm.")}  # fmt: skip
    tokenizer.load_state_dict(lower, strict=False)
    return sorted(lower)


def content_loss(
    heads: TokenizerHeads, slots: Sequence[Tensor], batch: Speech
) -> tuple[Tensor, int]:
    """CTC a label of what was said, given the slots (50 a second, D) of each clip, and clips too short for their labels."""
    logits_BTV = heads.ctc(pad_sequence(list(slots), batch_first=True))
    device = logits_BTV.device
    frames = torch.tensor([len(clip) for clip in slots], device=device)
    return ctc(logits_BTV, frames, batch.labels.to(device), batch.label_lengths.to(device))


def _mean_l1(drawn: Sequence[Tensor], mels: Sequence[Tensor]) -> Tensor:
    """Mean distance of drawn mels (M, frames) to the true ones, as far as they were drawn."""
    gaps = [(d.float() - m[:, : d.shape[1]].to(d.device).float()).abs().flatten() for d, m in zip(drawn, mels, strict=True)]  # fmt: skip
    return torch.cat(gaps).mean()


def usage(indices: Tensor, num_codes: int) -> dict[str, Tensor | float]:
    """Share of all codes that this batch used, and the perplexity of their distribution."""
    share = torch.bincount(indices.flatten(), minlength=num_codes) / max(1, indices.numel())
    entropy = -(share * share.clamp(min=1e-12).log()).sum()
    return {"codes_used": (share > 0).float().mean(), "perplexity": entropy.exp()}


def noisy_copy(mel: Tensor, generator: torch.Generator) -> Tensor:
    """The same speech (M, L) through another microphone in a noisy room, made in the log-mel itself.

    Coloured noise of 10 to 50 dB below the loudest frame is added in power, then each band gets a smooth gain of up to 6 dB.
    """

    def uniform(*shape: int) -> Tensor:
        drawn = torch.rand(*shape, generator=generator, device=generator.device)
        return drawn.to(mel.device, torch.float32)

    if not mel.numel():
        return mel
    bands = torch.linspace(0, 1, len(mel), device=mel.device)
    log10 = 4 * mel.float() - 4  # undoes (x + 4) / 4
    peak = log10.amax()
    level, slope, wave, gain = 1 + 4 * uniform(1), 4 * uniform(1) - 2, uniform(2), 1.2 * uniform(1) - 0.6  # fmt: skip
    # the power of Gaussian noise in a bin is exponentially distributed
    speckle = -(1 - uniform(*mel.shape)).clamp(min=1e-6).log()
    noise = peak - level + slope * (bands[:, None] - 0.5) + speckle.log10()
    mixed = torch.logaddexp(log10 * LN10, noise * LN10) / LN10
    mixed = mixed + (gain * torch.cos(torch.pi * (4 * wave[0] * bands + 2 * wave[1])))[:, None]
    return ((torch.maximum(mixed, mixed.amax() - DEPTH) + 4) / 4).to(mel.dtype)


LN10 = 2.302585092994046
