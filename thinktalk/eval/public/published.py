"""Published: the figures of the report for the 7B model, by the keys of our rows, so that they stand beside ours.

    figure("librispeech/test-clean")  ->  {"published": 1.8, "published_at": "tables 2 and 3"}

Qwen2.5-Omni Technical Report, arXiv 2503.20215, with the authors' README for what was corrected there. A figure is as it is
printed: per cent for rates, cosines and indices as they are. None has an interval, and the protocols are told only in part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FIGURES", "Figure", "figure"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One cell of the report."""

    value: float
    metric: str
    table: str
    note: str = ""


TEXT, AUDIO, SPOKEN, IMAGE, VIDEO, OMNI, SPEECH = (
    "table 1", "tables 2 and 3", "table 4", "tables 5 and 6", "table 7", "table 8", "table 9",
)  # fmt: skip
_PRINTED: Mapping[tuple[str, str], Mapping[str, float]] = {
    (TEXT, "accuracy %"): {
        "mmlu-pro": 47.0, "mmlu-redux": 71.0, "livebench": 29.6, "gpqa": 30.8, "math": 71.5, "gsm8k": 88.7,
    },
    (TEXT, "pass@1 %"): {"humaneval": 78.7, "mbpp": 73.2, "multipl-e": 65.8, "livecodebench": 24.6},
    (AUDIO, "WER %"): {
        "librispeech/dev-clean": 1.6, "librispeech/dev-other": 3.5, "librispeech/test-clean": 1.8,
        "librispeech/test-other": 3.4, "commonvoice/en": 7.6, "commonvoice/fr": 7.5, "fleurs/en": 4.1, "voxpopuli/en": 5.8,
    },
    (AUDIO, "CER %"): {
        "commonvoice/zh": 5.2, "commonvoice/yue": 7.3, "fleurs/zh": 3.0, "wenetspeech/net": 5.9, "wenetspeech/meeting": 7.7,
    },
    (AUDIO, "BLEU"): {"covost2/en-de": 30.2, "covost2/de-en": 37.7, "covost2/en-zh": 41.4, "covost2/zh-en": 29.4},
    (AUDIO, "accuracy"): {"meld": 57.0, "vocalsound": 93.9, "giantsteps": 88.0},
    (AUDIO, "BLEU-1 to BLEU-4, METEOR, ROUGE-L"): {
        "musiccaps/bleu-1": 0.328, "musiccaps/bleu-2": 0.162, "musiccaps/bleu-3": 0.090, "musiccaps/bleu-4": 0.055,
        "musiccaps/meteor": 0.127, "musiccaps/rouge-l": 0.225,
    },
    (AUDIO, "accuracy %"): {
        "mmau/sound": 67.87, "mmau/music": 69.16, "mmau/speech": 59.76, "mmau": 65.60,
        "voicebench/sd-qa": 55.71, "voicebench/mmsu": 61.32, "voicebench/openbookqa": 81.10,
        "voicebench/ifeval": 52.87, "voicebench/advbench": 99.42,
    },
    (AUDIO, "opinion of a judge, 1 to 5"): {"voicebench/alpacaeval": 4.49, "voicebench/commoneval": 3.93},
    (AUDIO, "mean of all, of 100"): {"voicebench": 74.12},
    (SPOKEN, "accuracy %, spoken questions"): {
        "spoken/mmlu": 65.6, "spoken/ceval": 61.1, "spoken/ifeval": 41.7, "spoken/gsm8k": 85.4, "spoken/math23k": 87.1,
        "spoken/math401": 62.2,
    },
    (IMAGE, "score"): {
        "mmmu": 59.2, "mmmu-pro": 36.6, "mathvista": 67.9, "mathvision": 25.0, "mmbench-en": 81.8, "mmvet": 66.8,
        "mmstar": 64.0, "mme": 2340, "muirbench": 59.2, "crpe": 76.5, "realworldqa": 70.3, "mme-realworld": 61.6,
        "mm-mt-bench": 6.0, "ai2d": 83.2, "textvqa": 84.4, "docvqa": 95.2, "chartqa": 85.3, "ocrbench-v2-en": 57.8,
        "odinw": 42.4, "point": 66.5,
    },
    (IMAGE, "IoU >= 0.5, %"): {
        "refcoco/val": 90.5, "refcoco/testA": 93.5, "refcoco/testB": 86.6, "refcoco+/val": 85.4, "refcoco+/testA": 91.0,
        "refcoco+/testB": 79.3, "refcocog/val": 87.4, "refcocog/test": 87.9,
    },
    (VIDEO, "accuracy %"): {"video-mme": 64.3, "video-mme/subtitles": 72.4, "mvbench": 70.3, "egoschema": 68.6},
    (OMNI, "accuracy %"): {"omnibench/speech": 55.25, "omnibench/sound": 60.0, "omnibench/music": 52.83, "omnibench": 56.13},
    (SPEECH, "WER %"): {"seed-tts/zh": 1.42, "seed-tts/en": 2.33, "seed-tts/hard": 6.54},
    (SPEECH, "cosine"): {"seed-tts/zh/voice": 0.754, "seed-tts/en/voice": 0.641, "seed-tts/hard/voice": 0.752},
}  # fmt: skip
NOTES: Mapping[str, str] = {
    "meld": "printed as 0.570",
    "vocalsound": "printed as 0.939",
    "giantsteps": "printed as 0.88; which accuracy it is is not told",
    "odinw": "42.4 in the README, 42.2 in the paper",
    "seed-tts/en": "2.33 in the paper, 2.32 in the README",
}


def _figures() -> Iterator[tuple[str, Figure]]:
    for (where, metric), cells in _PRINTED.items():
        for key, value in cells.items():
            yield key, Figure(value, metric, where, NOTES.get(key, ""))


FIGURES: Mapping[str, Figure] = dict(_figures())
"""Every figure by the key of the row that measures it."""


def figure(key: str) -> dict[str, Any]:
    """What a Row says of the report's figure; nothing where the report has none."""
    found = FIGURES.get(key)
    return {} if found is None else {"published": found.value, "published_at": found.table}
