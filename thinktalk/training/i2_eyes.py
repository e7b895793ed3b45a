"""i2: eyes from nothing, where no Qwen2.5-VL is to be had. Pictures with what is to be seen -> loss of the vision encoder.

    patches -> encoder -> tokens -+-> norm -> what stands in each token, its colour, its place and size     (things)
                                  +-> a reader of two layers, question and answer beside them -> the answer  (answers)

Labels of tokens are to the eyes what labels of frames are to the ears: from the first step on every token is told what it
sees. The reader is a small Thinker that is thrown away: an answer can only be right if the tokens hold what was asked, and
since it reads them as the Thinker will, at the places of TMRoPE, they come in a form that can be read. Counting, relations
and silent videos are learnt from answers alone (image captioners are vision learners: Tschannen 2023).

Letters: N tokens of all pictures, D width of the Thinker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinktalk.config import ThinkerConfig
from thinktalk.data.packing import packed_hidden
from thinktalk.encoders.vision import VisionEncoder
from thinktalk.layers.linear import Linear
from thinktalk.messages import Embedded
from thinktalk.thinker.model import Thinker, merge_media
from thinktalk.training.init import fresh_weights
from thinktalk.training.losses import IGNORE, answer_loss, next_tokens
from thinktalk.training.seen_batches import NOTHING, Cells, Labels, Seen
from thinktalk.training.stage import Stage

__all__ = ["Eyes", "EyesConfig", "EyesStage"]


@dataclass(frozen=True, kw_only=True)
class EyesConfig:
    """How much each loss counts."""

    answers: float = 1.0
    """Cross-entropy an answer token."""
    things: float = 1.0
    """Cross-entropy of what stands in a token: half from tokens with a thing, half from empty ones."""
    colours: float = 0.5
    places: float = 1.0
    """Mean distance of middle and size."""


class Eyes(nn.Module):
    """The encoder, and what listens to its tokens while it learns."""

    def __init__(
        self, vision: VisionEncoder, config: ThinkerConfig, labels: Labels, *, reader_layers: int = 2
    ):  # fmt: skip
        super().__init__()
        width = config.text.width
        self.ids = config.ids
        self.vision = vision
        # a tied head would begin by repeating what it reads
        self.reader = Thinker(replace(config.text, num_layers=reader_layers, tie_embeddings=False))
        fresh_weights(self.reader)
        self.norm = nn.LayerNorm(width)
        self.names = Linear(width, len(labels.names) + 1)
        self.colours = Linear(width, len(labels.colours) + 1)
        self.places = Linear(width, 4)

    def see(self, batch: Seen) -> tuple[list[Tensor], list[Tensor]]:
        """Tokens (n, D) of each picture, and of each video."""
        pictures, videos = batch.packed.images, batch.packed.videos
        shown = [(patches, grid) for patches, grid, *_ in (*pictures, *videos)]
        tokens = self.vision.encode([p for p, _ in shown], [g for _, g in shown]) if shown else []
        return tokens[: len(pictures)], tokens[len(pictures) :]

    def read(self, batch: Seen, pictures: Sequence[Tensor], videos: Sequence[Tensor]) -> Tensor:
        """The reader's hidden states (B, T, D) of the packed conversations."""
        packed, where = batch.packed, self.reader.embed.weight.device
        token_ids = packed.token_ids.to(where)
        media = {self.ids.image: pictures, self.ids.video: videos}
        features = {token: torch.cat(list(x)) for token, x in media.items() if x}
        embeds, _ = merge_media(self.reader.embed(token_ids), token_ids, features)
        told = Embedded(embeds=embeds, positions=packed.positions.to(where))
        return packed_hidden(self.reader, told, packed.segments.to(where))


class EyesStage(Stage):
    """Batches are Seen; everything learns, the encoder is kept."""

    def __init__(self, modules: Eyes, config: EyesConfig | None = None):
        self.modules: Eyes = modules
        self.config = config or EyesConfig()
        modules.requires_grad_(True)

    def parts(self) -> Mapping[str, nn.Module]:
        """The vision encoder."""
        return {"vision": self.modules.vision}

    def weight(self, batch: Seen) -> float:
        """Answer tokens."""
        return float((batch.packed.labels != IGNORE).sum())

    def loss(
        self, batch: Seen, *, generator: torch.Generator, **turn: str
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Weighted sum of the losses; `..._right` is the share of answers (every token of them), names and colours."""
        modules, packed = self.modules, batch.packed
        pictures, videos = modules.see(batch)
        hidden = modules.read(batch, pictures, videos)
        targets = next_tokens(packed.token_ids, packed.labels != IGNORE, packed.segments)
        targets = targets.to(hidden.device)
        parts = {"answers": answer_loss(hidden, targets, modules.reader.logits)[0]}
        metrics: dict[str, Tensor | float] = {"answers_right": self._exact(hidden, targets, packed.segments)}  # fmt: skip
        told = [(x, c) for x, c in zip(pictures, batch.cells, strict=True) if c is not None]
        if told:
            more, right = self._things(*zip(*told, strict=True))
            parts |= more
            metrics |= right
        total = torch.stack([getattr(self.config, name) * part for name, part in parts.items()]).sum()  # fmt: skip
        return total, {**metrics, **{name: part.detach() for name, part in parts.items()}}

    def _things(
        self, tokens: Sequence[Tensor], found: Sequence[Cells]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses of what stands in the tokens of some pictures, and how often it was told rightly."""
        modules = self.modules
        x_ND = modules.norm(torch.cat(list(tokens)))
        names = torch.cat([c.names for c in found]).to(x_ND.device)
        colours = torch.cat([c.colours for c in found]).to(x_ND.device)
        places = torch.cat([c.places for c in found]).to(x_ND.device)
        logits, hues = modules.names(x_ND).float(), modules.colours(x_ND).float()
        there, empty = names > NOTHING, names == NOTHING
        # most tokens are empty: counted alike, "nothing" would be a good answer everywhere
        things = (_entropy(logits, names, there) + _entropy(logits, names, empty)) / 2
        losses = {"things": things, "colours": _entropy(hues, colours, colours != IGNORE)}
        asked = places[:, 0].isfinite()
        guess = modules.places(x_ND).float().sigmoid()[asked]
        losses["places"] = (guess - places[asked]).abs().sum() / max(1, 4 * int(asked.sum()))
        right = {
            "names_right": _share(logits, names, there), "nothing_right": _share(logits, names, empty),
            "colours_right": _share(hues, colours, colours != IGNORE),
        }  # fmt: skip
        return losses, right

    @torch.no_grad()
    def _exact(self, hidden: Tensor, targets: Tensor, segments: Tensor) -> Tensor:
        """The share of conversations whose every answer token would be written right, the ones before it given."""
        here = targets != IGNORE
        guess = self.modules.reader.logits(hidden[here]).argmax(-1)
        wrong = torch.zeros_like(targets, dtype=torch.bool)
        wrong[here] = guess != targets[here]
        segments = segments.to(targets.device)
        rows = torch.arange(len(segments), device=targets.device)[:, None] * (segments.max() + 1)
        number = rows + segments
        asked, faulty = number[here].unique(), number[wrong].unique()
        return 1.0 - faulty.numel() / torch.tensor(float(max(1, asked.numel())))

    @torch.no_grad()
    def score(self, batches: Iterable[Seen]) -> dict[str, float]:
        """Means of loss and metrics over batches that were not learnt from."""
        total, sums = 0.0, dict[str, float]()
        generator = torch.Generator()
        for batch in batches:
            weight = self.weight(batch)
            loss, metrics = self.loss(batch, generator=generator)
            total += weight
            for name, value in {"loss": loss, **metrics}.items():
                sums[name] = sums.get(name, 0.0) + weight * float(value)
        return {name: value / total for name, value in sums.items()} if total else {}


def _entropy(logits_NV: Tensor, target_N: Tensor, here_N: Tensor) -> Tensor:
    """Mean cross-entropy of the chosen tokens; 0, with gradients of 0, where there are none."""
    return F.cross_entropy(logits_NV[here_N], target_N[here_N], reduction="sum") / here_N.sum().clamp(min=1)  # fmt: skip


def _share(logits_NV: Tensor, target_N: Tensor, here_N: Tensor) -> Tensor:
    right = (logits_NV[here_N].argmax(-1) == target_N[here_N]).sum()
    return (right / here_N.sum().clamp(min=1)).detach()
