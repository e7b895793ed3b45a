"""c1, second mode: an encoder for a decoder that exists. Speech -> the codes with which a frozen DiT would say it.

    log-mel 16 kHz -> tokenizer.choice -> p over the decoder's codes -> embedding -> frozen DiT -> flow loss of the true mel
                                                                        |-> layers -> CTC over what was said

Owners of an official checkpoint can speak codes but not make them: its encoder was never published. Here the decoder tells
which codes it wants to hear. Early, a code is a mixture of embeddings by p, which has a slope everywhere; later a growing
share of frames is the likeliest code alone, its gradient passed straight to p (Bengio 2013), until mixtures are gone and
what is learnt is what will be spoken.

Letters: B clips, N codes of all clips, C codes to choose among, E width of a code's embedding, D width of the tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from thinktalk.code2wav.dit import DiT
from thinktalk.data.speech import LETTERS, Symbols
from thinktalk.errors import ConfigError
from thinktalk.layers.linear import Linear
from thinktalk.training.c1_tokenizer import Speech, TokenizerHeads, content_loss, usage
from thinktalk.training.c2_flow import FlowConfig, FlowStage, Utterances
from thinktalk.training.reader import CodeReader
from thinktalk.training.stage import Stage
from thinktalk.wav2code.encoder import SpeechTokenizer

__all__ = ["Inverse", "InverseConfig", "InverseModules", "InverseStage"]


@dataclass(frozen=True)
class Inverse:
    """Clips as they are heard and as they shall be spoken."""

    heard: Speech
    """Log-mels at 16 kHz, and what was said (used where there are heads)."""
    mels: Sequence[Tensor]
    """(M, frames) natural-log mel of the same clips, as the decoder makes them."""
    references: Sequence[Tensor] | None = None
    """(M, T) mel of another recording of each voice; None: a piece of the clip itself."""
    voices: Tensor | None = None
    """(B, speaker_width) `cond` of each voice; None: zeros."""
    codes: Sequence[Tensor] | None = None
    """(n,) true codes where they are known: only counted, never learnt from."""


@dataclass(frozen=True, kw_only=True)
class InverseConfig:
    """How the choice hardens."""

    harden_until: float = 0.7
    """Share of the run after which every frame is a single code; 0: from the beginning."""
    ctc_weight: float = 0.3
    """Weight of the content loss."""
    flow: FlowConfig = field(
        default_factory=lambda: FlowConfig(
            start_share=0.3, free_share=0.0, stream_share=0.0, draft_until=0.0
        )
    )
    """How the decoder is asked; near t = 0 it depends on the codes most."""

    def __post_init__(self) -> None:
        if self.flow.free_share:
            raise ConfigError(f"flow.free_share {self.flow.free_share}: expected 0, since free utterances say nothing about codes")  # fmt: skip


class InverseModules(nn.Module):
    """The encoder to be found, the decoder that is kept, and what listens for content."""

    def __init__(self, tokenizer: SpeechTokenizer, dit: DiT, heads: TokenizerHeads | None = None):
        super().__init__()
        self.tokenizer, self.dit, self.heads = tokenizer, dit, heads
        width = tokenizer.config.width
        self.lift = Linear(dit.config.code_width, width) if heads is not None else None


class InverseStage(Stage):
    """Batches are Inverse; the tokenizer learns, the DiT stays as it is."""

    def __init__(self, modules: InverseModules, config: InverseConfig | None = None):
        self.modules: InverseModules = modules
        self.config = config or InverseConfig()
        self.flow = FlowStage(modules.dit, self.config.flow)
        ours, theirs = modules.tokenizer.config, modules.dit.config
        if not ours.choices or ours.first_code + ours.choices > theirs.num_codes + 1:
            raise ConfigError(f"wav2code.choices {ours.choices} from code {ours.first_code}: expected 1 to {theirs.num_codes + 1 - ours.first_code}, the codes of the decoder")  # fmt: skip

    def parts(self) -> Mapping[str, nn.Module]:
        """The tokenizer."""
        return {"wav2code": self.modules.tokenizer}

    @torch.no_grad()
    def reader(self, symbols: Symbols = LETTERS) -> CodeReader:
        """What reads the decoder's codes aloud, a copy."""
        modules, config = self.modules, self.modules.tokenizer.config
        assert modules.heads is not None and modules.lift is not None, "nobody listened for content"
        table = modules.dit.codes.weight[config.first_code :][: config.choices]
        return modules.heads.reader(modules.lift(table), symbols)

    def trainable(self, **turn: str) -> Iterable[nn.Parameter]:
        """Everything but the decoder."""
        held = {id(p) for p in self.modules.dit.parameters()}
        return (p for p in self.modules.parameters() if id(p) not in held)

    def weight(self, batch: Inverse) -> float:
        """Mel frames."""
        return float(sum(mel.shape[1] for mel in batch.mels))

    def loss(
        self, batch: Inverse, *, generator: torch.Generator, **turn: str
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Flow loss through the chosen codes, and CTC; `recovered` is the share of true codes found, where known."""
        modules, dit = self.modules, self.modules.dit
        tokenizer, first = modules.tokenizer, modules.tokenizer.config.first_code
        assert tokenizer.choice is not None
        x_ND, pieces = tokenizer.features(batch.heard.mels)
        logits_NC = tokenizer.choice(x_ND).float()
        index_N = logits_NC.argmax(-1)
        until = self.config.harden_until
        hardness = min(1.0, self.progress / until) if until else 1.0
        drawn = torch.rand(len(index_N), generator=generator, device=generator.device)
        heard_NE = self._embed(logits_NC, index_N, (drawn < hardness).to(index_N.device))
        repeats = dit.config.repeats
        counts = [min(len(c), mel.shape[1] // repeats) for c, mel in zip(pieces.join(index_N), batch.mels, strict=True)]  # fmt: skip
        codes = [c[:n] + first for c, n in zip(pieces.join(index_N), counts, strict=True)]
        heard = [h[:n] for h, n in zip(pieces.join(heard_NE), counts, strict=True)]
        spoken = Utterances(codes=codes, mels=batch.mels, references=batch.references, voices=batch.voices)  # fmt: skip
        loss, seen = self.flow.loss_of(spoken, self.flow.draw(spoken, generator), heard=heard)
        metrics = {**seen, **usage(index_N, tokenizer.config.num_codes), "hardness": hardness}
        if modules.heads is not None and modules.lift is not None:
            slots = modules.heads.slots(modules.lift(heard_NE.to(x_ND.dtype)), pieces)
            content, metrics["too_short"] = content_loss(modules.heads, slots, batch.heard)
            metrics["ctc"] = content.detach()
            loss = loss + self.config.ctc_weight * content
        if batch.codes is not None:
            pairs = [(c[: len(t)], t[: len(c)].to(c.device)) for c, t in zip(codes, batch.codes, strict=True)]  # fmt: skip
            metrics["recovered"] = torch.cat([c == t for c, t in pairs]).float().mean()
        return loss, metrics

    def _embed(self, logits_NC: Tensor, index_N: Tensor, hard_N: Tensor) -> Tensor:
        """What the decoder hears of each code: the mixture, or the likeliest alone with the mixture's gradient."""
        config = self.modules.tokenizer.config
        table_CE = self.modules.dit.codes.weight[config.first_code :][: config.choices].detach()
        table_CE = table_CE.float()
        mixed_NE = logits_NC.softmax(-1) @ table_CE
        single_NE = table_CE[index_N] + (mixed_NE - mixed_NE.detach())
        return torch.where(hard_N[:, None], single_NE, mixed_NE)
