"""Talker by teacher forcing: Lines -> what the Talker would read if it had said these codes -> loss of each next code.

    prompt    e + h                         nothing is learned here
    opening   voice + codec pad             nothing
              s_0 + codec bos       learns  code 0
    step t    s_t + code t - 1      learns  code t           s: e + h of the reply, text end, text pad for ever
    last      s_n + code n - 1      learns  codec eos        weighs more: a Talker that cannot stop is of no use

The layout is TalkerFeed's (talker/prepare.py), all at once instead of step by step; a test holds the two together. Rows are
padded at the right, where no causal attention looks.

Letters: B rows, T time steps, D width of the Thinker, P tokens of a prompt, R of a reply, n codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from thinktalk.config import TalkerConfig
from thinktalk.data.speech import PHONES
from thinktalk.errors import ConfigError
from thinktalk.messages import Embedded
from thinktalk.talker.model import Talker
from thinktalk.training.guide import guided, inputs_of
from thinktalk.training.losses import IGNORE, answer_loss
from thinktalk.training.stage import Stage
from thinktalk.training.talker_batches import Line
from thinktalk.training.talker_states import Teller, Told
from thinktalk.weights.model import OmniModel

__all__ = ["Layout", "TalkerStage", "lay_out", "talker_of"]

WATCHED = 512  # places of a batch whose best code is looked at
SPELT = 6
"""Phones of a token that are learned."""


@dataclass(frozen=True)
class Layout:
    """A batch as the Talker reads it."""

    inputs: Embedded  # (B, T, D), positions (B, 3, T)
    targets: Tensor  # (B, T) int64 the code after each place, IGNORE where none is learned
    ends: Tensor  # (B, T) bool where the target is the end of speech
    said: Tensor  # (B, T, 2) int64 the slot (from, to) of the token that the code after each place says, IGNORE where it is not known
    phones: Tensor  # (B, T) int64 the phone that the code after each place says, IGNORE where it is not known
    spelt: Tensor  # (B, T, SPELT) int64 the first phones of the token that is read at each place, 0 behind them, IGNORE where not known


def lay_out(
    talker: Talker,
    embedding: Tensor,
    lines: Sequence[Line],
    told: Sequence[Told],
    voices: Tensor,
    heard_codes: Sequence[Tensor] | None = None,
) -> Layout:
    """Rows of lines, given what the Thinker told of each. Gradients flow into the Talker's embedding (and `voices`).

    `embedding` (V, D) is the Thinker's table of tokens, `voices` (B, D) the embedding of the voice that speaks each row,
    `heard_codes` what is heard of each line's codes where that is not what was said.
    """
    config, table = talker.talker_config, talker.embed.weight
    home = table.device
    spoken, heard, positions, targets, slots, phones, spelt, first = [], [], [], [], [], [], [], []
    heard_codes = [line.codes for line in lines] if heard_codes is None else heard_codes
    for line, one, codes in zip(lines, told, heard_codes, strict=True):
        n, R, P = len(line.codes), len(one.reply), one.length
        end, pad = (
            embedding[token].to(table)[None] for token in (config.text_end, config.text_pad)
        )
        stream = torch.cat([one.reply.to(table), end, pad.expand(max(0, n - R), -1)])[: n + 1]
        # the voice's row is added below, where it may have a gradient
        heard.append(torch.cat([one.prompt.to(table), torch.zeros_like(pad), stream]))
        opening = torch.tensor([config.codec_pad, config.codec_bos], device=home)
        spoken.append(torch.cat([opening, codes.to(home)]))
        positions.append(_positions(one.positions.to(home), n))
        first.append(P)
        targets.append(_targets(line, P, config, home))
        slots.append(_slots(line, P, R, home))
        phones.append(_phones(line, P, home))
        spelt.append(_spelt(line, P, R, home))
    x_BTD = pad_sequence(heard, batch_first=True)
    B, T, D = x_BTD.shape
    where = [torch.arange(len(ids), device=home) + b * T + p for b, (ids, p) in enumerate(zip(spoken, first, strict=True))]  # fmt: skip
    codes_ND = talker.embed(torch.cat(spoken)).to(x_BTD)
    places = torch.tensor([b * T + p for b, p in enumerate(first)], device=home)
    flat = x_BTD.reshape(B * T, D).index_add(0, places, voices.to(x_BTD))
    flat = flat.index_add(0, torch.cat(where), codes_ND)
    where_B3T = pad_sequence([p.T for p in positions], batch_first=True).transpose(1, 2)
    target_BT = pad_sequence(targets, batch_first=True, padding_value=IGNORE)
    inputs = Embedded(flat.view(B, T, D), where_B3T)
    slot_BT2 = pad_sequence(slots, batch_first=True, padding_value=IGNORE)
    phone_BT = pad_sequence(phones, batch_first=True, padding_value=IGNORE)
    spelt_BTS = pad_sequence(spelt, batch_first=True, padding_value=IGNORE)
    return Layout(inputs, target_BT, target_BT == config.codec_eos, slot_BT2, phone_BT, spelt_BTS)


def _positions(prompt_3P: Tensor, n: int) -> Tensor:
    """(3, P + 2 + n): the opening follows the prompt's last token, the codes its highest one."""
    latest = prompt_3P[:, -1].amax() if prompt_3P.shape[1] else prompt_3P.new_tensor(-1)
    highest = prompt_3P.amax() if prompt_3P.shape[1] else latest
    opening = latest + torch.arange(1, 3, device=prompt_3P.device)
    after = torch.maximum(highest, opening[-1]) + torch.arange(1, n + 1, device=prompt_3P.device)
    return torch.cat([prompt_3P, torch.cat([opening, after]).expand(3, -1)], 1)


def _targets(line: Line, P: int, config: TalkerConfig, device: torch.device) -> Tensor:
    """(P + 2 + n,): nothing, then the codes that are learned, then the end of speech if it is known."""
    n = len(line.codes)
    targets = torch.full((P + 2 + n,), IGNORE, dtype=torch.int64, device=device)
    targets[P + 1 : P + 1 + n] = line.codes.to(device)
    targets[P + 1 : P + 1 + line.given] = IGNORE
    if line.complete:
        targets[-1] = config.codec_eos
    return targets


def _slots(line: Line, P: int, R: int, device: torch.device) -> Tensor:
    """(P + 2 + n, 2): for each place that predicts a code the slot of the token that it says, if that was told by then."""
    n = len(line.codes)
    slots = torch.full((P + 2 + n, 2), IGNORE, dtype=torch.int64, device=device)
    if line.said is not None:
        said = line.said.to(device).clamp(max=R)
        told = (said <= torch.arange(n, device=device))[:, None]
        from_to = P + 1 + torch.stack((said, said + 1), 1)
        slots[P + 1 : P + 1 + n] = torch.where(told, from_to, IGNORE)
    return slots


def _phones(line: Line, P: int, device: torch.device) -> Tensor:
    """(P + 2 + n,): at each place that predicts a code the phone that it says."""
    n = len(line.codes)
    phones = torch.full((P + 2 + n,), IGNORE, dtype=torch.int64, device=device)
    if line.phones is not None:
        phones[P + 1 : P + 1 + n] = line.phones.to(device)
    return phones


def _spelt(line: Line, P: int, R: int, device: torch.device) -> Tensor:
    """(P + 2 + n, SPELT): at each place that reads a token of the reply the phones that its codes say."""
    spelt = torch.full((P + 2 + len(line.codes), SPELT), IGNORE, dtype=torch.int64)
    if line.said is not None and line.phones is not None:
        of: dict[int, list[int]] = {}
        for token, phone in zip(line.said.tolist(), line.phones.tolist(), strict=True):
            own = of.setdefault(token, [])
            if phone > 0 and (not own or own[-1] != phone):  # neither silence nor the same again
                own.append(phone)
        for token, own in of.items():
            if token < R and own and P + 1 + token < len(spelt):
                spelt[P + 1 + token] = torch.tensor((own + [0] * SPELT)[:SPELT])
    return spelt.to(device)


class TalkerStage(Stage):
    """Batches are lists of Lines; the Talker learns to say them after a Thinker that stays as it is."""

    def __init__(
        self,
        model: OmniModel,
        *,
        eos_weight: float = 3.0,
        guide: float = 0.0,
        misheard: float = 0.0,
        phones: float = 0.0,
        cache: str | Path | None = None,
    ):
        """`model` has Thinker, senses and Talker; `guide`: weight of guided attention (guide.py); `misheard`: share of the
        Talker's own codes that it hears wrong; `phones`: weight of naming the phones of each token where it is read, and the
        phone of each next code before the last layer, by heads that are thrown away; `cache` is a directory for what the Thinker told."""
        self.talker = talker_of(model)
        self.modules: nn.Module = self.talker
        self.teller = Teller(model, cache)
        self.eos_weight, self.guide, self.misheard = eos_weight, guide, misheard
        self.phones = phones
        self.namer = self.speller = None
        if phones:
            width, known = self.talker.config.width, len(PHONES) + 1
            self.namer, self.speller = nn.Linear(width, known), nn.Linear(width, SPELT * known)
            self.modules = nn.ModuleDict({"talker": self.talker, "namer": self.namer, "speller": self.speller})  # fmt: skip

    def parts(self) -> dict[str, nn.Module]:
        """The Talker."""
        return {"talker": self.talker}

    def weight(self, batch: Sequence[Line]) -> float:
        """Codes that are learned, the ends with their weight."""
        return float(sum(len(x.codes) - x.given + self.eos_weight * x.complete for x in batch))

    def loss(
        self, batch: Sequence[Line], *, generator: torch.Generator, **turn: str
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Mean cross-entropy of the next code; `right` is how often the best code is the one said, `stop` the loss of
        ends, `looked` what guided heads give to the token that is said, `named` and `spelt` phones named right."""
        layout = self.layout(batch, self.tell(batch), self._misheard(batch, generator))
        last = len(self.talker.layers) - 1
        early = min(2, last)
        looked_at = (early, last) if self.namer is not None else ()
        with guided(self.talker, layout.said if self.guide else None) as heads, inputs_of(self.talker, *looked_at) as held:  # fmt: skip
            hidden = self.talker(layout.inputs)
        weights = 1 + (self.eos_weight - 1) * layout.ends
        loss, _ = answer_loss(hidden, layout.targets, self.talker.logits, weights=weights)
        seen = {"codes": loss.detach(), **self._watch(hidden.detach(), layout)}
        if heads:
            strayed, looked = torch.stack(heads).mean(0)
            loss = loss + self.guide * strayed
            seen["looked"] = looked.detach()
        if self.namer is not None and self.speller is not None:
            spelling = self.speller(held[early]).unflatten(-1, (SPELT, -1))
            for name, logits, phones in (("named", self.namer(held[last]), layout.phones), ("spelt", spelling, layout.spelt)):  # fmt: skip
                wrong, seen[name] = _named(logits, phones)
                loss = loss + self.phones * wrong
        return loss, seen

    def tell(self, batch: Sequence[Line]) -> list[Told]:
        """What the Thinker tells of each line."""
        self.teller.to(self.talker.embed.weight.device)
        return self.teller([(line.prompt, line.reply) for line in batch])

    def layout(
        self, batch: Sequence[Line], told: Sequence[Told], heard: Sequence[Tensor] | None = None
    ) -> Layout:
        """The batch as the Talker reads it, `heard` in the place of its own codes if given."""
        return lay_out(self.talker, self.teller.embedding, batch, told, self.voices(batch), heard)

    def _misheard(
        self, batch: Sequence[Line], generator: torch.Generator
    ) -> Sequence[Tensor] | None:
        """Each line's codes, some of them another code of the batch: what to say next must be read, not continued by heart."""
        if not self.misheard:
            return None
        anything = torch.cat([line.codes for line in batch])
        found = []
        for line in batch:
            n = len(line.codes)
            wrong = torch.rand(n, generator=generator, device=generator.device) < self.misheard
            other = torch.randint(len(anything), (n,), generator=generator, device=generator.device)
            found.append(torch.where(wrong.cpu(), anything[other.cpu()], line.codes))
        return found

    def voices(self, batch: Sequence[Line]) -> Tensor:
        """The embedding (B, D) of who speaks each line."""
        tokens = torch.tensor([line.voice for line in batch], device=self.teller.embedding.device)
        return self.teller.embedding[tokens].detach()

    @torch.no_grad()
    def _watch(self, hidden: Tensor, layout: Layout) -> dict[str, Tensor | float]:
        """Numbers that tell early what goes wrong, from some of the places."""
        places = (layout.targets != IGNORE).nonzero()
        some = places[:: max(1, len(places) // WATCHED)]
        targets = layout.targets[some[:, 0], some[:, 1]]
        logits = self.talker.logits(hidden[some[:, 0], some[:, 1]])
        seen: dict[str, Tensor | float] = {"right": (logits.argmax(-1) == targets).float().mean()}
        if layout.ends.any():
            ends = self.talker.logits(hidden[layout.ends])
            seen["stop"] = F.cross_entropy(ends, layout.targets[layout.ends])
        return seen


def _named(logits: Tensor, phones: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of phones (...) by logits (..., V), and the share that is named right; zeros where none is known."""
    known = phones != IGNORE
    logits, wanted = logits[known].float(), phones[known]
    if not len(wanted):
        return logits.sum(), logits.new_zeros(())
    right = (logits.detach().argmax(-1) == wanted).float().mean()
    return F.cross_entropy(logits, wanted), right


def talker_of(model: OmniModel) -> Talker:
    """The Talker of a model, ready to learn. Errors: ConfigError where it has none."""
    if model.talker is None:
        raise ConfigError(f"there is no Talker to train; the model has {', '.join(model.parts) or 'nothing'}, expected thinker and talker")  # fmt: skip
    return model.talker.requires_grad_(True)
