"""What the tests of sessions share: a tiny model in float64, an engine, and the same conversation offline."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from thinktalk import config as cfg
from thinktalk import pipeline
from thinktalk.engine.engine import Engine
from thinktalk.engine.taking import changed
from thinktalk.events import Reply
from thinktalk.layers.mel import log_mel
from thinktalk.prompt import SPEECH_SYSTEM, Prompt, Tokenizer
from thinktalk.weights.hf import OmniModel
from thinktalk.weights.random import random_model
from thinktalk.weights.tokenizer import build_tokenizer

MAX_TEXT, MAX_CODES = 8, 20


MAX_POSITIONS = 2048


def omni(max_positions: int = MAX_POSITIONS) -> tuple[OmniModel, Tokenizer]:
    """One model for all tests of a context."""
    return _made(max_positions)


@cache
def _made(max_positions: int) -> tuple[OmniModel, Tokenizer]:
    """Thinker, Talker and encoders in float64: equal ids then mean equal computation, not luck."""
    config = cfg.tiny()
    visual = replace(config.visual, video_min_tokens=4, video_max_tokens=12)
    text = replace(config.thinker.text, max_positions=max_positions)
    generation = replace(
        config.generation, max_text_tokens=MAX_TEXT, max_codes=MAX_CODES, flow_points=3
    )
    config = replace(
        config, visual=visual, generation=generation, thinker=replace(config.thinker, text=text)
    )
    model = random_model(config, seed=3)
    model.voices["default"] = model.voices["Chelsie"]
    for stage in (model.thinker, model.talker, model.audio, model.vision):
        stage.double()
    with tempfile.TemporaryDirectory() as directory:
        build_tokenizer(config, Path(directory))
        tokenizer = Tokenizer.load(directory, config=config.thinker)
    return model, tokenizer


def engine(max_positions: int = MAX_POSITIONS, **options) -> Engine:
    return Engine(*omni(max_positions), **options)


def options(**changes) -> pipeline.Options:
    model, _ = omni()
    plain = pipeline.Options(generation=model.config.generation)
    return changed(plain, {"greedy": True, "flow_method": "euler"} | changes)


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise that is loudest at its beginning and never silent: the running maximum is the clip's."""
    rng = np.random.default_rng(seed)
    pcm = 0.05 * rng.standard_normal(round(16_000 * seconds)).astype(np.float32)
    pcm[:400] *= 4
    return pcm.clip(-1, 1)


def offline(prompt: Prompt, opts: pipeline.Options, voice: str = "default") -> Reply:
    """The offline path on a whole prompt."""
    model, tokenizer = omni()
    voices = [model.voices[voice]]
    answering = pipeline.answer(model, tokenizer, [prompt], opts, voices=voices)
    while True:
        try:
            next(answering)
        except StopIteration as stop:
            return stop.value[0]


class Script:
    """A conversation of text and sound written down by hand: ids one by one, positions 0, 1, 2, ..."""

    def __init__(self, system: str = SPEECH_SYSTEM) -> None:
        self.ids: list[int] = []
        self.audio: list[torch.Tensor] = []
        model, self.tokenizer = omni()
        self.config = model.config
        self.turn("system", system)

    def turn(self, role: str, *content) -> Script:
        """Strings are text, arrays sound, lists of ints token ids."""
        ids = self.config.thinker.ids
        self.ids.append(ids.im_start)
        text = f"{role}\n"
        for part in content:
            if isinstance(part, str):
                text += part
                continue
            self.ids += self.tokenizer.encode(text)
            text = ""
            if isinstance(part, list):
                self.ids += part
            else:
                mel = log_mel(torch.from_numpy(part)[None], self.config.mel)[0]
                count = ((mel.shape[1] - 1) // 2 + 1) // 2
                self.ids += [ids.audio_bos, *[ids.audio] * count, ids.audio_eos]
                self.audio.append(mel)
        self.ids += [*self.tokenizer.encode(text), ids.im_end, *self.tokenizer.encode("\n")]
        return self

    def prompt(self) -> Prompt:
        """With the assistant's turn opened."""
        opening = [self.config.thinker.ids.im_start, *self.tokenizer.encode("assistant\n")]
        ids = torch.tensor(self.ids + opening)
        positions = torch.arange(len(ids)).expand(3, -1)
        return Prompt(ids, positions, len(ids), audio=list(self.audio))


def reply_of(events) -> Reply:
    *_, last = events
    return last.reply


def assert_same_reply(ours: Reply, theirs: Reply) -> None:
    assert ours.token_ids == theirs.token_ids
    assert ours.codes == theirs.codes
    assert ours.prompt_tokens == theirs.prompt_tokens
    assert ours.text == theirs.text
