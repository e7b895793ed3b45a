"""Recognition: recordings of five published sets -> words or characters that the model gets wrong.

    LibriSpeech   LibriSpeech/test-clean/1089/134686/1089-134686.trans.txt and .flac
    CommonVoice   cv-corpus-15.0-2023-09-08/en/test.tsv, clips/*.mp3
    FLEURS        fleurs/data/en_us/test.tsv, audio/test.tar.gz (or test/*.wav)
    WenetSpeech   WenetSpeech/WenetSpeech.json, audio/test_net/.../*.opus
    VoxPopuli     voxpopuli/data/en/asr_test.tsv, test/test_part_0.tar.gz (or transcribed_data/en/asr_test.tsv, <year>/*.ogg)

Sums of errors over sums of words, after Whisper's normal form; Chinese in characters. The questions are those of the authors'
cookbook; a model that was trained with another one is asked that (--ask).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from thinktalk.errors import InputError
from thinktalk.eval.bench import Bench
from thinktalk.eval.public.asking import Ask, answered, told, worst_of
from thinktalk.eval.public.published import figure
from thinktalk.eval.public.scoring import CHARACTERS, errors, normal_form
from thinktalk.eval.public.sets import Clips, content, cut, need, table
from thinktalk.eval.rows import Row

__all__ = ["ABILITIES", "commonvoice", "fleurs", "librispeech", "voxpopuli", "wenetspeech"]

SYSTEM = "You are a speech recognition model."
QUESTIONS: Mapping[str, str] = {
    "en": "Transcribe the English audio into text without any punctuation marks.",
    "fr": "Transcribe the French audio into text without any punctuation marks.",
    "zh": "请将这段中文语音转换为纯文本，去掉标点符号。",
    "yue": "请将这段粤语语音转换为纯文本，去掉标点符号。",
}
Loader = Callable[[Path], list[Ask]]


def _ask(key: str, language: str, target: str, sound: Callable) -> Ask:
    return Ask(key=key, target=target, sound=sound, question=QUESTIONS[language], system=SYSTEM)


def _rows(bench: Bench, parts: Mapping[str, tuple[str, str, Loader]]) -> Iterator[Row]:
    """A row a part; one that is not there says what to fetch, and the others go on."""
    for key, (title, language, load) in parts.items():
        unit = "CER" if language in CHARACTERS else "WER"
        title = f"{unit}, {title}"
        try:
            asks = load(bench.data)
        except InputError as error:
            yield Row(key=key, title=title, lower_is_better=True, missing=str(error), **figure(key))
            continue
        _, form = normal_form(language)
        results = answered(bench, key, asks)
        counts = [errors(language, r["text"], r.get("said", "")) for r in results]
        tops, bottoms = [float(c.count) for c in counts], [float(c.length) for c in counts]
        yield Row(
            title=title, tops=tops, bottoms=bottoms, lower_is_better=True, judge=form,
            worst=worst_of(bench, asks, results, tops, bottoms), **told(bench, key, results),
        )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- LibriSpeech


def librispeech(bench: Bench) -> Iterator[Row]:
    """Words of LibriSpeech that are transcribed wrongly."""
    parts = ("dev-clean", "dev-other", "test-clean", "test-other")
    yield from _rows(bench, {f"librispeech/{p}": (f"LibriSpeech {p}", "en", partial(_librispeech, p)) for p in parts})  # fmt: skip


def _librispeech(part: str, data: Path) -> list[Ask]:
    folder = need(data, f"LibriSpeech/{part}", part, what=f"LibriSpeech's {part}", fetch=f"{part}.tar.gz of openslr.org/12, unpack it")  # fmt: skip
    asks = []
    for path in sorted(folder.rglob("*.trans.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            key, _, words = line.strip().partition(" ")
            asks.append(_ask(key, "en", words, partial(str, path.parent / f"{key}.flac")))
    return _some(asks, folder)


def _some(asks: list[Ask], where: Path) -> list[Ask]:
    if not asks:
        raise InputError(f"{where}: holds no items, expected some; fetch it again")
    return asks


# ----------------------------------------------------------------------------------------------------------- CommonVoice


def commonvoice(bench: Bench) -> Iterator[Row]:
    """Words of CommonVoice 15 that are transcribed wrongly."""
    languages = {"en": "en", "zh": "zh-CN", "yue": "yue", "fr": "fr"}
    yield from _rows(bench, {f"commonvoice/{l}": (f"CommonVoice 15 {name}", l, partial(_commonvoice, l, name)) for l, name in languages.items()})  # fmt: skip


def _commonvoice(language: str, name: str, data: Path) -> list[Ask]:
    path = need(
        data, f"cv-corpus-15.0-2023-09-08/{name}/test.tsv", f"cv-corpus-15*/{name}/test.tsv",
        what=f"CommonVoice 15 {name}", fetch=f"cv-corpus-15.0-2023-09-08 ({name}) of commonvoice.mozilla.org, unpack it",
    )  # fmt: skip
    clips = path.parent / "clips"
    rows = table(path, ("path", "sentence"))
    return _some([_ask(r["path"], language, r["sentence"], partial(str, clips / r["path"])) for r in rows], path)  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- FLEURS

FLEURS = ("id", "file", "raw", "text", "phones", "samples", "gender")  # the file has no header


def fleurs(bench: Bench) -> Iterator[Row]:
    """Words of FLEURS that are transcribed wrongly."""
    languages = {"zh": "cmn_hans_cn", "en": "en_us"}
    yield from _rows(bench, {f"fleurs/{l}": (f"FLEURS {name}", l, partial(_fleurs, l, name)) for l, name in languages.items()})  # fmt: skip


def _fleurs(language: str, name: str, data: Path) -> list[Ask]:
    path = need(data, f"fleurs/data/{name}/test.tsv", f"{name}/test.tsv", what=f"FLEURS {name}", fetch=f"data/{name}/test.tsv and audio/test.tar.gz of google/fleurs")  # fmt: skip
    clips = Clips(need(path.parent, "audio/test.tar.gz", "audio/test", what="the sounds of the table", fetch="audio/test.tar.gz of the same set"))  # fmt: skip
    rows = sorted(table(path, ("file", "raw"), header=FLEURS), key=lambda r: clips.place(r["file"]))
    return _some([_ask(r["file"], language, r["raw"], partial(clips, r["file"])) for r in rows], path)  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- WenetSpeech


def wenetspeech(bench: Bench) -> Iterator[Row]:
    """Characters of WenetSpeech that are transcribed wrongly."""
    yield from _rows(bench, {f"wenetspeech/{p}": (f"WenetSpeech test-{p}", "zh", partial(_wenetspeech, p)) for p in ("net", "meeting")})  # fmt: skip


def _wenetspeech(part: str, data: Path) -> list[Ask]:
    path = need(data, "WenetSpeech/WenetSpeech.json", "WenetSpeech.json", what="WenetSpeech", fetch=f"WenetSpeech.json and audio/test_{part} of wenet.org.cn/WenetSpeech")  # fmt: skip
    try:
        asks = [
            _ask(s["sid"], "zh", s["text"], partial(cut, path.parent / audio["path"], float(s["begin_time"]), float(s["end_time"])))
            for audio in content(path)["audios"]
            if f"/test_{part}/" in f"/{audio['path']}"
            for s in audio["segments"]
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is not WenetSpeech's ({error!r}), expected audios with path and segments; fetch it again") from None  # fmt: skip
    return _some(asks, path)


# ------------------------------------------------------------------------------------------------------------- VoxPopuli


def voxpopuli(bench: Bench) -> Iterator[Row]:
    """Words of VoxPopuli that are transcribed wrongly."""
    yield from _rows(bench, {"voxpopuli/en": ("VoxPopuli en", "en", _voxpopuli)})


def _voxpopuli(data: Path) -> list[Ask]:
    path = need(
        data, "voxpopuli/data/en/asr_test.tsv", "voxpopuli/transcribed_data/en/asr_test.tsv", "transcribed_data/en/asr_test.tsv",
        what="VoxPopuli's English test", fetch="data/en/asr_test.tsv and data/en/test/test_part_0.tar.gz of facebook/voxpopuli",
    )  # fmt: skip
    rows = table(path, ("normalized_text",))
    key = "id_" if "id_" in rows[0] else "id"
    places = (path.parent / "test" / "test_part_0.tar.gz", path.parent / "test", path.parent)
    clips = Clips(next(place for place in places if place.exists()))
    names = {r[key]: next((n for n in (f"{r[key]}.wav", f"{r[key]}.ogg") if n in clips), f"{r[key]}.wav") for r in rows}  # fmt: skip
    rows.sort(key=lambda r: clips.place(names[r[key]]))
    return _some([_ask(r[key], "en", r["normalized_text"], partial(clips, names[r[key]])) for r in rows], path)  # fmt: skip


ABILITIES = {
    "librispeech": librispeech, "commonvoice": commonvoice, "fleurs": fleurs, "wenetspeech": wenetspeech, "voxpopuli": voxpopuli,
}  # fmt: skip
