"""A tiny random system with a voice of its own, and lines for its Talker to learn."""

from __future__ import annotations

import numpy as np
import torch

from thinktalk.media.text import Tokenizer
from thinktalk.training.talker_batches import Kit, Line, Task
from thinktalk.weights.hf import OmniModel, load

__all__ = ["codes_of", "house", "lines", "sound", "task"]

TEXTS = (
    "Good morning.",
    "The train leaves at seven, and it takes about an hour.",
    "I hear a woman asking a question; then there is music.",
    "Two red circles.",
)
VOICES = ("Ethan", "Chelsie", None, "Ethan")


def house(checkpoint: str) -> tuple[OmniModel, Kit]:
    """Thinker, senses and Talker of a checkpoint, and what makes lines for them."""
    model = load(checkpoint, parts=("thinker", "talker"), dtype="float32")
    return model, Kit.of(model.config, model.voices, Tokenizer.load(checkpoint))


def sound(seconds: float, seed: int = 0) -> tuple[np.ndarray, int]:
    """Noise, as a user may say it."""
    random = np.random.default_rng(seed)
    return 0.1 * random.standard_normal(round(16_000 * seconds)).astype(np.float32), 16_000


def codes_of(number: int, count: int) -> list[int]:
    """Codes that say something."""
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 8192, (count,), generator=generator).tolist()


def task(number: int, count: int) -> Task:
    """Somebody asks, in words or with a sound among them, and one voice answers."""
    heard = {"type": "audio", "audio": sound(0.4 + 0.1 * number, number)}
    words = {"type": "text", "text": f"What is number {number}?"}
    asked = [words, heard] if number % 2 else "Say it."
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": TEXTS[number]}]
    return Task(messages, {}, codes_of(number, count), VOICES[number], name=f"line{number}")


def lines(kit: Kit, counts: tuple[int, ...] = (9, 30, 4, 12)) -> list[Line]:
    """One line a count; some speech is longer than its words, some shorter."""
    return [kit.line(task(number, count)) for number, count in enumerate(counts)]
