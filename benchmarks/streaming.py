"""The streaming engine against what it promises: first sound, end of a turn, total time, many at once, cost of the engine itself.

    python benchmarks/streaming.py [--quick] [--only first_sound]...

Each part prints a table and one JSON line; what fell short of its target is listed at the end. One thread, and CPU time of the
process: on a shared machine that is what the wall clock of an idle one would show. The sides take turns; medians are
compared. transformers runs the same random weights (of our nano shape) on the same question. Exit status 1 when a part fails.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch starts its threads
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "parity")]

import torch

from thinktalk import config as cfg
from thinktalk import load, pipeline
from thinktalk.code2wav.streaming import Windows
from thinktalk.engine import Engine
from thinktalk.engine.measure import Question, babble, latency
from thinktalk.engine.session import Session
from thinktalk.events import Done, Reply
from thinktalk.layers.decoder import Decoder
from thinktalk.messages import Embedded
from thinktalk.omni import Omni
from thinktalk.prompt import Prompt, build_prompt
from thinktalk.thinker.sampling import Sampler, unspeakable_codes
from thinktalk.weights.random import random_model
from thinktalk.weights.tokenizer import build_tokenizer

clock = time.process_time
QUESTION = "Tell me a story about the sea, and take your time."
ONE_WINDOW = Windows(
    groups=(1 << 20,), points=2, method="euler"
)  # all sound at the end: the Talker's steps undisturbed


@dataclass
class Row:
    """One line of a table: a ratio, and what it should be."""

    name: str
    ours: float
    other: float
    ratio: float
    target: float
    at_least: bool = True
    unit: str = "ms"
    note: str = ""

    @property
    def reached(self) -> bool:
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target


def median_of(repeats: int, *sides: Callable[[], float]) -> list[float]:
    """Medians of figures that the sides return, measured in turns."""
    figures = [[side() for side in sides] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*figures, strict=True)]


# -------------------------------------------------------------------------------------------------------------- models


@torch.no_grad()
def nano_pair() -> tuple[Omni, Any]:
    """The nano shape with random weights: ours, and transformers'."""
    from reference import make_reference

    theirs = make_reference(cfg.nano())
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.save_pretrained(folder)
        generator = torch.Generator().manual_seed(5)
        voice = {
            "cond": torch.randn(1, 192, generator=generator),
            "ref_mel": torch.randn(1, 60, 80, generator=generator) - 4,
            "bos_token": 127,
        }
        torch.save({"Chelsie": voice}, f"{folder}/spk_dict.pt")
        theirs.load_speakers(f"{folder}/spk_dict.pt")
        build_tokenizer(cfg.nano(), folder)
        ours = load(folder)
        ours.model.requires_grad_(False)
        for (
            stage
        ) in ours.model.stages().values():  # the folder goes: nothing may be a view of its files
            for parameter in stage.parameters():
                parameter.data = parameter.data.clone()
    return ours, theirs


def nano() -> Omni:
    return with_random_weights(cfg.nano())


def mid() -> Omni:
    """A middle-sized Thinker (221 M) and Talker (107 M) with nano's ears, vocabulary and voice."""
    base, width = cfg.nano(), 1024
    thinker = replace(
        base.thinker,
        audio=replace(base.thinker.audio, out_width=width),
        vision=replace(base.thinker.vision, out_width=width),
        text=replace(base.thinker.text, width=width, ffn_width=4096, num_layers=14, num_heads=16, num_kv_heads=4),
    )  # fmt: skip
    decoder = replace(
        base.talker.decoder, width=768, ffn_width=3072, num_layers=12, num_heads=12, num_kv_heads=4
    )
    talker = replace(base.talker, input_width=width, decoder=decoder)
    return with_random_weights(replace(base, thinker=thinker, talker=talker))


def with_random_weights(config: cfg.OmniConfig) -> Omni:
    from thinktalk.prompt import Tokenizer

    model = random_model(config)
    model.voices["default"] = next(iter(model.voices.values()))
    with tempfile.TemporaryDirectory() as folder:
        build_tokenizer(config, folder)
        tokenizer = Tokenizer.load(folder, config=config.thinker)
    return Omni(model, tokenizer)


def engine_of(omni: Omni, **more: Any) -> Engine:
    return Engine(omni.model, omni.tokenizer, clock=clock, max_bytes=8 << 30, **more)


def options_for(omni: Omni, tokens: int, codes: int, *, greedy: bool = True) -> pipeline.Options:
    generation = replace(omni.config.generation, max_text_tokens=tokens, max_codes=codes)
    return pipeline.Options(generation=generation, greedy=greedy)


def length_of(omni: Omni, seconds: float) -> tuple[int, int]:
    """Tokens and codes of an answer: people say 4 tokens a second."""
    return round(4 * seconds), round(seconds * float(omni.config.code2wav.codes_per_second))


def whole(events: Sequence[Any]) -> Reply:
    return next(event.reply for event in events if isinstance(event, Done))


# ---------------------------------------------------------------------------------------------------------- first sound


def first_sound(quick: bool) -> list[Row]:
    """Time to the first sound, against transformers' time to its whole answer: the only one it gives."""
    ours, theirs = nano_pair()
    prompt = the_prompt(ours)
    rows = []
    for seconds in (2, 15) if quick else (2, 5, 15, 60):
        tokens, codes = length_of(ours, seconds)
        engine = engine_of(ours)

        def listen(tokens=tokens, codes=codes, engine=engine) -> float:
            with Session(engine, options=options_for(ours, tokens, codes)) as session:
                session.text(QUESTION)
                start = clock()
                answer = session.respond_sync()
                sound = next(event for event in answer if hasattr(event, "pcm"))
                assert len(sound.pcm)
                waited = clock() - start
                answer.close()
            return 1e3 * waited

        def wait(tokens=tokens, codes=codes, seconds=seconds) -> float:
            start = clock()
            length = transformers_answer(theirs, prompt, tokens, codes)
            assert length >= 0.9 * seconds * 24_000, f"{length} samples"
            return 1e3 * (clock() - start)

        listen()
        mine, other = median_of(1 if quick or seconds > 15 else 3, listen, wait)
        note = f"{tokens} tokens, {codes} codes"
        rows.append(Row(f"answer of {seconds} s", mine, other, other / mine, 8.0 if seconds >= 15 else 1.0, note=note))  # fmt: skip
    return rows


def the_prompt(omni: Omni) -> Prompt:
    messages = [{"role": "user", "content": QUESTION}]
    return build_prompt(messages, tokenizer=omni.tokenizer, config=omni.config, speech=True)


def transformers_answer(model: Any, prompt: Prompt, tokens: int, codes: int) -> int:
    """generate() of the whole model; samples of its wave."""
    from transformers import LogitsProcessor, LogitsProcessorList

    config = cfg.nano()
    talker = config.talker
    ends = [talker.codec_pad, talker.codec_eos]  # it must not end sooner
    never = torch.tensor([*unspeakable_codes(talker, config.code2wav.dit.num_codes), *ends])

    class Suppress(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return scores.index_fill(1, never, -torch.inf)

    pad = (
        config.thinker.ids.pad
    )  # one in front: without a mask its Talker forgets embeddings (docs/fidelity.md)
    ids = torch.nn.functional.pad(prompt.token_ids, (1, 0), value=pad)[None]
    mask = torch.nn.functional.pad(torch.ones_like(prompt.token_ids), (1, 0))[None]
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        _, wave = model.generate(
            input_ids=ids, attention_mask=mask, speaker="Chelsie", thinker_max_new_tokens=tokens, thinker_do_sample=False,
            thinker_min_new_tokens=tokens, thinker_eos_token_id=[config.thinker.ids.im_end, pad],
            talker_max_new_tokens=codes + 1, talker_do_sample=False, talker_eos_token_id=ends, talker_logits_processor=LogitsProcessorList([Suppress()]),
        )  # fmt: skip
    return wave.numel()


# ---------------------------------------------------------------------------------------------------------- end of turn


def end_of_turn(quick: bool) -> list[Row]:
    """What is left to do when a speaker ends (1 s of sound, the turn's marks), after 10 s and after long listening."""
    omni = nano()
    lengths = (10, 60) if quick else (10, 60, 300)
    rows, first = [], 0.0
    for seconds in (
        lengths
    ):  # to the first token of text; the last second is half a block, read when the turn ends
        question = Question(text="", sound=babble(seconds + 1.0), seconds=0.5)
        wait = latency(engine_of(omni), question, turns=3 if quick else 5)
        waited = wait.of("input_ms")
        first = first or waited
        note = f"prompt of {wait.replies[0].prompt_tokens} tokens; listening: {1e3 * wait.listening:.0f} ms of work a second"
        rows.append(Row(f"nano after {seconds} s", waited, first, waited / first, 1.3, at_least=False, note=note))  # fmt: skip
    costs = reading_costs(
        cfg.omni_7b(), [25 * seconds for seconds in lengths], repeats=3 if quick else 7
    )
    for seconds, cost in zip(lengths, costs, strict=True):
        note = "32 tokens read by Thinker and Talker: a layer of each, times their number"
        rows.append(Row(f"7B shapes after {seconds} s", cost, costs[0], cost / costs[0], 1.3, at_least=False, note=note))  # fmt: skip
    return rows


@torch.inference_mode()
def reading_costs(
    config: cfg.OmniConfig, pasts: Sequence[int], *, repeats: int, new: int = 32
) -> list[float]:
    """CPU milliseconds in which Thinker and Talker read `new` tokens over so many of the past."""
    total_ms = [0.0] * len(pasts)
    for shape in (config.thinker.text, config.talker.decoder):
        decoder = Decoder(replace(shape, num_layers=1)).eval()
        x = Embedded(torch.randn(1, new, shape.width), torch.arange(new).expand(1, 3, new))
        states = [decoder.init_state(1, capacity=past + new) for past in pasts]
        for state, past in zip(states, pasts, strict=True):
            for memory in (state.layers[0].k, state.layers[0].v):
                memory.normal_()
            state.advance(past)

        def read(state, decoder=decoder, x=x) -> float:
            past, start = state.extent, clock()
            decoder.step(x, state)
            spent = 1e3 * (clock() - start)
            state.trim(past)
            return spent

        sides = [lambda state=state: read(state) for state in states]
        median_of(1, *sides)
        for k, ms in enumerate(median_of(repeats, *sides)):
            total_ms[k] += shape.num_layers * ms
    return total_ms


# ----------------------------------------------------------------------------------------------------------- total time


def total(quick: bool) -> list[Row]:
    """A whole streamed answer against the same one made offline."""
    omni = nano()
    messages = [{"role": "user", "content": QUESTION}]
    rows = []
    for seconds in (5,) if quick else (2, 5, 15, 60):
        tokens, codes = length_of(omni, seconds)
        options = options_for(omni, tokens, codes)
        engine = engine_of(omni)

        def streamed(options=options, engine=engine) -> float:
            start = clock()
            with Session(engine, options=options) as session:
                session.text(QUESTION)
                reply = whole(list(session.respond_sync()))
            assert len(reply.codes) == options.generation.max_codes
            return 1e3 * (clock() - start)

        def offline(options=options) -> float:
            start, kept = clock(), options.generation
            reply = omni.chat(
                messages,
                greedy=True,
                max_text_tokens=kept.max_text_tokens,
                max_codes=kept.max_codes,
            )
            assert reply.codes is not None and len(reply.codes) == kept.max_codes
            return 1e3 * (clock() - start)

        streamed(), offline()
        mine, other = median_of(1 if quick or seconds > 15 else 3, streamed, offline)
        rows.append(Row(f"answer of {seconds} s", mine, other, mine / other, 1.5, at_least=False))
    return rows


# --------------------------------------------------------------------------------------------------------- many at once


def many(quick: bool) -> list[Row]:
    """Tokens and codes a second of 8 conversations against one: Thinker, Talker and the engine around them, without sound."""
    rows = []
    for name, omni, tokens, codes in (("nano", nano(), 60, 120), ("mid", mid(), 16, 32)):
        if quick and name == "mid":
            tokens, codes = 6, 12
        one, eight = median_of(
            1 if quick else 3,
            lambda omni=omni, t=tokens, c=codes: 1e3 / cost_of_token(omni, 1, t, c),
            lambda omni=omni, t=tokens, c=codes: 1e3 / cost_of_token(omni, 8, t, c),
        )
        rows.append(Row(f"{name}, 8 sessions", eight, one, eight / one, 3.0, unit="tokens/s"))
    return rows


def cost_of_token(omni: Omni, sessions: int, tokens: int, codes: int) -> float:
    """CPU milliseconds a token or code, of all that is not sound: steps, scheduler, sessions, events."""
    engine = engine_of(omni, windows=ONE_WINDOW)
    plain = options_for(omni, tokens, codes, greedy=False)
    quick = replace(plain, generation=replace(plain.generation, flow_points=2, flow_method="euler"))
    talkers = [Session(engine, options=replace(quick, seed=k)) for k in range(sessions)]
    for talker in talkers:
        talker.text(QUESTION)
    engine.run()
    start = clock()
    answers = [talker.respond_sync() for talker in talkers]
    engine.run(lambda: all(seat.replying is None for seat in engine.seats))
    spent = 1e3 * (clock() - start)
    replies = [whole(list(answer)) for answer in answers]
    other = sum(ms for reply in replies for kind, ms in reply.latency.work_ms.items() if kind in ("SOUND", "READ", "BEGIN", "OPEN"))  # fmt: skip
    made = sum(len(reply.token_ids) + len(reply.codes) for reply in replies) - 2 * sessions
    for talker in talkers:
        talker.close()
    return (spent - other) / made


# ------------------------------------------------------------------------------------------------------------- overhead


def overhead(quick: bool) -> list[Row]:
    """The engine's cost a token over the bare steps: embed, network, logits, draw, and the number on the host."""
    omni = nano()
    tokens, codes = (60, 120) if quick else (120, 240)
    rows = []
    for sessions in (1, 8):
        bare_steps(omni, sessions, 8, 8), cost_of_token(omni, sessions, 8, 8)
        whole_ms, bare_ms = median_of(
            3 if quick else 7,
            lambda n=sessions: cost_of_token(omni, n, tokens, codes),
            lambda n=sessions: bare_steps(omni, n, tokens, codes),
        )
        rows.append(Row(f"nano, {sessions} session{'s'[: sessions - 1]}", whole_ms, bare_ms, whole_ms / bare_ms, 1.15, at_least=False, unit="ms a token"))  # fmt: skip
    return rows


@torch.inference_mode()
def bare_steps(omni: Omni, rows: int, tokens: int, codes: int) -> float:
    """CPU milliseconds a token or code of a loop that does nothing else, over the same rows, prompt and lengths."""
    prompt, generation = the_prompt(omni), omni.config.generation
    length = prompt.length
    thinker, talker = omni.model.thinker, omni.model.talker
    text = Sampler.for_text(generation, greedy=False)
    speech = Sampler.for_codes(
        generation, omni.config.talker, num_codes=omni.config.code2wav.dit.num_codes, greedy=False
    )
    seeds = list(range(rows))
    spent = 0.0
    for decoder, sampler, count, extra in (
        (thinker, text, tokens - 1, None),
        (talker, speech, codes - 1, True),
    ):
        state = decoder.init_state(rows, capacity=length + count)
        vocab = decoder.config.vocab_size
        memory = sampler.init_state(rows, vocab, device="cpu", seeds=seeds)
        memory.see(prompt.token_ids[None].expand(rows, -1) % vocab)
        width = decoder.embed.weight.shape[1]
        positions = torch.arange(length).expand(rows, 3, length)
        decoder.step(Embedded(torch.randn(rows, length, width), positions), state)
        heard = torch.randn(rows, 1, width)
        chosen = torch.zeros(rows, dtype=torch.int64)
        start = clock()
        for k in range(count):
            embeds = decoder.embed(chosen[:, None])
            if extra:
                embeds = embeds + heard
            at = torch.full((1, 1, 1), length + k).expand(rows, 3, 1)
            hidden = decoder.step(Embedded(embeds, at), state)
            chosen = sampler(decoder.logits(hidden[:, -1]), memory)
            chosen.tolist()
        spent += clock() - start
    return 1e3 * spent / (rows * (tokens + codes - 2))


# -------------------------------------------------------------------------------------------------------------- driver

PARTS: dict[str, Callable[[bool], list[Row]]] = {
    "first_sound": first_sound,
    "end_of_turn": end_of_turn,
    "total": total,
    "many": many,
    "overhead": overhead,
}


def print_part(name: str, rows: Sequence[Row]) -> None:
    print(f"\n{name}: {(PARTS[name].__doc__ or '').strip()}")
    print(f"{'what':<24}{'ours':>12}{'other':>12}  {'unit':<12}{'ratio':>8}  target")
    for row in rows:
        sign = ">=" if row.at_least else "<="
        print(f"{row.name:<24}{row.ours:>12.2f}{row.other:>12.2f}  {row.unit:<12}{row.ratio:>8.2f}  {sign} {row.target:g}  {row.note}")  # fmt: skip
    print(json.dumps({"benchmark": name, "rows": [asdict(row) for row in rows]}), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer lengths and repeats")
    parser.add_argument("--only", action="append", choices=list(PARTS), help=", ".join(PARTS))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    short, failed = [], []
    for name in args.only or PARTS:
        start = time.perf_counter()
        try:
            rows = PARTS[name](args.quick)
        except Exception:  # one broken part must not hide the others' figures
            traceback.print_exc()
            failed.append(name)
            continue
        print_part(name, rows)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
        short += [(name, row) for row in rows if not row.reached]
    for name, row in short:
        print(f"short of its target: {name}, {row.name}: {row.ratio:.2f}, wanted {row.target:g}", file=sys.stderr)  # fmt: skip
    if failed:
        print(f"streaming: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
