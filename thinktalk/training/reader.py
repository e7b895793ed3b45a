"""Reading codes aloud: codes (n,) -> letters, by what listened while they were learnt; the judge of the Talker's own codes.

    codes -> table (codes, D) -> x pool: 50 a second -> layers -> CTC -> "so this is what was said"

c1 trains the layers and the head beside the tokenizer (training/c1_tokenizer.py) and leaves them in `<run>/reader.safetensors`,
a file of their own: no wave is made and no model of the checkpoint is needed to know what codes say, a few hundred utterances
a second on one core. It must never judge a result: it has learnt from the same recordings.

Letters: N codes of all clips, D width, V labels, T slots (50 a second).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from thinktalk.config import Wav2CodeConfig
from thinktalk.data.speech import LETTERS, Symbols
from thinktalk.errors import WeightsError
from thinktalk.layers.audio_block import AudioBlock, sinusoids
from thinktalk.layers.linear import Linear
from thinktalk.metrics.wer import Errors, word_errors
from thinktalk.training.beside import found, save
from thinktalk.training.losses import ctc
from thinktalk.wav2code.pieces import Pieces

__all__ = ["FILE", "CodeReader", "Listener", "greedy"]

FILE = "reader.safetensors"
PASS_BLOCKS = 64  # blocks read together: bounds memory when thousands of samples are judged


class Listener(nn.Module):
    """What listens to code embeddings (N, D): layers at 50 slots a second, a norm, and CTC's head."""

    def __init__(self, config: Wav2CodeConfig, *, labels: int, num_layers: int):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(
            AudioBlock(config.width, config.num_heads, config.ffn_width) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.ctc = Linear(config.width, labels + 1)

    def slots(self, embedding_ND: Tensor, pieces: Pieces) -> list[Tensor]:
        """Hidden states (50 a second, D) of each clip; attention stays in the tokenizer's blocks."""
        pool = self.config.pool
        runs = [(count, n * pool) for count, n in pieces.runs]
        x_ND = embedding_ND.repeat_interleave(pool, 0)
        table = sinusoids(self.config.block_frames // 2, x_ND.shape[1], x_ND.device, x_ND.dtype)
        x_ND = x_ND + torch.cat([table[:n].repeat(count, 1) for count, n in runs])
        for layer in self.layers:
            x_ND = layer(x_ND, runs)
        whole = self.norm(x_ND).unflatten(0, (-1, pool))
        return [clip.flatten(0, 1) for clip in pieces.join(whole)]

    @torch.no_grad()
    def reader(self, table: Tensor, symbols: Symbols) -> CodeReader:
        """A copy that reads codes whose embeddings are `table` (codes, D)."""
        reader = CodeReader(self.config, symbols, num_layers=len(self.layers))
        own = reader.listener.state_dict()
        reader.listener.load_state_dict({name: t for name, t in self.state_dict().items() if name in own})  # fmt: skip
        reader.table.copy_(table)
        return reader.eval().requires_grad_(False)


class CodeReader(nn.Module):
    """Codes -> what they say. `load` it from a run of c1; it learns nothing."""

    def __init__(self, config: Wav2CodeConfig, symbols: Symbols = LETTERS, *, num_layers: int):
        super().__init__()
        self.config, self.symbols = config, symbols
        self.table = nn.Parameter(torch.zeros(config.num_codes, config.width))
        """What each code sounds like to the layers."""
        self.listener = Listener(config, labels=len(symbols), num_layers=num_layers)

    @torch.no_grad()
    def logits(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """CTC's logits (pool x n, V) of each utterance's codes (n,); a code that the tokenizer never gives is nothing."""
        device = self.table.device
        block = self.config.block_frames // self.config.frames_per_code
        cut = [piece.to(device) for clip in codes if len(clip) for piece in clip.split(block)]  # fmt: skip
        heard: list[Tensor] = []
        for start in range(0, len(cut), PASS_BLOCKS):
            some = cut[start : start + PASS_BLOCKS]
            pieces = Pieces.cut([len(piece) for piece in some], block)
            runs = pieces.stack(some)
            index_N = torch.cat([run.flatten() for run in runs]) - self.config.first_code
            known_N = (index_N >= 0) & (index_N < len(self.table))
            x_ND = self.table[index_N.clamp(0, len(self.table) - 1)] * known_N[:, None]
            heard += [self.listener.ctc(h) for h in self.listener.slots(x_ND, pieces)]
        each = iter(heard)
        empty = self.table.new_zeros(0, len(self.symbols) + 1)
        return [torch.cat([empty, *(next(each) for _ in range(-(-len(clip) // block)))]) for clip in codes]  # fmt: skip

    def read(self, codes: Sequence[Tensor]) -> list[str]:
        """What each utterance's codes (n,) say, letter by letter, without any language's help."""
        return [greedy(logits, self.symbols) for logits in self.logits(codes)]

    def errors(self, codes: Sequence[Tensor], texts: Sequence[str]) -> list[Errors]:
        """Word errors of each utterance against what it was to say."""
        return [word_errors(text, said) for text, said in zip(texts, self.read(codes), strict=True)]

    @torch.no_grad()
    def losses(self, codes: Sequence[Tensor], texts: Sequence[str]) -> Tensor:
        """CTC's surprise a letter (B,) at each text: finer than errors; infinite where it is longer than the sound."""
        values = []
        for logits, text in zip(self.logits(codes), texts, strict=True):
            labels = torch.tensor([self.symbols.numbers(text)], device=logits.device)
            count = torch.tensor([labels.shape[1]], device=logits.device)
            frames = torch.tensor([len(logits)], device=logits.device)
            loss, left_out = ctc(logits[None], frames, labels, count)
            values.append(loss.new_tensor(torch.inf) if left_out else loss)
        return torch.stack(values)

    # ------------------------------------------------------------------------------------------------------------ files

    def save(self, path: str | Path) -> None:
        """Write one file; it appears whole or not at all."""
        about = {
            "wav2code": dataclasses.asdict(self.config),
            "symbols": list(self.symbols.symbols),
            "num_layers": len(self.listener.layers),
        }
        save(self, path, "reader", about)

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device = "cpu") -> Self:
        """The reader in `<run of c1>/reader.safetensors` (the file, or the folder it is in). WeightsError if it is none."""
        held = found(path, FILE, by="c1_tokenizer")
        try:
            about = held.about("reader")
            fields = {**about["wav2code"], "levels": tuple(about["wav2code"]["levels"])}
            with torch.device("meta"):
                reader = cls(Wav2CodeConfig(**fields), Symbols(tuple(about["symbols"])), num_layers=about["num_layers"])  # fmt: skip
            reader.load_state_dict(held.weights(reader.state_dict()), assign=True)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(f"{held.path}: is no reader of codes ({' '.join(str(error).split())[:120]}), expected what a run of c1_tokenizer leaves; train it again") from None  # fmt: skip
        return reader.to(device).eval().requires_grad_(False)


def greedy(logits_TV: Tensor, symbols: Symbols = LETTERS) -> str:
    """The likeliest symbol of each slot, repetitions and blanks removed."""
    return symbols.text(number for number, _ in groupby(logits_TV.argmax(-1).tolist()))
