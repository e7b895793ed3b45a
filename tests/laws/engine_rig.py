"""A small random model for tests of the engine, in float64 so that whoever is stepped with whom changes nothing that counts.

Its text and its codes end by themselves now and then (the rows of the end tokens in the heads are large), sometimes at once.
`offline` is the answer that pipeline gives; `Ear` collects events; `text_reading` is a piece of prompt.
"""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass, field, replace

import torch

from thinktalk import config as cfg
from thinktalk import pipeline
from thinktalk.code2wav.streaming import Windows
from thinktalk.engine import Engine, Failed, Seat
from thinktalk.events import AudioChunk, Done, Reply, TextDelta
from thinktalk.messages import Embedded
from thinktalk.prompt import Tokenizer
from thinktalk.weights.model import OmniModel
from thinktalk.weights.random import random_model
from thinktalk.weights.tokenizer import build_tokenizer

END_GAIN = 3.0  # logits of unit spread: an end token wins about one step in seven


def small_config() -> cfg.OmniConfig:
    """tiny() with a shorter context and blocks of 3 codes, so that windows come early; 50 codes a second."""
    tiny = cfg.tiny()
    short = replace(tiny.thinker.text, max_positions=4096)
    dit = replace(tiny.code2wav.dit, block_frames=6)
    vocoder = replace(
        tiny.code2wav.vocoder,
        initial_channels=16,
        upsample_rates=(4, 2),
        upsample_kernels=(8, 4),
        resblock_kernels=(3,),
        resblock_dilations=((1,),),
    )
    return replace(
        tiny,
        thinker=replace(tiny.thinker, text=short),
        talker=replace(tiny.talker, decoder=replace(tiny.talker.decoder, max_positions=4096)),
        code2wav=replace(tiny.code2wav, dit=dit, vocoder=vocoder, sample_rate=800),
    )


@functools.cache
def rig_model(ends: bool = True) -> OmniModel:
    """Treat it as read-only."""
    model = random_model(small_config(), seed=0)
    model.thinker.double()
    model.talker.double()
    if ends:
        with torch.no_grad():
            model.thinker.lm_head.weight[model.config.thinker.ids.im_end] *= END_GAIN
            model.talker.head.weight[model.config.talker.codec_eos] *= 2 * END_GAIN
    return model


@functools.cache
def rig_tokenizer() -> Tokenizer:
    directory = tempfile.mkdtemp()
    build_tokenizer(small_config(), directory)
    return Tokenizer.load(directory)


def make_engine(model: OmniModel | None = None, **options) -> Engine:
    """An engine with small windows; work in the caller's thread with run()."""
    few = {"windows": Windows(groups=(1, 2)), "max_bytes": 1 << 40, "most_blocks": 20}
    return Engine(model or rig_model(), rig_tokenizer(), **{**few, **options})


def make_options(
    *, greedy: bool = True, seed: int = 0, tokens: int = 10, codes: int = 20, **more
) -> pipeline.Options:
    """One evaluation of the flow: the sound is not what is tested here."""
    generation = cfg.GenerationConfig(
        max_text_tokens=tokens, max_codes=codes, text_sample=not greedy, text_top_k=40, text_repetition_penalty=1.1,
        flow_points=2, flow_guidance=0.0, flow_method="euler",
    )  # fmt: skip
    return pipeline.Options(generation=generation, greedy=greedy, seed=seed, **more)


def text_reading(token_ids: list[int], *, start: int = 0, model=None) -> pipeline.Reading:
    """Text tokens as a piece of prompt whose first position is `start`."""
    model = model or rig_model()
    ids = torch.tensor([token_ids], dtype=torch.int64)
    with torch.inference_mode():
        embeds = model.thinker.embed(ids)
    positions = (start + torch.arange(len(token_ids))).expand(1, 3, -1)
    return pipeline.Reading(Embedded(embeds, positions), ids, embeds, start + len(token_ids))


def random_ids(seed: int, count: int) -> list[int]:
    """Ordinary text tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 700, (count,), generator=generator).tolist()


def cut(reading: pipeline.Reading, sizes: list[int]) -> list[pipeline.Reading]:
    """The same piece in several of these sizes, and the rest."""
    parts, start, whole = [], 0, reading.embedded.length
    for size in [*sizes, whole]:
        size = min(size, whole - start)
        part = pipeline.Reading(
            reading.embedded.narrow(start, size),
            reading.token_ids[:, start : start + size],
            reading.heard[:, start : start + size],
            reading.next_position - whole + start + size,
        )
        parts.append(part)
        start += size
    return parts


def offline(
    reading: pipeline.Reading, options: pipeline.Options, *, voice: str = "Chelsie", model=None
) -> tuple[list[int], list[int], str]:
    """Text ids, codes and how the text ended, as pipeline makes them for one conversation alone."""
    model = model or rig_model()
    thinking = pipeline.think(model, [reading], options)
    while True:
        try:
            next(thinking)
        except StopIteration as stop:
            thoughts = stop.value
            break
    codes = []
    if options.speech:
        (codes,) = pipeline.talk(model, thoughts, [model.voices[voice]], options)
    return thoughts[0].token_ids, codes, thoughts[0].finish


@dataclass
class Ear:
    """Who listens to a reply."""

    events: list = field(default_factory=list)

    def __call__(self, event) -> None:
        self.events.append(event)

    @property
    def over(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], (Done, Failed))

    @property
    def reply(self) -> Reply:
        """The whole reply; raises what it failed with."""
        assert self.over, "the reply has not ended"
        if isinstance(self.events[-1], Failed):
            raise self.events[-1].error
        return self.events[-1].reply

    @property
    def text(self) -> str:
        return "".join(e.text for e in self.events if isinstance(e, TextDelta))

    @property
    def sound(self) -> list[AudioChunk]:
        return [e for e in self.events if isinstance(e, AudioChunk)]

    @property
    def result(self) -> tuple[list[int], list[int], str]:
        return self.reply.token_ids, self.reply.codes or [], self.reply.finish


def answer(seat: Seat, options: pipeline.Options, **more) -> Ear:
    """Ask, work until the reply has ended, and listen."""
    ear = Ear()
    seat.reply(options, ear, **more)
    seat.engine.run(until=lambda: ear.over)
    return ear
