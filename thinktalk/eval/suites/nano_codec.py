"""Codes and back: recordings -> codes -> waves, heard by the judges; the same codes spoken at once and window by window.

copy        wave --tokenizer--> codes --code2wav--> wave         heard; whose voice; how good; which codes are in use
stream      the same codes spoken window by window, and whole    the difference in words, pair by pair
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from thinktalk.data.samples import Sample
from thinktalk.data.synth.wording import aloud
from thinktalk.errors import ThinktalkError
from thinktalk.eval.bench import Bench
from thinktalk.eval.figures import draw_spectrograms
from thinktalk.eval.items import Item
from thinktalk.eval.judges import HEARD_HZ
from thinktalk.eval.rows import Row
from thinktalk.eval.suites.codes import code_rows
from thinktalk.eval.suites.spoken import (
    at_heard_hz,
    guest,
    heard_rows,
    limits,
    named,
    opinion_row,
    opinions,
    panel,
    score,
    word_rate,
)
from thinktalk.eval.worst import keep_sound
from thinktalk.events import AudioChunk, Done
from thinktalk.layers.mel import log_mel
from thinktalk.metrics.similarity import cosine
from thinktalk.wav2code.encoder import SpeechTokenizer
from thinktalk.weights.wav2code import load_tokenizer

__all__ = ["ABILITIES", "another", "coded", "copy", "stream", "tokenizer_of"]


def copy(bench: Bench) -> Iterator[Row]:
    """Recordings of test as codes and back, in the voice of another recording of the same person where there is one."""
    samples = bench.held.sentences("test")
    tokenizer, items = tokenizer_of(bench), named(samples[: bench.n])
    if tokenizer is None:
        yield Row(key="copy", title="WER of copy synthesis", lower_is_better=True, reach=("20 %", "8 %", "3 %"), missing="the model has no speech tokenizer")  # fmt: skip
        return

    def work(item: Item) -> dict[str, Any]:
        source = item.content
        pcm = source.pcm(HEARD_HZ)
        codes = coded(tokenizer, pcm)
        with guest(bench, another(source, samples)) as voice:
            wave = bench.omni.code2wav(codes, voice, **limits(bench))
        copied = at_heard_hz(wave, bench)
        told = {"codes": codes, "sound": keep_sound(bench.out, copied, HEARD_HZ), **opinions(bench, copied)}  # fmt: skip
        speakers = bench.judges.speakers
        return told | {"alike": cosine(speakers.embed(copied), speakers.embed(pcm))}

    results = bench.results("copy", items, work, judge=panel(bench), only="codes")
    # what judges make of the recordings depends on no model: once is enough
    own = bench.results(
        "source", items, lambda item: opinions(bench, item.content.pcm(HEARD_HZ)), judge=panel(bench), weights="none"
    )  # fmt: skip
    reach = ("20 %", "8 %", "3 %")
    yield from heard_rows(bench, results, "copy", "WER of copy synthesis (wave to codes to wave)", reach)  # fmt: skip
    first = bench.listeners[0]
    yield Row(key=f"copy/source/{first}", title="of the recordings themselves", lower_is_better=True, judge=bench.judges.listener(first).name, seed=bench.seed, **word_rate(own, first))  # fmt: skip
    yield opinion_row(bench, results, "copy/p808", "DNSMOS P.808 of copy synthesis", "p808", ("measured", "3.4", "3.8"))  # fmt: skip
    yield opinion_row(bench, own, "copy/source/p808", "of the recordings themselves", "p808")
    yield Row(key="copy/voice", title="similarity of copy synthesis to the source", unit="", reach=("measured", "0.75", "0.88"), judge=bench.judges.speakers.name, seed=bench.seed, **score(results, "alike"))  # fmt: skip
    book = tokenizer.config
    yield from code_rows(bench, results, first=book.first_code, book=book.num_codes)
    _draw(bench, tokenizer, samples)


def _draw(bench: Bench, tokenizer: SpeechTokenizer, samples: Sequence[Sample]) -> None:
    """One sentence three times: as it was recorded, from its codes, read by the model."""
    source = samples[0]
    pcm = source.pcm(HEARD_HZ)
    try:
        with guest(bench, another(source, samples)) as voice:
            copied = bench.omni.code2wav(coded(tokenizer, pcm), voice, **limits(bench))
        spoken = bench.omni.say(source.text, **limits(bench)).audio
    except ThinktalkError as error:
        bench.watch(f"speech: no picture ({error})")
        return
    waves = {"original": pcm, "from its codes": at_heard_hz(copied, bench), "read aloud": at_heard_hz(spoken, bench)}  # fmt: skip
    shown = {what: (wave, HEARD_HZ) for what, wave in waves.items()}
    draw_spectrograms(bench, "speech", shown, f'"{source.text}"')


def stream(bench: Bench) -> Iterator[Row]:
    """Answers to typed questions, spoken window by window and whole from the same codes: the difference in WER."""
    items = named(bench.held.dialogues()[: bench.n])
    first = bench.listeners[0]

    def work(item: Item) -> dict[str, Any]:
        question = [{"role": "user", "content": item.content.record["asked"][-1]}]
        chunks, reply = [], None
        for event in bench.omni.stream(question, **limits(bench)):
            if isinstance(event, AudioChunk):
                chunks.append(event.pcm)
            elif isinstance(event, Done):
                reply = event.reply
        assert reply is not None, "every stream ends with Done"
        listener = bench.judges.listener(first)
        streamed = np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
        codes = reply.codes or []
        whole = bench.omni.code2wav(codes, **limits(bench)) if codes else streamed
        told = {"text": aloud(reply.text), "codes": len(codes)}
        return told | {"streamed": listener(at_heard_hz(streamed, bench)), "whole": listener(at_heard_hz(whole, bench))}  # fmt: skip

    results = bench.results("stream", items, work, judge=bench.judges.listener(first).name)
    streamed, whole = word_rate(results, "streamed"), word_rate(results, "whole")
    pair = dict(other_tops=whole["tops"], other_bottoms=whole["bottoms"])
    yield Row(key="stream", title="WER, streamed minus whole speech, paired", lower_is_better=True, reach=("2 points", "1 point", "0"), judge=bench.judges.listener(first).name, seed=bench.seed, **streamed, **pair)  # fmt: skip


ABILITIES = {"copy": copy, "stream": stream}


def another(source: Sample, samples: Iterable[Sample]) -> Sample:
    """Another recording of the same voice, else the same one."""
    return next((s for s in samples if s.voice == source.voice and s.where != source.where), source)


def tokenizer_of(bench: Bench) -> SpeechTokenizer | None:
    """The model's speech tokenizer; None where it has none."""
    if bench.omni.config.wav2code is None or bench.omni.directory is None:
        return None
    return load_tokenizer(bench.omni.directory, dtype=torch.float32)


def coded(tokenizer: SpeechTokenizer, pcm: np.ndarray) -> list[int]:
    """Codes of a wave (S,) at 16 kHz."""
    mel = log_mel(torch.from_numpy(pcm)[None])[0]
    return tokenizer.encode([mel])[0].tolist()
