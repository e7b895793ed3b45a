"""Published sets: what everybody measures with, read as it is downloaded, and the report's figure beside ours.

sets.py           files of a set -> items (tables, parquet, folders, tars); a missing set says what to fetch
asking.py         an item with its sound -> the model's words, several together
scoring.py        words -> errors, BLEU, choices and labels; how the normal forms are called
published.py      the report's own figures
recognition.py    LibriSpeech, CommonVoice, FLEURS, WenetSpeech, VoxPopuli
understanding.py  CoVoST2, MELD, VocalSound, GiantSteps, MusicCaps
choices.py        MMAU, VoiceBench
cloning.py        Seed-TTS-eval: a text said with a stranger's voice

A module has ABILITIES: the name of a suite -> (bench -> rows).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["ALL", "GROUPS", "PUBLISHED"]

ALL: Final = 1 << 40
"""As many items as there are."""
PUBLISHED: Mapping[str, str] = {
    "librispeech": "public.recognition", "commonvoice": "public.recognition", "fleurs": "public.recognition",
    "wenetspeech": "public.recognition", "voxpopuli": "public.recognition",
    "covost2": "public.understanding", "meld": "public.understanding", "vocalsound": "public.understanding",
    "giantsteps": "public.understanding", "musiccaps": "public.understanding",
    "mmau": "public.choices", "voicebench": "public.choices",
    "seed-tts": "public.cloning",
}  # fmt: skip
"""Suites and the modules of thinktalk.eval that have them, in the order of the report's tables."""
AUDIO = ("public.recognition", "public.understanding", "public.choices")
GROUPS: Mapping[str, tuple[str, ...]] = {
    "audio": tuple(name for name in PUBLISHED if PUBLISHED[name] in AUDIO),
}
"""Suites that are several."""
