"""A tiny model, its tokenizer and conversations with every kind of medium, for the tests of the Thinker's stages."""

from __future__ import annotations

from functools import cache
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from thinktalk.config import tiny
from thinktalk.data.examples import IGNORED, Example, encode
from thinktalk.data.packing import Packed, pack
from thinktalk.prompt import PromptBuilder, Tokenizer
from thinktalk.weights.model import OmniModel
from thinktalk.weights.random import random_model
from thinktalk.weights.tokenizer import build_tokenizer

CONFIG = tiny()
IDS = CONFIG.thinker.ids
RATE = 16_000


def fresh(seed: int = 0) -> OmniModel:
    """Encoders and Thinker with weights under which every input matters."""
    return random_model(CONFIG, seed=seed, parts=("thinker",))


@cache
def tokenizer() -> Tokenizer:
    """The tiny one."""
    with TemporaryDirectory() as folder:
        return build_tokenizer(CONFIG, folder)


def tone(seconds: float, hertz: float) -> tuple[np.ndarray, int]:
    """A sound in memory."""
    times = np.arange(int(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * hertz * times)).astype(np.float32), RATE


def picture(seed: int) -> Image.Image:
    """56 x 56 noise: 2 x 2 tokens."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (56, 56, 3), np.uint8))


def chat(name: str, question: list, answer: str) -> Example:
    """One turn."""
    parts = [{"type": "text", "text": p} if isinstance(p, str) else p for p in question]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]
    return encode(messages, tokenizer=tokenizer(), config=CONFIG, name=name)


def sounding_video() -> Example:
    """Four grids of 2 x 2 tokens a second apart, 3.6 s of sound among them, and what is said of it."""
    generator = torch.Generator().manual_seed(4)
    builder = PromptBuilder(tokenizer(), CONFIG)
    builder.text("What happens? ")
    patches = torch.randn(4 * 16, 1176, generator=generator)
    mel = torch.randn(128, 360, generator=generator)
    builder.video(patches, (4, 4, 4), 1.0, mel=mel)
    start = builder.prompt().length
    builder.text(" It rings twice.")
    prompt = builder.prompt()
    labels = torch.full_like(prompt.token_ids, IGNORED)
    labels[start:] = prompt.token_ids[start:]
    return Example(prompt.token_ids, prompt.positions, labels, prompt.audio, videos=prompt.videos, name="video")  # fmt: skip


@cache
def examples() -> tuple[Example, ...]:
    """Text, sound, picture, both, and a video with sound."""
    sound = lambda hertz: {"type": "audio", "audio": tone(0.6, hertz)}  # noqa: E731
    seen = lambda seed: {"type": "image", "image": picture(seed)}  # noqa: E731
    return (
        chat("text", ["What is 2 plus 3?"], "Five."),
        chat("sound", [sound(220), "What do you hear?"], "A low tone."),
        chat("picture", ["What is this? ", seen(0)], "Coloured dust."),
        chat("both", [seen(1), sound(440), seen(2), "Which one fits?"], "The first."),
        sounding_video(),
    )


def batch(*names: str, capacity: int | None = None) -> Packed:
    """Some of the examples (all of them where none is named), side by side."""
    chosen = [e for e in examples() if not names or e.name in names]
    return pack(chosen, pad_id=IDS.pad, capacity=capacity)


def gradients(stage, packed: Packed) -> tuple[float, dict[str, torch.Tensor | None]]:
    """Loss and gradient of every parameter of a stage, None where none came."""
    chosen = {id(p) for p in stage.trainable()}
    for parameter in stage.modules.parameters():
        parameter.grad = None
        parameter.requires_grad_(id(parameter) in chosen)
    loss, _ = stage.loss(packed, generator=torch.Generator())
    loss.backward()
    return float(loss.detach()), {n: p.grad for n, p in stage.modules.named_parameters()}
