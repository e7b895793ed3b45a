"""Hearing and speaking: recordings -> words, and words -> recordings, each heard by judges that nano never learned with.

    hear        recording --transcribe--> words                      against what is said in it
    read        text --say, by an own voice--> wave                  heard by the judges; whose voice it is; how good it sounds
    answer      spoken question --chat--> words and wave             the wave against its own words
    sample      a voice of 3 s that nobody trained with              is what is said with it nearer to it than to five others?

A result holds the words that were heard, not their errors: those are counted when the row is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from thinktalk.data.samples import Sample
from thinktalk.data.synth.wording import aloud
from thinktalk.errors import InputError
from thinktalk.eval.bench import Bench
from thinktalk.eval.heldout import is_new
from thinktalk.eval.items import Item
from thinktalk.eval.judges import HEARD_HZ
from thinktalk.eval.rows import Row
from thinktalk.eval.suites.spoken import (
    LONGEST_TEXT,
    centres,
    embedded,
    guest,
    heard_rows,
    judged,
    limits,
    named,
    opinion_row,
    panel,
    score,
    word_rate,
)
from thinktalk.eval.worst import keep_sound
from thinktalk.metrics.similarity import cosine, nearest
from thinktalk.weights.voices import DEFAULT

__all__ = ["ABILITIES", "answer", "hear", "read", "sample"]

SAMPLE_SECONDS = 3.0

# ---------------------------------------------------------------------------------------------------------------- hears


def hear(bench: Bench) -> Iterator[Row]:
    """Words of recordings that `transcribe` gets wrong: of voices it knows, of six it does not, of a person."""
    sets: dict[str, tuple[str, Callable[[], list[Sample]], tuple[str, str, str]]] = {
        "known": ("training voices, new sentences", lambda: bench.held.sentences("dev"), ("20 %", "8 %", "3 %")),
        "new": ("six held-out voices", lambda: [s for s in bench.held.sentences("test") if is_new(s)], ("30 %", "12 %", "5 %")),
        "human": ("recorded human prompts", bench.held.human, ("70 %", "45 %", "20 %")),
    }  # fmt: skip
    for name, (about, samples, reach) in sets.items():
        row = dict(key=f"hear/{name}", title=f"WER, transcribing: {about}", unit="%", lower_is_better=True, reach=reach)  # fmt: skip
        try:
            items = named(samples()[: bench.n])
        except InputError as error:
            yield Row(**row, missing=str(error))
            continue
        results = bench.results(f"hear/{name}", items, lambda item: _transcribed(bench, item.content), only="text")  # fmt: skip
        yield Row(**row, **word_rate(results, "heard"), seed=bench.seed, judge="reference text")


def _transcribed(bench: Bench, sample: Sample) -> dict[str, Any]:
    pcm = sample.pcm(HEARD_HZ)
    heard = bench.omni.transcribe((pcm, HEARD_HZ), max_text_tokens=LONGEST_TEXT)
    return {"heard": heard, "sound": keep_sound(bench.out, pcm, HEARD_HZ)}


# --------------------------------------------------------------------------------------------------------------- speaks


def read(bench: Bench) -> Iterator[Row]:
    """Sentences of test read by the model's own voices in turn."""
    voices = [name for name in bench.omni.voices if name != DEFAULT] or [DEFAULT]
    items = []
    for n, item in enumerate(named(bench.held.sentences("test")[: bench.n])):
        voice = voices[n % len(voices)]
        items.append(Item(f"{item.key}-{voice}", voice, told={**item.told, "voice": voice}))
    recorded = [s for s in bench.held.sentences("dev") if s.voice in voices]
    known = centres(bench, recorded)

    def work(item: Item) -> dict[str, Any]:
        voice = item.content
        reply = bench.omni.say(item.told["text"], voice=voice, **limits(bench))
        told = judged(bench, reply)
        return told | ({"alike": cosine(embedded(bench, reply), known[voice])} if voice in known else {})  # fmt: skip

    results = bench.results("read", items, work, judge=panel(bench), recorded=len(recorded))
    yield from heard_rows(bench, results, "read", "WER of its speech: reading", ("25 %", "8 %", "3 %"))  # fmt: skip
    yield opinion_row(bench, results, "read/p808", "DNSMOS P.808 of its speech: reading", "p808")
    yield opinion_row(bench, results, "read/ovrl", "DNSMOS overall of its speech: reading", "ovrl")
    row = dict(key="read/voice", title="similarity to the asked voice", reach=("0.75", "0.80", "0.90"))  # fmt: skip
    asked = [r for r in results if r["voice"] in known]
    if not asked:
        yield Row(**row, unit="", missing="no recordings of its own voices in dev")
    else:
        yield Row(
            **row, unit="", judge=bench.judges.speakers.name, seed=bench.seed, **score(asked, "alike"),
            note="cosine to the mean of recordings of that voice",
        )  # fmt: skip


def answer(bench: Bench) -> Iterator[Row]:
    """Spoken questions answered aloud: the sound against the model's own words."""
    asked_of = named(bench.held.dialogues()[: bench.n])
    # where nothing is answered, the words of the right answer were not heard
    items = [
        Item(i.key, i.content, told={"text": i.content.record["answer_text"]}) for i in asked_of
    ]

    def work(item: Item) -> dict[str, Any]:
        asked = item.content.resolved(item.content.messages[:-1])
        reply = bench.omni.chat(asked, **limits(bench))
        return {"written": reply.text, "text": aloud(reply.text), **judged(bench, reply)}

    results = bench.results("answer", items, work, judge=panel(bench))
    yield from heard_rows(bench, results, "answer", "WER of its speech: answering", ("25 %", "10 %", "4 %"))  # fmt: skip
    # letters and names are hard to hear whoever says them: what the judge makes of the recorded answers, of no model
    first = bench.listeners[0]
    listener = bench.judges.listener(first)
    own = bench.results(
        "answer/source", items, lambda item: {first: listener(item.content.pcm(HEARD_HZ, member="answer.opus"))},
        judge=listener.name, weights="none",
    )  # fmt: skip
    yield Row(key="answer/source", title="of the recorded answers", lower_is_better=True, judge=listener.name, seed=bench.seed, **word_rate(own, first))  # fmt: skip


def sample(bench: Bench) -> Iterator[Row]:
    """What is said with 3 s of a voice that nobody trained with, and whose it is most like."""
    row = dict(key="sample/nearest", title="unheard 3 s sample nearer to its own voice than to five others", reach=("50 %", "70 %", "90 %"))  # fmt: skip
    samples = bench.held.sentences("test")
    new = [s for s in samples if is_new(s)]
    long = [s for s in new if len(s.pcm(HEARD_HZ)) >= SAMPLE_SECONDS * HEARD_HZ]
    texts = [s.text for s in samples if not is_new(s)]
    known = centres(bench, new)
    if len(known) < 2 or not long or not texts:
        yield Row(**row, missing=f"recordings of {len(known)} held-out voices and {len(long)} samples of 3 s, expected six voices with some each")  # fmt: skip
        return
    sources = named(long)
    items = []
    for n in range(bench.n):  # each sample with other words, as often as it takes
        source = sources[n % len(sources)]
        items.append(
            Item(f"{source.key}+{n // len(sources)}", (source.content, texts[n % len(texts)]))
        )

    def work(item: Item) -> dict[str, Any]:
        source, text = item.content
        with guest(bench, source, seconds=SAMPLE_SECONDS) as voice:
            reply = bench.omni.say(text, voice=voice, **limits(bench))
        said = embedded(bench, reply)
        found = nearest(said, known)
        right = int(found == source.voice)
        return {"voice": source.voice, "nearest": found, "right": right, "alike": cosine(said, known[source.voice])}  # fmt: skip

    made_of = dict(
        recorded=len(new), long=len(long), texts=len(texts)
    )  # which words go with which sample
    results = bench.results("sample", items, work, judge=bench.judges.speakers.name, **made_of)
    judged = dict(judge=bench.judges.speakers.name, seed=bench.seed)
    yield Row(**row, **judged, **score(results, "right"), chance=1 / len(known))
    yield Row(key="sample/voice", title="similarity to that voice", unit="", **judged, **score(results, "alike"))  # fmt: skip


ABILITIES = {"hear": hear, "read": read, "answer": answer, "sample": sample}
