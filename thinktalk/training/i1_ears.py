"""i1: ears from nothing, where no Whisper is to be had. Log-mels with what was said -> loss of the audio encoder.

    mel -> SpecAugment -> encoder's layers, 50 frames a second -+-> norm -> CTC over letters
                                                                +-> norm -> the phone of each frame, where known

Two heads listen before the encoder's pooling, because 25 slots a second are too few for letters, and are thrown away; the
pooling and the projection are learnt by p1_align, from the Thinker's side. Labels of frames, which synthetic speech has for
nothing, teach from the first step on; CTC alone spends its first hour on blanks.

Letters: B clips, N frames of all clips, D width, V labels, P phones, M mel bands, L mel frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from thinktalk.data.speech import LETTERS
from thinktalk.encoders.audio import AudioEncoder
from thinktalk.layers.linear import Linear
from thinktalk.metrics.wer import Errors, character_errors, word_errors
from thinktalk.training.c1_tokenizer import Speech
from thinktalk.training.losses import IGNORE, ctc
from thinktalk.training.stage import Stage
from thinktalk.wav2code.pieces import Pieces

__all__ = ["Ears", "EarsConfig", "EarsStage", "greedy", "mask_mel"]


@dataclass(frozen=True, kw_only=True)
class EarsConfig:
    """What counts, and what is hidden."""

    phones: float = 1.0
    """Weight of the frames' phones beside CTC."""
    time_masks: int = 2
    """Stretches of time hidden in every 5 s of sound (SpecAugment, Park 2019)."""
    time_frames: int = 20
    """Longest of them, in mel frames of 10 ms."""
    band_masks: int = 2
    """Groups of mel bands hidden in a clip."""
    bands: int = 20
    """Largest of them."""


class Ears(nn.Module):
    """The encoder and the heads that listen to its last layer."""

    def __init__(self, encoder: AudioEncoder, *, labels: int, phones: int = 0):
        super().__init__()
        width = encoder.config.width
        self.encoder = encoder
        self.norm = nn.LayerNorm(width)
        self.ctc = Linear(width, labels + 1)
        self.phones = Linear(width, phones) if phones else None

    def hear(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """Frames (L // 2, D) of each log-mel (M, L), in the encoder's blocks."""
        even = [mel[:, : mel.shape[1] // 2 * 2] for mel in mels]
        pieces = Pieces.cut([mel.shape[1] for mel in even], self.encoder.block)
        x_ND, _ = self.encoder.frames(pieces.stack(even, 1))
        return pieces.shorten(2).join(self.norm(x_ND))


class EarsStage(Stage):
    """Batches are Speech; the encoder below its pooling and the heads learn."""

    def __init__(self, modules: Ears, config: EarsConfig | None = None):
        self.modules: Ears = modules
        self.config = config or EarsConfig()

    def parts(self) -> Mapping[str, nn.Module]:
        """The audio encoder."""
        return {"audio": self.modules.encoder}

    def trainable(self, **turn: str) -> Iterable[nn.Parameter]:
        """All but what follows the pooling, and two rows that nothing reads."""
        encoder = self.modules.encoder
        later = {id(p) for m in (encoder.norm, encoder.proj, encoder.bos_eos) for p in m.parameters()}  # fmt: skip
        return (p for p in self.modules.parameters() if id(p) not in later)

    def weight(self, batch: Speech) -> float:
        """Mel frames."""
        return float(sum(mel.shape[1] for mel in batch.mels))

    def loss(
        self, batch: Speech, *, generator: torch.Generator, **turn: str
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """CTC a label, and the frames' phones; `phones_right` is the share of frames that would be named right."""
        mels = [mask_mel(mel, generator, self.config) for mel in batch.mels]
        clips = self.modules.hear(mels)
        logits_BTV = self.modules.ctc(pad_sequence(clips, batch_first=True))
        device = logits_BTV.device
        frames = torch.tensor([len(clip) for clip in clips], device=device)
        content, left_out = ctc(logits_BTV, frames, batch.labels.to(device), batch.label_lengths.to(device))  # fmt: skip
        metrics: dict[str, Tensor | float] = {"ctc": content.detach(), "too_short": float(left_out)}
        if self.modules.phones is None or batch.phones is None:
            return content, metrics
        pairs = [(c[: len(p)], p[: len(c)]) for c, p in zip(clips, batch.phones, strict=True)]
        logits_NP = self.modules.phones(torch.cat([c for c, _ in pairs])).float()
        target_N = torch.cat([p for _, p in pairs]).to(device)
        known = (target_N != IGNORE).sum().clamp(min=1)
        named = F.cross_entropy(logits_NP, target_N, ignore_index=IGNORE, reduction="sum") / known
        right = (logits_NP.argmax(-1) == target_N).sum() / known
        metrics |= {"phones": named.detach(), "phones_right": right.detach()}
        return content + self.config.phones * named, metrics

    @torch.no_grad()
    def read(self, mels: Sequence[Tensor]) -> list[str]:
        """What the CTC head hears in each log-mel (M, L), letter by letter, without any language's help."""
        return [greedy(self.modules.ctc(clip)) for clip in self.modules.hear(mels)]

    def errors(self, batches: Iterable[Speech]) -> tuple[Errors, Errors]:
        """Errors in letters and in words over batches that were not learnt from."""
        letters, words = Errors(), Errors()
        for batch in batches:
            for said, labels, n in zip(self.read(batch.mels), batch.labels, batch.label_lengths, strict=True):  # fmt: skip
                true = LETTERS.text(labels[:n].tolist())
                letters += character_errors(true, said, normal=False)
                words += word_errors(true, said)
        return letters, words


def greedy(logits_TV: Tensor) -> str:
    """The likeliest letter of each frame, repetitions and blanks removed."""
    return LETTERS.text(number for number, _ in groupby(logits_TV.argmax(-1).tolist()))


def mask_mel(mel: Tensor, generator: torch.Generator, config: EarsConfig) -> Tensor:
    """A log-mel (M, L) with stretches of time and groups of bands at its mean, in proportion to its length."""

    def draw(most: int) -> int:
        return int(torch.randint(most + 1, (), generator=generator, device=generator.device))

    mel, (M, L) = mel.clone(), mel.shape
    spans = [(1, draw(config.time_frames), L) for _ in range(round(config.time_masks * L / 500))]
    spans += [(0, draw(config.bands), M) for _ in range(config.band_masks)]
    mean = mel.mean() if mel.numel() else 0.0
    for dim, size, room in spans:
        size = min(size, room)
        mel.narrow(dim, draw(room - size), size).fill_(mean)
    return mel
