"""Tiny shards for tests: tones of known length with texts, in tars that cost nothing to make."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import soundfile

from thinktalk.data.shards import ShardWriter

RATE = 16_000


def tone(seconds: float, *, hertz: float = 220.0, form: str = "WAV") -> bytes:
    """A sound file."""
    t = np.arange(round(seconds * RATE)) / RATE
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * hertz * t), RATE, format=form)
    return file.getvalue()


def record(number: int, *, frames: int = 20) -> dict:
    """A spoken sample: `frames` frames of 25 ms, three phones."""
    durations = [2, 3, 4, 5, frames - 14]
    return {
        "text": f"Sentence number {number}.",
        "voice": f"voice{number % 3}",
        "seconds": frames * 0.025,
        "phones": "abc",
        "durations": durations,
        "codes": [number, 1, 2],
    }


def write_shards(
    folder: Path, *, shards: int, samples: int, name: str = "train", first: int = 0
) -> list[str]:
    """`shards` tars of `samples` samples; sample n lasts 0.5 + 0.025 (n % 7) seconds."""
    paths = []
    for shard in range(shards):
        with ShardWriter(folder / f"{name}{shard}") as writer:
            for i in range(samples):
                n = first + shard * samples + i
                frames = 20 + n % 7
                content = {
                    "json": json.dumps(record(n, frames=frames)).encode(),
                    "wav": tone(frames * 0.025, hertz=100 + 10 * n),
                }
                writer.write(f"{n:06d}", content)
        paths += [str(p) for p in writer.paths]
    return paths
