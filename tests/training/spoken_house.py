"""Shards of spoken sentences, dialogues and preferences, with codes that were made up, for the Talker's tests."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from sample_house import tone

from thinktalk.data.shards import ShardWriter

__all__ = ["SENTENCES", "write_dialogues", "write_sentences"]

SENTENCES = (
    ("Ethan", "Good morning."),
    ("Chelsie", "Good morning."),
    ("stranger", "Good morning."),
    ("Ethan", "The rain stops at noon."),
    ("Chelsie", "Two red circles."),
    ("stranger", "A quokka, a quagga and a quetzal."),
    ("stranger", "How are you?"),
    ("hermit", "Nobody else says this."),
)
"""Two voices that have tokens, one that has none, and one that says a single sentence."""


def codes_of(number: int, count: int) -> list[int]:
    """Codes that say something."""
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 8192, (count,), generator=generator).tolist()


def write_sentences(folder: Path, *, copies: int = 1) -> str:
    """A shard of SENTENCES, several times over; its path."""
    with ShardWriter(folder / "sentences") as writer:
        for n, (voice, text) in enumerate(SENTENCES * copies):
            record = {
                "text": text,
                "voice": voice,
                "seconds": 0.5,
                "codes": codes_of(n, 6 + n % len(SENTENCES)),
            }
            members = {"json": json.dumps(record).encode(), "wav": tone(0.5, hertz=200 + 20 * n)}
            writer.write(f"{n:04d}", members)
    return str(writer.paths[0])


def write_dialogues(folder: Path, *, count: int = 4) -> str:
    """A shard of spoken questions whose answers are spoken; its path."""
    with ShardWriter(folder / "dialogues") as writer:
        for n in range(count):
            asked = [{"type": "audio", "audio": "question.wav"}]
            messages = [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": f"It is {n}."},
            ]
            record = {
                "messages": messages,
                "seconds": 0.5,
                "answer_codes": codes_of(100 + n, 8 + n),
                "answer_voice": "Chelsie" if n % 2 else "Ethan",
                "answer_seconds": 0.2,
            }
            members = {
                "json": json.dumps(record).encode(),
                "question.wav": tone(0.5),
                "answer.wav": tone(0.2),
            }
            writer.write(f"{n:04d}", members)
    return str(writer.paths[0])
