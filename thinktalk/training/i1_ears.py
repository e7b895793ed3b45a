"""i1: ears from nothing, where no Whisper is to be had. Log-mels with what was said -> loss of the audio encoder.

    mel -> SpecAugment -> encoder's layers, 50 frames a second -+-> norm -> CTC over letters
                                                                +-> norm -> the phone of each frame, where known
                                                                +-> adapter, 25 a second -> CTC over the Thinker's tokens

Two heads listen before the encoder's pooling, because 25 slots a second are too few for letters, and are thrown away. Labels
of frames, which synthetic speech has for nothing, teach from the first step on; CTC alone spends its first hour on blanks.

The third way is for ears whose Thinker can read already (`words`): what the adapter says of a word shall point where the
Thinker's own embedding of it does. Then speech is nearly text to the Thinker, before it has heard a single sound; from the
Thinker's side alone (p1_align) a small model had not learnt to listen after a thousand steps (LOG.md). Without it, adapter
and pooling are left to p1_align.

Letters: B clips, N frames of all clips, D width, V labels, P phones, T tokens of the Thinker, M mel bands, L mel frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from thinktalk.training.losses import IGNORE, ctc, unlike_length
from thinktalk.training.stage import Stage
from thinktalk.wav2code.pieces import Pieces

__all__ = ["Ears", "EarsConfig", "EarsStage", "Words", "greedy", "mask_mel"]


@dataclass(frozen=True, kw_only=True)
class EarsConfig:
    """What counts, and what is hidden."""

    phones: float = 1.0
    """Weight of the frames' phones beside CTC."""
    words: float = 0.0
    """Weight of CTC over the Thinker's tokens; 0: none, and the adapter does not learn."""
    length: float = 0.1
    """Weight of how much longer or shorter what the adapter says is than an embedding of a token."""
    time_masks: int = 2
    """Stretches of time hidden in every 5 s of sound (SpecAugment, Park 2019)."""
    time_frames: int = 20
    """Longest of them, in mel frames of 10 ms."""
    band_masks: int = 2
    """Groups of mel bands hidden in a clip."""
    bands: int = 20
    """Largest of them."""


class Words(nn.Module):
    """The Thinker's tokens as CTC's labels: (N, D) -> (N, T + 1), by the angle to each embedding; the first is the blank."""

    def __init__(self, table_TD: Tensor, encode: Callable[[str], list[int]]):
        super().__init__()
        self.encode = encode
        self.register_buffer("table", table_TD.detach().clone().float(), persistent=False)
        self.length = float(self.table.norm(dim=1).mean())
        self.blank = nn.Parameter(torch.randn(table_TD.shape[1]) * self.length / math.sqrt(table_TD.shape[1]))  # fmt: skip
        self.sharpness = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, x_ND: Tensor) -> Tensor:
        with torch.autocast(x_ND.device.type, enabled=False):
            labels = F.normalize(torch.cat([self.blank[None], self.table]), dim=1)
            return self.sharpness.exp() * (F.normalize(x_ND.float(), dim=1) @ labels.T)

    @torch.no_grad()
    def start(self, adapter: Linear) -> None:
        """Begin an adapter anew: of normed states (N, D) it makes something as long as an embedding is."""
        adapter.weight.normal_(std=self.length / math.sqrt(adapter.weight.numel()))
        if adapter.bias is not None:
            adapter.bias.zero_()

    def unlike(self, x_ND: Tensor) -> Tensor:
        """How far lengths are from that of an embedding (losses.py)."""
        return unlike_length(x_ND, self.length)


class Ears(nn.Module):
    """The encoder and the heads that listen to it."""

    def __init__(
        self, encoder: AudioEncoder, *, labels: int, phones: int = 0, words: Words | None = None
    ):
        super().__init__()
        width = encoder.config.width
        self.encoder = encoder
        self.norm = nn.LayerNorm(width)
        self.ctc = Linear(width, labels + 1)
        self.phones = Linear(width, phones) if phones else None
        self.words = words
        if words is not None:
            words.start(encoder.proj)

    def hear(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """Frames (L // 2, D) of each log-mel (M, L), in the encoder's blocks."""
        return self.listen(mels)[0]

    def listen(self, mels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Frames (L // 2, D) of each log-mel (M, L), and what the Thinker is told (L // 4, out_width), where words are learnt."""
        even = [mel[:, : mel.shape[1] // 2 * 2] for mel in mels]
        pieces = Pieces.cut([mel.shape[1] for mel in even], self.encoder.block)
        x_ND, runs = self.encoder.frames(pieces.stack(even, 1))
        frames = pieces.shorten(2).join(self.norm(x_ND))
        return frames, pieces.shorten(4).join(self.encoder.adapt(x_ND, runs)) if self.words else []


class EarsStage(Stage):
    """Batches are Speech; the encoder and the heads learn, its adapter only with words."""

    def __init__(self, modules: Ears, config: EarsConfig | None = None):
        self.modules: Ears = modules
        self.config = config or EarsConfig()

    def parts(self) -> Mapping[str, nn.Module]:
        """The audio encoder."""
        return {"audio": self.modules.encoder}

    def trainable(self, **turn: str) -> Iterable[nn.Parameter]:
        """All but the adapter, if it tells no words, and two rows that nothing reads."""
        encoder = self.modules.encoder
        adapter = () if self.modules.words else (encoder.norm, encoder.proj)
        later = {id(p) for m in (*adapter, encoder.bos_eos) for p in m.parameters()}
        return (p for p in self.modules.parameters() if id(p) not in later)

    def weight(self, batch: Speech) -> float:
        """Mel frames."""
        return float(sum(mel.shape[1] for mel in batch.mels))

    def loss(
        self, batch: Speech, *, generator: torch.Generator, **turn: str
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """CTC a label, and the frames' phones; `phones_right` is the share of frames that would be named right."""
        mels = [mask_mel(mel, generator, self.config) for mel in batch.mels]
        clips, told = self.modules.listen(mels)
        content, left_out = _read(self.modules.ctc, clips, batch.labels, batch.label_lengths)
        metrics: dict[str, Tensor | float] = {"ctc": content.detach(), "too_short": float(left_out)}
        if self.modules.words is not None:
            words, unlike = self._words(self.modules.words, told, batch)
            content = content + self.config.words * (words + self.config.length * unlike)
            metrics |= {"words": words.detach(), "unlike": unlike.detach()}
        if self.modules.phones is None or batch.phones is None:
            return content, metrics
        pairs = [(c[: len(p)], p[: len(c)]) for c, p in zip(clips, batch.phones, strict=True)]
        logits_NP = self.modules.phones(torch.cat([c for c, _ in pairs])).float()
        target_N = torch.cat([p for _, p in pairs]).to(logits_NP.device)
        known = (target_N != IGNORE).sum().clamp(min=1)
        named = F.cross_entropy(logits_NP, target_N, ignore_index=IGNORE, reduction="sum") / known
        right = (logits_NP.argmax(-1) == target_N).sum() / known
        metrics |= {"phones": named.detach(), "phones_right": right.detach()}
        return content + self.config.phones * named, metrics

    def _words(self, words: Words, told: Sequence[Tensor], batch: Speech) -> tuple[Tensor, Tensor]:
        """CTC a token of what was said as it is written, and how unlike embeddings what the Thinker is told is in length."""
        assert batch.texts is not None, "words are learnt from texts"
        said = [torch.tensor(words.encode(text)) + 1 for text in batch.texts]
        labels, lengths = pad_sequence(said, batch_first=True), torch.tensor([len(s) for s in said])
        loss, _ = _read(words, told, labels, lengths)
        return loss, words.unlike(torch.cat(list(told)))

    @torch.no_grad()
    def written(self, mels: Sequence[Tensor]) -> list[list[int]]:
        """The Thinker's tokens that are heard in each log-mel (M, L), without the Thinker's help."""
        assert self.modules.words is not None, "these ears were not taught words"
        best = (
            self.modules.words(clip).argmax(-1).tolist() for clip in self.modules.listen(mels)[1]
        )
        return [[n - 1 for n, _ in groupby(row) if n] for row in best]

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


def _read(
    head: nn.Module, clips: Sequence[Tensor], labels: Tensor, lengths: Tensor
) -> tuple[Tensor, int]:
    """CTC a label of clips (frames, D) through a head, and how many clips are too short for their labels."""
    frames = torch.tensor([len(clip) for clip in clips])
    logits_BTV = pad_sequence(list(head(torch.cat(list(clips))).split(frames.tolist())), batch_first=True)  # fmt: skip
    device = logits_BTV.device
    return ctc(logits_BTV, frames.to(device), labels.to(device), lengths.to(device))


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
