"""ThinkerStage: rows of conversations -> cross-entropy of what is to be said; what p1, p2, p3 and s1 share.

    sounds, pictures, videos --encoders--> features, put where their placeholders stand
    row of tokens --embed, merge, packed_hidden--> hidden --logits of learnt places--> loss

What a stage trains is told by the beginnings of parameters' names: "audio", "vision.merger", "thinker.layers". All else is
frozen, and an encoder that is frozen whole keeps nothing for the backward pass; its features can be kept in memory instead.

Letters: T tokens of the row, D width, N tokens of a medium.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from thinktalk.config import TokenIds
from thinktalk.data.packing import Packed, packed_hidden
from thinktalk.encoders.audio import AudioEncoder
from thinktalk.encoders.vision import VisionEncoder
from thinktalk.errors import ConfigError
from thinktalk.layers.spans import Spans
from thinktalk.messages import Embedded
from thinktalk.thinker.model import merge_media
from thinktalk.training.guide import guided
from thinktalk.training.losses import IGNORE, answer_loss, unlike_length
from thinktalk.training.stage import Metrics, Stage
from thinktalk.weights.model import OmniModel

__all__ = ["ThinkerStage", "adapters_only"]

UNUSED = ("audio.bos_eos",)
"""In the checkpoint, read by nothing: never trained."""
WATCHED = 256
"""Places of a batch at which it is looked whether the right token would be written."""
KINDS = ("text", "sound", "picture", "video")
"""What a conversation holds; the last that fits."""


class ThinkerStage(Stage):
    """Batches are Packed; encoders and Thinker learn as far as `learns` says."""

    def __init__(
        self, model: OmniModel, learns: Sequence[str], *, encoder_rate: float = 1.0, cache_mb: int = 0, length: float = 0.0, guide: float = 0.0
    ):  # fmt: skip
        """`encoder_rate`: learning rate of the encoders as a share of the Thinker's. `cache_mb`: memory for features of
        frozen encoders. `length`: weight of how much longer or shorter than embeddings the features of encoders that learn
        are; the Thinker's first norm hides it from the loss, and fresh adapters grow without end. `guide`: weight of guided
        attention (guide.py). Errors: ConfigError for a name of `learns` that no parameter begins with."""
        if model.thinker is None or model.audio is None or model.vision is None:
            raise ConfigError("the Thinker's stages need audio, vision and thinker; load all three")
        self.ids = model.config.thinker.ids
        self.audio, self.vision, self.thinker = model.audio, model.vision, model.thinker
        self.modules = nn.ModuleDict({"audio": self.audio, "vision": self.vision, "thinker": self.thinker})  # fmt: skip
        self.learns = tuple(learns)
        names = [name for name, _ in self.modules.named_parameters()]
        if unknown := [start for start in self.learns if not any(begins(n, start) for n in names)]:
            raise ConfigError(f"learns {', '.join(unknown)}: no parameter begins so; have audio, vision, thinker and what is in them, such as audio.proj")  # fmt: skip
        self.learning = {n: self._learning(n) for n in self.modules}
        """Whether anything of a part is trained."""
        self.lr_scale = {n: encoder_rate for n in ("audio", "vision") if self.learning[n] and encoder_rate != 1}  # fmt: skip
        self.cache = _Cache(cache_mb << 20)
        self.length, self.guide = length, guide

    # ------------------------------------------------------------------------------------------------ what is trained

    def trainable(self, **turn: str) -> list[nn.Parameter]:
        """The parameters whose names begin as told."""
        return [p for name, p in self.modules.named_parameters() if self.is_trained(name)]

    def is_trained(self, name: str) -> bool:
        """Whether the parameter of this name learns."""
        told = any(begins(name, start) for start in self.learns)
        return told and not any(begins(name, start) for start in UNUSED)

    def parts(self) -> Mapping[str, nn.Module]:
        """Encoders and Thinker, those that learn."""
        return {name: module for name, module in self.modules.items() if self.learning[name]}

    def blocks(self) -> Iterable[nn.Module]:
        """The Thinker's layers, and on one rank the encoders' too.

        On many ranks encoders are gathered whole: how often their layers run depends on what a rank's batch holds, and
        ranks that gather a different number of times would wait for each other for ever.
        """
        yield from self.thinker.layers
        if _ranks() == 1:
            yield from self.audio.layers
            yield from self.vision.layers

    def _learning(self, part: str) -> bool:
        return any(self.is_trained(name) for name, _ in self.modules.named_parameters() if begins(name, part))  # fmt: skip

    # ------------------------------------------------------------------------------------------------------------ loss

    def weight(self, batch: Packed) -> float:
        """Tokens that are learnt."""
        return float((_targets(batch.labels) != IGNORE).sum())

    def loss(
        self, batch: Packed, *, generator: torch.Generator, **turn: str
    ) -> tuple[Tensor, Metrics]:
        """Cross-entropy a token; `right` is the share of some of them that would be written right, by kind too."""
        spans = Spans.of(batch.segments)  # while it is on the CPU
        media, tie = self.features(batch)
        device = self.thinker.embed.weight.device
        # media stay: encoders move what they read
        token_ids, targets = batch.token_ids.to(device), _targets(batch.labels).to(device)
        embeds, _ = merge_media(self.thinker.embed(token_ids), token_ids, media)
        if tie is not None:
            embeds = embeds + tie
        x = Embedded(embeds, batch.positions.to(device))
        heard = batch.heard.to(device) if self.guide and batch.heard is not None else None
        with guided(self.thinker, heard, batch.segments.to(device)) as heads:
            hidden = packed_hidden(self.thinker, x, spans.to(device))
        loss, tokens = answer_loss(hidden, targets, self.thinker.logits)
        metrics: Metrics = {"tokens": tokens, "conversations": float(len(batch.names))}
        if self.length and (unlike := self._unlike(media)) is not None:
            loss = loss + self.length * unlike
            metrics["unlike"] = unlike.detach()
        if heads:
            strayed, looked = torch.stack(heads).mean(0)
            loss = loss + self.guide * strayed
            metrics["looked"] = looked.detach()
        return loss, metrics | self._watched(batch, hidden, targets)

    def _unlike(self, media: Mapping[int, Tensor]) -> Tensor | None:
        """How unlike embeddings in length the features of encoders that learn are; None without any."""
        learning = {self.ids.audio: "audio", self.ids.image: "vision", self.ids.video: "vision"}
        found = [x for token, x in media.items() if self.learning[learning[token]]]
        if not found:
            return None
        length = self.thinker.embed.weight.detach().float().norm(dim=1).mean()
        return torch.stack([unlike_length(x, length) for x in found]).mean()

    @torch.no_grad()
    def _watched(self, batch: Packed, hidden: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """How often the right token would be written, at some places all over the row; also by what the question holds."""
        places = (targets != IGNORE).nonzero()
        places = places[:: max(1, len(places) // WATCHED)][:WATCHED]
        if not len(places):
            return {}
        here = tuple(places.unbind(1))
        right = (self.thinker.logits(hidden[here]).argmax(-1) == targets[here]).float().cpu()
        kinds = kinds_of(batch, self.ids)[tuple(places.cpu().unbind(1))]
        each = {name: right[kinds == number] for number, name in enumerate(KINDS)}
        return {"right": right.mean()} | {f"right_{k}": x.mean() for k, x in each.items() if len(x)}

    def features(self, batch: Packed) -> tuple[dict[int, Tensor], Tensor | None]:
        """Placeholder's id -> features (N, D) of all its media, in order; and a zero that ties in encoders that had none.

        Ranks add their gradients up: an encoder that learns must have one on every rank, whatever the batch holds; and where
        the Thinker does not learn, a batch of text alone would have none at all.
        """
        ids, still = self.ids, list(batch.images)
        heard = self._encode("audio", batch.audio, self.audio.encode)
        seen = self._encode("vision", [*still, *((p, g) for p, g, _ in batch.videos)], self._see)
        groups = {ids.audio: heard, ids.image: seen[: len(still)], ids.video: seen[len(still) :]}
        media = {token: torch.cat(found) for token, found in groups.items() if found}
        if _ranks() == 1 and self.learning["thinker"]:
            return media, None
        nothing = []
        if not heard and self.learning["audio"]:
            silence = torch.zeros(self.audio.config.num_mels, 4)
            nothing += self._encode("audio", [silence], self.audio.encode)
        if not seen and self.learning["vision"]:
            merge, values = self.vision.config.merge, self.vision.config.patch_values
            black = (torch.zeros(merge**2, values), (1, merge, merge))
            nothing += self._encode("vision", [black], self._see)
        return media, sum(x.sum() * 0 for x in nothing) if nothing else None

    def _see(self, pictures: Sequence[tuple[Tensor, tuple[int, int, int]]]) -> list[Tensor]:
        return self.vision.encode(*zip(*pictures, strict=True))

    def _encode(self, part: str, items: Sequence[Any], run: Callable) -> list[Tensor]:
        """Features (N, D) of each sound, picture or video."""
        if not items:
            return []
        if self.learning[part]:
            return self.encode(part, items, run)
        with torch.no_grad():
            if self.cache.room:  # alone: what is kept must not depend on the batch in which it came
                return [self.cache.get(item, lambda item=item: run([item])[0]) for item in items]
            return run(items)

    def encode(self, part: str, items: Sequence[Any], run: Callable) -> list[Tensor]:
        """`run` of an encoder that learns; stages that hold it back do it here."""
        return run(items)


def begins(name: str, start: str) -> bool:
    """Whether a parameter is `start` or inside it."""
    return name == start or name.startswith(f"{start}.")


def kinds_of(batch: Packed, ids: TokenIds) -> Tensor:
    """The number (B, T) of each token's kind in KINDS: that of its conversation."""
    B, T = batch.segments.shape
    owner = batch.segments + (T + 1) * torch.arange(B)[:, None]  # one number a conversation
    kinds = torch.zeros_like(owner)
    for number, placeholder in enumerate((ids.audio, ids.image, ids.video), 1):
        kinds[torch.isin(owner, owner[batch.token_ids == placeholder])] = number
    return kinds


def _targets(labels: Tensor) -> Tensor:
    """Label t is token t; here each place gets what it must say: the next one."""
    targets = torch.full_like(labels, IGNORE)
    targets[:, :-1] = labels[:, 1:]
    return targets


def _ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextlib.contextmanager
def adapters_only(encoder: AudioEncoder | VisionEncoder) -> Iterator[None]:
    """Inside, an encoder passes gradients to its adapter only: what enters that has no history.

    The adapter is what stands between the encoder's last layer and the Thinker: norm and projection, or the merger.
    """
    adapter = encoder.norm if isinstance(encoder, AudioEncoder) else encoder.merger
    hook = adapter.register_forward_pre_hook(lambda _, inputs: tuple(x.detach() for x in inputs))
    try:
        yield
    finally:
        hook.remove()


class _Cache:
    """Features of media by what they are, up to so many bytes; what comes when it is full is computed each time."""

    def __init__(self, room: int):
        self.room = room
        self.kept: dict[bytes, Tensor] = {}
        self.free = room

    def get(self, item: Any, make: Callable[[], Tensor]) -> Tensor:
        """The features of a medium, made when they are not here."""
        values, *form = item if isinstance(item, tuple) else (item,)
        digest = hashlib.blake2b(f"{values.shape} {form}".encode(), digest_size=16)
        digest.update(values.contiguous().view(torch.uint8).numpy())
        key = digest.digest()
        found = self.kept.get(key)
        if found is None:
            found = make()
            if found.nbytes <= self.free:
                self.kept[key] = found
                self.free -= found.nbytes
        return found
