"""Voices: an engine and a split -> who may speak; new voices are blends, and test voices are nobody's parents.

    cast("kokoro", "train", blends=200, seed=0) -> 22 stock voices and 200 that nobody has
    cast("kokoro", "test", ...)                 -> the same, and the six kept for test

A model's own voices are those that answer. `Said` is what an engine makes of a text.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from thinktalk.data.prompts import split_of
from thinktalk.errors import ConfigError

__all__ = ["ENGINES", "TEST_VOICES", "Engine", "Said", "Voice", "cast", "own_voices"]

STOCK = (
    "af_alloy", "af_aoede", "af_bella", "af_heart", "af_jessica", "af_kore", "af_nicole", "af_nova", "af_river", "af_sarah",
    "af_sky", "am_adam", "am_echo", "am_eric", "am_fenrir", "am_liam", "am_michael", "am_onyx", "am_puck", "am_santa",
    "bf_alice", "bf_emma", "bf_isabella", "bf_lily", "bm_daniel", "bm_fable", "bm_george", "bm_lewis",
)  # fmt: skip
"""Kokoro's English voices: American or British, female or male."""
TEST_VOICES = frozenset(
    {"af_nova", "am_eric", "bf_lily", "bm_lewis", "af_kore", "am_liam", "flite_rms"}
)
"""Never in training, and in no blend."""
OWN = {
    "kokoro": ("af_heart", "am_michael", "bf_emma", "bm_george"),
    "espeak": ("espeak_en-us+f2", "espeak_en-us+m3", "espeak_en+f4", "espeak_en+m1"),
    "flite": ("flite_slt", "flite_awb", "flite_kal", "flite_kal16"),
}
"""Who answers."""
ENGINES = tuple(OWN)
ACCENTS = ("en-us", "en-us", "en-us-nyc", "en", "en-GB-x-rp", "en-GB-scotland")
"""Of espeak-ng, as often as they are here. Whisper tiny.en misses 21 to 25 % of their words, 46 % of the last one's; Caribbean
(51 %) and West Midlands (41 %) are left out."""
VARIANTS = (
    "f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "Alex", "Alicia", "Andrea", "Annie", "Denis",
    "Gene", "Hugo", "Jacky", "Lee", "Marco", "Mario", "Michael", "Mike", "adam", "anika", "belinda", "benjamin", "boris",
    "david", "ed", "edward", "gustave", "ian", "iven", "john", "linda", "max", "miguel", "norbert", "pablo", "paul",
    "pedro", "quincy", "rob", "sandro", "shelby", "steph", "travis", "victor", "zac",
)  # fmt: skip
"""espeak-ng's throats, those that sound like people's and give the same samples again (caleb, a whisper, does not)."""
PARENTS = 3
MOST = 0.7
"""A blend in which one parent weighs more is still that parent, to the ear."""


@dataclass(frozen=True, slots=True)
class Voice:
    """Someone who speaks: what they are called, and how they are made."""

    name: str
    british: bool
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Kokoro: weights of stock voices. espeak-ng: voice, pitch and spread. flite: voice."""


@dataclass(frozen=True, slots=True)
class Said:
    """A text spoken."""

    pcm: np.ndarray  # (S,) float32
    sample_rate: int
    phones: str
    """One character a phone; "" where the engine does not tell."""
    durations: tuple[int, ...]
    """Frames: silence before, one number a phone, silence after; () where the engine does not tell."""
    frame_seconds: float = 0.025

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.pcm) / self.sample_rate


class Engine(Protocol):
    """What speaks."""

    def say(self, text: str, voice: Voice, *, speed: float = 1.0) -> Said:
        """The text by that voice. Errors: InputError (nothing to say, too much for one breath)."""
        ...


def cast(engine: str, split: str, *, blends: int = 0, seed: int = 0) -> list[Voice]:
    """Who may speak in a split: for training stock voices and `blends` new ones; for test those that are kept for it, too.

    Errors: ConfigError names the engines there are.
    """
    if engine == "kokoro":
        stock = [Voice(v, v[0] == "b", {v: 1.0}) for v in STOCK]
    elif engine == "flite":
        stock = [Voice(f"flite_{v}", False, {"voice": v}) for v in ("awb", "kal", "kal16", "rms", "slt")]  # fmt: skip
    elif engine == "espeak":
        stock = [_robot(name.partition("_")[2], pitch=50, spread=50) for name in OWN["espeak"]]
    else:
        raise ConfigError(f"engine {engine!r} is unknown; have {', '.join(ENGINES)}")
    makers = {"kokoro": _blend, "espeak": _throat}
    new = [makers[engine](n, seed) for n in range(blends)] if engine in makers else []
    return [v for v in [*stock, *new] if split == "test" or not is_kept(v)]


def own_voices(engine: str) -> list[Voice]:
    """The voices that answer, four of each engine."""
    known = {v.name: v for v in cast(engine, "train")}
    return [known[name] for name in OWN[engine]]


def is_kept(voice: Voice) -> bool:
    """Whether a voice is for tests only: by name, or by the hash of its throat."""
    if voice.name in TEST_VOICES:
        return True
    throat = str(voice.recipe.get("voice", "")).partition("+")[2]
    return voice.name not in OWN["espeak"] and bool(throat) and split_of(throat, salt="voice") == "test"  # fmt: skip


def _blend(number: int, seed: int) -> Voice:
    """Three stock voices of one accent, Dirichlet weights; none of them is kept for test."""
    draw = random.Random(f"{seed} blend {number}")
    accent = draw.choices("ab", (0.7, 0.3))[0]
    parents = draw.sample([v for v in STOCK if v[0] == accent and v not in TEST_VOICES], PARENTS)
    while True:
        shares: Sequence[float] = [draw.gammavariate(1.0, 1.0) for _ in parents]
        weights = [round(s / sum(shares), 3) for s in shares]
        if max(weights) <= MOST:
            break
    return Voice(f"blend_{seed}_{number:04d}", accent == "b", dict(zip(parents, weights, strict=True)))  # fmt: skip


def _throat(number: int, seed: int) -> Voice:
    """An accent, a throat, a pitch."""
    draw = random.Random(f"{seed} throat {number}")
    voice = f"{draw.choice(ACCENTS)}+{draw.choice(VARIANTS)}"
    return _robot(voice, pitch=draw.randint(25, 75), spread=draw.randint(30, 70), named=True)


def _robot(voice: str, *, pitch: int, spread: int, named: bool = False) -> Voice:
    name = f"espeak_{voice}" + (f"_{pitch}_{spread}" if named else "")
    return Voice(name, not voice.startswith("en-us"), {"voice": voice, "pitch": pitch, "spread": spread})  # fmt: skip
