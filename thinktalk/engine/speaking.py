"""Speaking: Talker and code2wav at work for many conversations.

    recall  what the Thinker has read -> the Talker's memory
    open    two inputs                -> the first code of a reply
    talk    one code each             -> the next codes
    sound   codes of a window each    -> stretches of sound

A step over several conversations that fails leaves them as they were: it may be tried again one by one.
Letters: R conversations, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from thinktalk.code2wav.dit import Timbre
from thinktalk.code2wav.speaker import Voice
from thinktalk.code2wav.streaming import Speech, Windows
from thinktalk.engine.drawing import Choice, Drawing, all_finite, deal, must_be_finite
from thinktalk.engine.pool import RowPool
from thinktalk.engine.replying import Replying
from thinktalk.engine.seat_state import SeatState
from thinktalk.messages import ThinkerChunk
from thinktalk.pipeline import Options
from thinktalk.talker.prepare import feed_rows
from thinktalk.thinker.sampling import Sampler
from thinktalk.weights.hf import OmniModel

__all__ = ["Speaking"]

MANY_VOICES = 64  # voices that are kept at hand
MANY_WALKS = 8  # ways of making sound that are kept at hand


class Speaking:
    """Talker and code2wav, and the pool in which conversations that talk meet."""

    def __init__(self, model: OmniModel, windows: Windows | None = None):
        assert model.talker is not None and model.dit is not None and model.vocoder is not None
        self.talker, self.dit, self.vocoder = model.talker, model.dit, model.vocoder
        self.config, self.code2wav = model.talker.talker_config, model.config.code2wav
        self.ends = (self.config.codec_pad, self.config.codec_eos)
        self.pool, self.drawing = RowPool(model.talker), Drawing()
        self.windows = windows or Windows()
        self._speeches: dict[Windows, Speech] = {}
        self._timbres: dict[str, tuple[Voice, Timbre]] = {}
        # the walk that most replies take is made before anybody waits for it
        self.speech(Options(generation=model.config.generation))

    def recall(self, state: SeatState, chunk: ThinkerChunk) -> None:
        """The Talker reads what the Thinker has read."""
        if state.feed is not None and chunk.length:
            self.talker.step(state.feed.prompt(chunk), state.talker)

    # ------------------------------------------------------------------------------------------------------------ talk

    def open(self, reply: Replying) -> None:
        """The first code of a reply; from now on the Talker's memory is in the pool."""
        options, state, dit = reply.options, reply.memory, self.code2wav.dit
        room = self.config.decoder.max_positions - state.talker.extent - 2
        reply.code_limit = min(options.generation.max_codes, dit.max_positions // dit.repeats, room)
        if reply.code_limit < 1:
            self._stop_talking(reply)
            return
        opening = reply.feed.opening()
        reply.code_choice = Choice.start(
            Sampler.for_codes(options.generation, self.config, num_codes=dit.num_codes, greedy=options.greedy),
            self.config.decoder.vocab_size, seed=options.seed,
            # the reference's prompt, as the repetition penalty sees it
            seen=torch.tensor([[self.config.codec_mask, self.config.codec_pad, self.config.codec_bos]]),
            device=opening.embeds.device,
        )  # fmt: skip
        reply.speech = self.speech(options)
        timbre = self.timbre(reply.voice)
        reply.spoken = reply.speech.init_state(
            1, voice=timbre, seed=options.seed, noise=reply.noise
        )
        reply.wanted = reply.speech.wants(reply.spoken)
        hidden = self.talker.step(opening, state.talker)[:, -1]
        reply.code_row = self.pool.join(state.talker)
        state.talker = None
        logits = self.talker.logits(must_be_finite(hidden))
        self._accept(reply, int(self.drawing.draw(logits, [reply.code_choice])))

    def talk(self, replies: Sequence[Replying]) -> list[Exception | None]:
        """One code more of each reply, all of one lane; gives the error of each."""
        codes = torch.tensor([[r.codes[-1]] for r in replies], device=self.talker.embed.weight.device)  # fmt: skip
        rows, feeds = [reply.code_row for reply in replies], [reply.feed for reply in replies]
        before = [(row.length, feed.latest, list(feed.waiting)) for row, feed in zip(rows, feeds, strict=True)]  # fmt: skip
        try:
            hidden = self.pool.step(rows, feed_rows(feeds, self.talker.embed(codes)))
            state_RD, finite = all_finite(hidden[:, -1])
            choices = [reply.code_choice for reply in replies]
            chosen = self.drawing.draw(self.talker.logits(state_RD), choices)
        except Exception:
            for row, feed, (length, latest, waiting) in zip(rows, feeds, before, strict=True):
                if row.length > length:
                    self.pool.take_back([row])
                feed.latest, feed.waiting = latest, waiting
            raise
        return deal(replies, chosen, finite, self._accept)

    def _accept(self, reply: Replying, code: int) -> None:
        if reply.accept_code(code, self.ends):
            reply.voice_codes()
        else:
            self._stop_talking(reply)

    def _stop_talking(self, reply: Replying) -> None:
        self.part(reply)
        if reply.codes:
            reply.voice_codes(last=True)
        reply.speaking = reply.sounding

    def part(self, reply: Replying) -> None:
        """The reply talks no more: its memory comes home without the speech."""
        reply.talking, state = False, reply.memory
        if reply.code_row is not None:
            state.talker = self.pool.leave(reply.code_row, keep=reply.mark.talker)
            reply.code_row = None
        elif state.talker is not None and reply.mark is not None:
            state.talker.trim(reply.mark.talker)

    # ----------------------------------------------------------------------------------------------------------- sound

    def sound(self, replies: Sequence[Replying]) -> list[Exception | None]:
        """The next stretch of sound of each reply, all made the same way; gives the error of each."""
        speech = replies[0].speech
        assert speech is not None and all(reply.speech is speech for reply in replies)
        waves = speech.run([reply.spoken for reply in replies])
        errors: list[Exception | None] = []
        for reply, wave in zip(replies, waves, strict=True):
            try:
                if reply.live:
                    reply.accept_sound(wave[0].float().cpu().numpy())
                errors.append(None)
            except Exception as own:
                errors.append(own)
        return errors

    def speech(self, options: Options) -> Speech:
        """How codes become sound with these options; kept, since its walk takes a while to make."""
        generation = options.generation
        windows = replace(
            self.windows, points=generation.flow_points, guidance=generation.flow_guidance,
            sway=generation.flow_sway, method=generation.flow_method,
        )  # fmt: skip
        if windows not in self._speeches:
            if len(self._speeches) >= MANY_WALKS:
                self._speeches.pop(next(iter(self._speeches)))
            self._speeches[windows] = Speech(self.dit, self.vocoder, self.code2wav, windows=windows)
        return self._speeches[windows]

    def timbre(self, voice: Voice) -> Timbre:
        """What a voice adds to every frame; heard once, before anybody waits for it. InputError if it does not fit."""
        known = self._timbres.get(voice.name)
        if known is None or known[0] is not voice:
            if len(self._timbres) >= MANY_VOICES:
                self._timbres.pop(next(iter(list(self._timbres))), None)  # who comes in asks, too
            with torch.inference_mode():
                known = self._timbres[voice.name] = voice, self.dit.prime(voice)
        return known[1]
