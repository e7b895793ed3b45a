"""READ FIRST. The whole path offline, one line per arrow:

    messages --build_prompt--> Prompt                         media: bytes to tensors, and where they stand in the text
    prompts  --embed--> Readings                              encoders: what was seen and heard, as embeddings
    readings --think--> a token of text a step, Thoughts      Thinker
             --recite--> Thoughts                         the same, made to say a given text
    thoughts --talk--> codes                                  Talker
    codes    --speak--> waves                                 code2wav

Several conversations go through together; a row's result is what it would be alone. Letters: B rows, T tokens, D width.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from thinktalk.code2wav.flow import draw_noise
from thinktalk.code2wav.model import Code2Wav
from thinktalk.code2wav.speaker import Voice
from thinktalk.config import GenerationConfig
from thinktalk.errors import InputError
from thinktalk.events import Reply
from thinktalk.layers.decoder import join_rows, last_of
from thinktalk.messages import Embedded, ThinkerChunk
from thinktalk.prompt import Prompt, Tokenizer
from thinktalk.talker.prepare import TalkerFeed, feed_rows
from thinktalk.thinker.model import merge_media
from thinktalk.thinker.sampling import Sampler
from thinktalk.weights.hf import OmniModel

__all__ = ["Options", "Reading", "Thought", "answer", "embed", "recite", "speak", "talk", "think"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How answers are made."""

    generation: GenerationConfig
    """Limits, temperatures, the flow's steps."""
    greedy: bool = False
    """Argmax instead of sampling, in text and codes."""
    seed: int = 0
    """Each row draws from its own generators, all begun with this seed."""
    speech: bool = True
    """Whether to speak at all."""


@dataclass
class Reading:
    """One row as the Thinker reads it."""

    embedded: Embedded  # (1, T, D) with positions (1, 3, T)
    token_ids: Tensor  # (1, T)
    heard: Tensor  # (1, T, D) embeddings with zeros where a medium stands: what the Talker gets of them
    next_position: int


@dataclass
class Thought:
    """One row of the Thinker's answer."""

    token_ids: list[int]  # without the end token
    finish: str  # "stop" or "length"
    chunks: list[ThinkerChunk] = field(
        default_factory=list
    )  # prompt, then reply tokens it has read


# --------------------------------------------------------------------------------------------------------------- stages


@torch.inference_mode()
def embed(model: OmniModel, prompts: Sequence[Prompt]) -> list[Reading]:
    """What was seen and heard goes where its placeholders stand; the same medium kinds of all rows are encoded together."""
    assert model.thinker is not None and model.audio is not None and model.vision is not None
    ids = model.config.thinker.ids
    weight = model.thinker.embed.weight
    sounds = [mel for p in prompts for mel in p.audio]
    pictures = [(patches, grid) for p in prompts for patches, grid in p.images]
    clips = [(patches, grid) for p in prompts for patches, grid, _ in p.videos]
    heard = iter(model.audio.encode(sounds) if sounds else [])
    seen = iter(model.vision.encode(*zip(*pictures, strict=True)) if pictures else [])
    watched = iter(model.vision.encode(*zip(*clips, strict=True)) if clips else [])
    readings = []
    for prompt in prompts:
        token_ids = prompt.token_ids[None].to(weight.device)
        media = {
            token: torch.cat([next(features) for _ in range(count)])
            for token, features, count in (
                (ids.audio, heard, len(prompt.audio)),
                (ids.image, seen, len(prompt.images)),
                (ids.video, watched, len(prompt.videos)),
            )
            if count
        }
        read, told = merge_media(model.thinker.embed(token_ids), token_ids, media)
        embedded = Embedded(read, prompt.positions[None].to(weight.device))
        readings.append(Reading(embedded, token_ids, told, prompt.next_position))
    return readings


@torch.inference_mode()
def think(
    model: OmniModel, readings: Sequence[Reading], options: Options
) -> Generator[list[int | None], None, list[Thought]]:
    """The Thinker's answers: yields each row's next token (None once it has ended), returns the Thoughts.

    The last token of an answer, normally its end, is never read: the Talker does not hear it. Chunks are kept only when
    there will be speech.
    """
    thinker, ids = model.thinker, model.config.thinker.ids
    assert thinker is not None
    B = len(readings)
    limits = _text_limits(model, readings, options)
    x, lengths = join_rows([reading.embedded for reading in readings])
    state = thinker.init_state(B, capacity=max(lengths) + min(max(limits), 256))
    hidden = thinker.step(x, state, valid=lengths)
    thoughts = [Thought([], "length") for _ in readings]
    if options.speech:
        for reading, thought, own in zip(readings, thoughts, _rows(hidden, lengths), strict=True):
            thought.chunks.append(
                ThinkerChunk(reading.token_ids, reading.heard, own, reading.embedded.positions)
            )
    sampler = Sampler.for_text(options.generation, greedy=options.greedy)
    memory = sampler.init_state(
        B, thinker.config.vocab_size, device=hidden.device, seeds=[options.seed] * B
    )
    for row, reading in enumerate(readings):
        _see_row(memory, row, reading.token_ids)
    tokens = sampler(thinker.logits(last_of(hidden, lengths)), memory)
    del hidden, x
    positions_B3T = _column([reading.next_position for reading in readings], tokens.device)
    ended = [False] * B
    for count in range(1, max(limits) + 1):
        said: list[int | None] = []
        for row, token in enumerate(tokens.tolist()):
            if not ended[row] and token in (ids.im_end, ids.pad):
                ended[row], thoughts[row].finish = True, "stop"
            said.append(None if ended[row] else token)
            if not ended[row]:
                thoughts[row].token_ids.append(token)
                ended[row] = count >= limits[row]
        yield said
        if all(ended):
            break
        read = tokens[:, None]
        embeds = thinker.embed(read)
        hidden = thinker.step(Embedded(embeds, positions_B3T), state)
        if options.speech:
            chunk = ThinkerChunk(read, embeds, hidden, positions_B3T)
            for row in range(B):
                if not ended[row]:
                    thoughts[row].chunks.append(chunk.row(row))
        positions_B3T = positions_B3T + 1
        tokens = sampler(thinker.logits(hidden[:, -1]), memory)
    return thoughts


@torch.inference_mode()
def recite(
    model: OmniModel, readings: Sequence[Reading], given: Sequence[Sequence[int]]
) -> list[Thought]:
    """The Thinker is made to answer with the tokens given, read in one step; what `think` would return of them."""
    thinker = model.thinker
    assert thinker is not None
    whole, chunks = [], []
    for reading, tokens in zip(readings, given, strict=True):
        T, home = len(tokens), reading.token_ids.device
        token_ids = torch.tensor([list(tokens)], device=home)
        positions = reading.next_position + torch.arange(T, device=home).expand(1, 3, T)
        reply = Embedded(thinker.embed(token_ids), positions)
        whole.append(Embedded.concat([reading.embedded, reply]))
        prompt = (reading.token_ids, reading.heard, reading.embedded.positions)
        chunks.append((prompt, (token_ids, reply.embeds, positions)))
    x, lengths = join_rows(whole)
    hidden = thinker.step(x, thinker.init_state(len(whole), capacity=max(lengths)), valid=lengths)
    thoughts = []
    for tokens, own, parts in zip(given, _rows(hidden, lengths), chunks, strict=True):
        split = own.split([part[0].shape[1] for part in parts], 1)
        heard = [ThinkerChunk(i, e, h, p) for (i, e, p), h in zip(parts, split, strict=True)]
        thoughts.append(Thought(list(tokens), "stop", heard))
    return thoughts


def _rows(hidden: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """Each row (1, T, D) of a batch padded at the right."""
    return [hidden[row : row + 1, :length] for row, length in enumerate(lengths)]


def _column(positions: Sequence[int], device: torch.device) -> Tensor:
    """One position a row as (B, 3, 1)."""
    return torch.tensor(positions, device=device)[:, None, None].expand(-1, 3, 1)


def _see_row(memory, row: int, token_ids: Tensor) -> None:
    if memory.seen is not None:
        memory.seen[row].scatter_(0, token_ids[0].to(memory.seen.device), True)


def _text_limits(model: OmniModel, readings: Sequence[Reading], options: Options) -> list[int]:
    """Tokens each row may still write: the caller's limit, and what is left of the context."""
    context = model.config.thinker.text.max_positions
    rooms = [context - reading.embedded.length for reading in readings]
    if min(rooms) < 1:
        raise InputError(
            f"prompt: {context - min(rooms)} tokens, expected fewer than the model's context of {context}; shorten it"
        )
    return [min(options.generation.max_text_tokens, room) for room in rooms]


@torch.inference_mode()
def talk(
    model: OmniModel, thoughts: Sequence[Thought], voices: Sequence[Voice], options: Options
) -> list[list[int]]:
    """The codes of each answer, without their end. An answer whose first token was its end has none."""
    talker, thinker, code2wav = model.talker, model.thinker, model.config.code2wav
    assert talker is not None and thinker is not None and code2wav is not None
    config, generation = talker.talker_config, options.generation
    rows = [row for row, thought in enumerate(thoughts) if len(thought.chunks) > 1]
    said: list[list[int]] = [[] for _ in thoughts]
    if not rows:
        return said
    feeds, inputs = [], []
    for row in rows:
        prompt, *reply = thoughts[row].chunks
        feed = TalkerFeed.start(talker, thinker.embed, voice_token=voices[row].bos_token)
        pieces = [feed.prompt(prompt)]
        feed.reply(ThinkerChunk.concat(reply))
        feed.end()
        pieces.append(feed.opening())
        feeds.append(feed)
        inputs.append(Embedded.concat(pieces))
    x, lengths = join_rows(inputs)
    longest = min(generation.max_codes, code2wav.dit.max_positions // code2wav.dit.repeats)
    limits = [min(longest, config.decoder.max_positions - length) for length in lengths]
    state = talker.init_state(len(rows), capacity=max(lengths) + min(longest, 512))
    hidden = last_of(talker.step(x, state, valid=lengths), lengths)
    sampler = Sampler.for_codes(
        generation, config, num_codes=code2wav.dit.num_codes, greedy=options.greedy
    )
    memory = sampler.init_state(
        len(rows), config.decoder.vocab_size, device=hidden.device, seeds=[options.seed] * len(rows)
    )
    marks = torch.tensor([[config.codec_mask, config.codec_pad, config.codec_bos]])
    memory.see(
        marks.expand(len(rows), 3)
    )  # the reference's prompt, as the repetition penalty sees it
    ended = [limit < 1 for limit in limits]
    while not all(ended):
        codes = sampler(talker.logits(hidden), memory)
        for k, code in enumerate(codes.tolist()):
            ended[k] = ended[k] or code in (config.codec_pad, config.codec_eos)
            if not ended[k]:
                said[rows[k]].append(code)
                ended[k] = len(said[rows[k]]) >= limits[k]
        if all(ended):
            break
        hidden = talker.step(feed_rows(feeds, talker.embed(codes)[:, None]), state)[:, -1]
    return said


@torch.inference_mode()
def speak(
    model: OmniModel,
    codes: Sequence[Sequence[int]],
    voices: Sequence[Voice],
    options: Options,
    *,
    noise: Sequence[Tensor] | None = None,
) -> list[np.ndarray]:
    """The wave (float32 samples) of each row's codes; `noise` (at least 2n, mel bands) a row, else drawn from the seed."""
    config = model.config.code2wav
    assert config is not None and model.dit is not None and model.vocoder is not None
    frames = [len(row) * config.dit.repeats for row in codes]
    if noise is None:
        noise = [
            draw_noise(
                n, config.dit.num_mels, generator=torch.Generator().manual_seed(options.seed)
            )
            for n in frames
        ]
    for given, n in zip(noise, frames, strict=True):
        if given.ndim != 2 or given.shape[1] != config.dit.num_mels or len(given) < n:
            raise InputError(
                f"noise: shape {tuple(given.shape)}, expected at least ({n}, {config.dit.num_mels}) for {n // config.dit.repeats} codes"
            )
    generation = options.generation
    waves = Code2Wav(model.dit, model.vocoder, config).speak(
        [torch.as_tensor(row, dtype=torch.long) for row in codes],
        voices,
        noise=[given[:n].float() for given, n in zip(noise, frames, strict=True)],
        points=generation.flow_points,
        guidance=generation.flow_guidance,
        sway=generation.flow_sway,
        method=generation.flow_method,
    )
    return [wave.numpy() for wave in waves]


# ------------------------------------------------------------------------------------------------------------ together


def answer(
    model: OmniModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    options: Options,
    *,
    voices: Sequence[Voice] = (),
    noise: Sequence[Tensor] | None = None,
    given: Sequence[Sequence[int]] | None = None,
) -> Generator[list[int | None], None, list[Reply]]:
    """Prompts to replies: yields what `think` yields, then returns a Reply a row."""
    clock = _Clock()
    readings = embed(model, prompts)
    clock.lap("encode")
    if given is not None:
        thoughts = recite(model, readings, given)
    else:
        thoughts = yield from think(model, readings, options)
    clock.lap("think")
    del readings
    replies = [
        Reply(
            text=tokenizer.decode(thought.token_ids),
            token_ids=thought.token_ids,
            prompt_tokens=prompt.length,
            finish=thought.finish,
        )
        for prompt, thought in zip(prompts, thoughts, strict=True)
    ]
    if options.speech:
        codes = talk(model, thoughts, voices, options)
        clock.lap("talk")
        waves = speak(model, codes, voices, options, noise=noise)
        clock.lap("code2wav")
        rate = model.config.code2wav.sample_rate
        replies = [
            replace(reply, codes=row, audio=wave, sample_rate=rate)
            for reply, row, wave in zip(replies, codes, waves, strict=True)
        ]
    return [replace(reply, timing=clock.total()) for reply in replies]


class _Clock:
    """Milliseconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self.last = (now - self.last) * 1e3, now

    def total(self) -> dict[str, float]:
        return {**self.laps, "total": sum(self.laps.values())}
