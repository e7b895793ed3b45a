"""Spoken: what the rows of speech share: items, a voice made of a recording, what judges say of a wave, rows of it.

wave (S,) --judges--> {"whisper-base": words, ..., "p808": opinion}       results --word_rate, score--> what a Row needs
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import soxr
import torch

from thinktalk.code2wav.speaker import Voice
from thinktalk.data.samples import Sample
from thinktalk.eval.bench import Bench
from thinktalk.eval.items import Item, Result
from thinktalk.eval.judges import HEARD_HZ
from thinktalk.eval.rows import Row
from thinktalk.eval.worst import keep_sound, worst
from thinktalk.events import Reply
from thinktalk.layers.mel import speech_mel
from thinktalk.metrics.similarity import centre
from thinktalk.metrics.wer import Errors, word_errors

__all__ = [
    "LONGEST_TEXT",
    "at_heard_hz",
    "centres",
    "embedded",
    "guest",
    "heard_rows",
    "judged",
    "limits",
    "named",
    "opinion_row",
    "opinions",
    "panel",
    "score",
    "told",
    "word_rate",
]

LONGEST_TEXT = 120  # tokens of an answer: a model that does not stop must not hold up the night
LONGEST_SPEECH_S = 20.0
SILENCE = 1.0  # the worst opinion there is
FEWEST_OF_A_VOICE = 2  # recordings that a voice's centre needs

# ---------------------------------------------------------------------------------------------------------------- items


def named(samples: Sequence[Sample]) -> list[Item]:
    """Each under the name that the maker gave it (set, shard, sample), with what is said in it."""
    return [Item("/".join(s.where.split("/")[-3:]), s, told={"text": s.text}) for s in samples]


class Recorded(Protocol):
    """What has a sound: a Sample, or a file."""

    def pcm(self, sample_rate: int, /) -> np.ndarray:
        """Its samples (S,) at a rate."""
        ...


@contextmanager
def guest(bench: Bench, source: Recorded, *, seconds: float | None = None) -> Iterator[str]:
    """The name of a voice made of a recording, which the model has until the end of the block.

    Its token is the one of a voice that has none of its own, so the sample alone tells it.
    """
    config = bench.omni.config
    assert config.code2wav is not None and config.talker is not None
    rate, dit = config.code2wav.sample_rate, config.code2wav.dit
    pcm = torch.from_numpy(source.pcm(rate)[: round(rate * seconds) if seconds else None])
    mel = speech_mel(pcm[None], config.code2wav.mel).transpose(1, 2)
    voices, name = bench.omni.model.voices, "guest of the evaluation"
    voices[name] = Voice(name, torch.zeros(1, dit.speaker_width), mel, config.talker.text_start)
    try:
        yield name
    finally:
        del voices[name]


def limits(bench: Bench) -> dict[str, Any]:
    """Options of every answer."""
    config = bench.omni.config.code2wav
    assert config is not None
    codes = round(LONGEST_SPEECH_S * config.codes_per_second)
    return {
        "seed": bench.seed,
        "max_text_tokens": LONGEST_TEXT,
        "max_codes": codes,
        **bench.options,
    }


# --------------------------------------------------------------------------------------------------------------- judged


def panel(bench: Bench) -> str:
    """Who judges speech, with versions: results of another panel are others."""
    names = [bench.judges.listener(name).name for name in bench.listeners]
    return "; ".join([*names, bench.judges.speakers.name, bench.judges.quality.name])


def judged(bench: Bench, reply: Reply) -> dict[str, Any]:
    """What is written down of a spoken reply: how long it is, and the opinions of it."""
    wave = at_heard_hz(reply.audio, bench)
    kept = keep_sound(bench.out, wave, HEARD_HZ)
    return {"spoken_s": round(len(wave) / HEARD_HZ, 3), "codes": len(reply.codes or []), "sound": kept, **opinions(bench, wave)}  # fmt: skip


def opinions(bench: Bench, pcm: np.ndarray) -> dict[str, Any]:
    """What each listener hears, and how good it sounds."""
    heard = {name: bench.judges.listener(name)(pcm) for name in bench.listeners}
    quality = bench.judges.quality(pcm) if len(pcm) else {"p808": SILENCE, "ovrl": SILENCE}
    return heard | {name: round(value, 4) for name, value in quality.items()}


def embedded(bench: Bench, reply: Reply) -> np.ndarray:
    """Whose voice a reply is in. Errors: InputError (it says nothing)."""
    return bench.judges.speakers.embed(at_heard_hz(reply.audio, bench))


def at_heard_hz(wave: np.ndarray | None, bench: Bench) -> np.ndarray:
    """A wave of the model as the judges hear it."""
    if wave is None or not len(wave):
        return np.zeros(0, np.float32)
    assert bench.omni.config.code2wav is not None
    rate = bench.omni.config.code2wav.sample_rate
    return np.clip(soxr.resample(wave, rate, HEARD_HZ), -1, 1).astype(np.float32)


def centres(bench: Bench, samples: Iterable[Sample]) -> dict[str, np.ndarray]:
    """Each voice that has recordings enough, as their mean."""
    voices: dict[str, list[np.ndarray]] = {}
    for source in samples:
        assert source.voice is not None
        voices.setdefault(source.voice, []).append(bench.judges.speakers.embed(source.pcm(HEARD_HZ)))  # fmt: skip
    return {name: centre(all_) for name, all_ in sorted(voices.items()) if len(all_) >= FEWEST_OF_A_VOICE}  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------- rows


def word_rate(results: Sequence[Result], heard: str) -> dict[str, Any]:
    """What a Row of WER needs: errors and words of each item. What could not be answered was not heard at all."""
    counts = [_errors(result, heard) for result in results]
    tops, bottoms = [c.count for c in counts], [c.length for c in counts]
    shown = worst(results, tops, bottoms, lower_is_better=True, perfect=0.0)
    return {"tops": tops, "bottoms": bottoms, "worst": shown, **told(results)}


def _errors(result: Mapping[str, Any], heard: str) -> Errors:
    return word_errors(result["text"], result.get(heard, ""))


def score(results: Sequence[Result], name: str, *, lowest: float = 0.0) -> dict[str, Any]:
    """What a Row of a mean needs; a fault counts as the lowest there is."""
    tops = [float(r.get(name, lowest)) for r in results]
    return {"tops": tops, "worst": worst(results, tops, perfect=1.0), **told(results)}


def told(results: Sequence[Result]) -> dict[str, Any]:
    """What every Row tells of its items."""
    return {
        "keys": [r["key"] for r in results],
        "seconds": sum(r["seconds"] for r in results),
        "faults": sum("fault" in r for r in results),
        "tokens": sum(_tokens(r) for r in results),
    }


def _tokens(result: Mapping[str, Any]) -> int:
    """Codes of speech that were made, where they were counted or kept."""
    codes = result.get("codes", 0)
    return codes if isinstance(codes, int) else len(codes)


def heard_rows(
    bench: Bench, results: Sequence[Result], key: str, title: str, reach: tuple[str, str, str]
) -> Iterator[Row]:
    """A row for each listener; the first one's is the table's."""
    for n, name in enumerate(bench.listeners):
        judge = bench.judges.listener(name).name
        words = title if n == 0 else f"{title}, by another judge"
        yield Row(key=key if n == 0 else f"{key}/{name}", title=words, lower_is_better=True, reach=reach if n == 0 else ("", "", ""), judge=judge, seed=bench.seed, **word_rate(results, name))  # fmt: skip


def opinion_row(
    bench: Bench, results: Sequence[Result], key: str, title: str, name: str, reach: tuple[str, str, str] = ("", "", "")
) -> Row:  # fmt: skip
    """A row of one opinion; what was not said at all has the worst."""
    return Row(key=key, title=title, unit="", reach=reach, judge=bench.judges.quality.name, seed=bench.seed, **score(results, name, lowest=SILENCE))  # fmt: skip
