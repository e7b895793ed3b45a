"""States: what was asked and answered -> what the Talker hears of the Thinker, by the code that runs when people talk.

    Prompt, reply tokens --pipeline.embed, recite--> Told: e + h of prompt (P, D) and reply (R, D), positions (3, P)

No gradient flows here: the Thinker and its senses are frozen, and stay outside of what the loop shards and saves. With a
cache, what was told is kept on disk by a hash of everything it follows from, so a changed Thinker never finds old states.

Letters: P tokens of the prompt, R of the reply, D width of the Thinker.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from thinktalk.errors import ConfigError
from thinktalk.pipeline import embed, recite
from thinktalk.prompt import Prompt
from thinktalk.weights.hf import OmniModel

__all__ = ["StateCache", "Teller", "Told"]

SAMPLED = 64  # numbers of each tensor that tell one Thinker from another


@dataclass(frozen=True)
class Told:
    """What the Talker hears of one answer."""

    prompt: (
        Tensor  # (P, D) embedding (zero where a medium stands) + hidden state of each token asked
    )
    reply: Tensor  # (R, D) the same of each token answered; the end of the answer is never read
    positions: Tensor  # (3, P) int64 TMRoPE positions of the prompt

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt)


class Teller:
    """The frozen Thinker with its senses."""

    def __init__(self, model: OmniModel, cache: str | Path | None = None):
        """`cache`: a directory for states, made where it is not there. Errors: ConfigError (no Thinker)."""
        if model.thinker is None:
            raise ConfigError(f"the Talker learns from a Thinker; the model has {', '.join(model.parts) or 'nothing'}, expected thinker and talker")  # fmt: skip
        self.model = model
        for module in self._frozen():
            module.requires_grad_(False)
        self.cache = StateCache(cache, self.fingerprint()) if cache else None

    def __call__(self, asked: Sequence[tuple[Prompt, Sequence[int]]]) -> list[Told]:
        """What is told of each (prompt, reply tokens), on the Thinker's device."""
        told: list[Told | None] = [self.cache.find(*item) if self.cache else None for item in asked]
        missing = [n for n, found in enumerate(told) if found is None]
        if missing:
            fresh = self._tell([asked[n] for n in missing])
            for n, one in zip(missing, fresh, strict=True):
                told[n] = one
                if self.cache is not None:
                    self.cache.keep(*asked[n], one)
        home = self.embedding.device
        return [Told(t.prompt.to(home), t.reply.to(home), t.positions.to(home)) for t in told if t]

    @property
    def embedding(self) -> Tensor:
        """The Thinker's table of tokens (V, D); rows of it name voices, the end of a text and its padding."""
        assert self.model.thinker is not None
        return self.model.thinker.embed.weight

    def to(self, device: torch.device) -> None:
        """Move where the Talker is."""
        if self.embedding.device != device:
            for module in self._frozen():
                module.to(device)

    def _frozen(self) -> list[nn.Module]:
        stages = (self.model.thinker, self.model.audio, self.model.vision)
        return [module for module in stages if module is not None]

    @torch.no_grad()
    def _tell(self, asked: Sequence[tuple[Prompt, Sequence[int]]]) -> list[Told]:
        readings = embed(self.model, [prompt for prompt, _ in asked])
        thoughts = recite(self.model, readings, [reply for _, reply in asked])
        told = []
        for thought in thoughts:
            prompt, reply = thought.chunks
            # what inference mode made cannot be kept for a backward pass: sums and copies are ordinary tensors
            told.append(
                Told(
                    (prompt.hidden + prompt.embeds)[0],
                    (reply.hidden + reply.embeds)[0],
                    prompt.positions[0].clone(),
                )
            )
        return told

    def fingerprint(self) -> str:
        """A name for these weights: of every tensor its name, kind, shape and some of its numbers."""
        digest = hashlib.blake2b(digest_size=10)
        for stage in ("thinker", "audio", "vision"):
            module = getattr(self.model, stage)
            for name, tensor in module.state_dict().items() if module is not None else ():
                flat = tensor.detach().flatten()
                some = flat[:: max(1, flat.numel() // SAMPLED)].to("cpu", torch.float32)
                digest.update(f"{stage}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(some.contiguous().numpy().tobytes())
        return digest.hexdigest()


class StateCache:
    """What was told, in half precision, one file an answer, named by all that it follows from.

    A file that cannot be read counts as not there; one that cannot be written is left out: a cache is never needed.
    """

    def __init__(self, directory: str | Path, fingerprint: str):
        self.directory = Path(directory) / fingerprint
        self.hits, self.misses = 0, 0

    def find(self, prompt: Prompt, reply: Sequence[int]) -> Told | None:
        """What was told of this before."""
        path = self._path(prompt, reply)
        with contextlib.suppress(OSError, SafetensorError, KeyError):
            held = load_file(path)
            self.hits += 1
            return Told(held["prompt"].float(), held["reply"].float(), held["positions"].long())
        self.misses += 1
        return None

    def keep(self, prompt: Prompt, reply: Sequence[int], told: Told) -> None:
        """Remember it."""
        path = self._path(prompt, reply)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        held = {
            "prompt": told.prompt.to("cpu", torch.float16).contiguous(),
            "reply": told.reply.to("cpu", torch.float16).contiguous(),
            "positions": told.positions.to("cpu", torch.int32).contiguous(),
        }
        with contextlib.suppress(OSError, SafetensorError):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                save_file(held, part)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)

    def _path(self, prompt: Prompt, reply: Sequence[int]) -> Path:
        digest = hashlib.blake2b(digest_size=16)
        for part in _bytes(prompt):
            digest.update(part)
        digest.update(torch.tensor(list(reply), dtype=torch.int64).numpy().tobytes())
        name = digest.hexdigest()
        return self.directory / name[:2] / f"{name[2:]}.safetensors"


def _bytes(prompt: Prompt) -> Iterator[bytes]:
    """Everything of a prompt that decides what is told."""
    yield prompt.token_ids.numpy().tobytes()
    yield prompt.positions.contiguous().numpy().tobytes()
    pictures = [patches for patches, _ in prompt.images] + [p for p, _, _ in prompt.videos]
    for tensor in [*prompt.audio, *pictures]:
        yield str(tuple(tensor.shape)).encode()
        yield tensor.float().contiguous().numpy().tobytes()
    yield str([grid for _, grid in prompt.images] + [grid for _, grid, _ in prompt.videos]).encode()
