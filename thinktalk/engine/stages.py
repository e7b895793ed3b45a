"""Stages: the networks at work for many conversations. What one unit of work is, for whom, is the scheduler's to say.

    read    a piece of prompt  -> the Thinker's memory, and the Talker's (hidden + embedding)
    begin   what was read      -> the first token of a reply
    think   one token each     -> the next tokens, and what the Talker hears
    open    two inputs         -> the first code of a reply
    talk    one code each      -> the next codes, and windows of codes
    sound   windows            -> stretches of sound

A step over several conversations changes nothing before it has succeeded: after an exception it may be tried one by one.
Letters: R conversations, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from thinktalk.code2wav.dit import Timbre
from thinktalk.code2wav.speaker import Voice
from thinktalk.code2wav.streaming import Speech, Windows
from thinktalk.engine.drawing import Choice, Drawing
from thinktalk.engine.pool import RowPool
from thinktalk.engine.replying import Replying
from thinktalk.engine.seat_state import SeatState
from thinktalk.errors import InputError, ThinktalkError
from thinktalk.messages import Embedded, ThinkerChunk
from thinktalk.pipeline import Options, Reading
from thinktalk.prompt import Tokenizer
from thinktalk.talker.prepare import TalkerFeed, feed_rows
from thinktalk.thinker.sampling import Sampler
from thinktalk.weights.hf import OmniModel

__all__ = ["ContextFull", "Stages"]

NOT_FINITE = "reply: the model's numbers are not finite any more; begin again from an earlier turn"
MANY_VOICES = 64  # voices that are kept at hand
MANY_WALKS = 8  # ways of making sound that are kept at hand


class ContextFull(ThinktalkError):  # noqa: N818  (a state of affairs, not a mistake)
    """A conversation has reached the model's context; it may be taken back, or a new one begun."""


class Stages:
    """One model's networks, with the pools in which conversations meet."""

    def __init__(self, model: OmniModel, tokenizer: Tokenizer, *, windows: Windows | None = None):
        assert model.thinker is not None, "an engine needs a Thinker"
        self.model, self.tokenizer = model, tokenizer
        self.can_speak = None not in (model.talker, model.dit, model.vocoder)
        self.windows = windows or Windows()
        self._speeches: dict[Windows, Speech] = {}
        self._timbres: dict[str, tuple[Voice, Timbre]] = {}
        self.thinker, self.talker = model.thinker, model.talker
        ids = model.config.thinker.ids
        self.text_ends = (ids.im_end, ids.pad)
        self.context = model.config.thinker.text.max_positions
        self.thinkers, self.text_drawing = RowPool(model.thinker), Drawing()
        if model.talker is not None:
            config = model.talker.talker_config
            self.code_ends = (config.codec_pad, config.codec_eos)
            if self.can_speak:  # the walk most replies take is made before anybody waits for it
                self.speech(Options(generation=model.config.generation))
            self.talkers, self.code_drawing = RowPool(model.talker), Drawing()

    @property
    def pool_bytes(self) -> int:
        """Bytes of keys and values of the conversations that are speaking."""
        return self.thinkers.num_bytes + (self.talkers.num_bytes if self.talker is not None else 0)

    def rest(self) -> None:
        """Nothing is to be done now."""
        self.text_drawing.forget()
        if self.talker is not None:
            self.code_drawing.forget()

    def own_bytes(self, state: SeatState) -> int:
        """Bytes of keys and values that a conversation holds outside the pools."""
        return sum(part.num_bytes for part in (state.thinker, state.talker) if part is not None)

    def fresh_state(self, voice: Voice | None) -> SeatState:
        """A conversation that has read nothing; it hears itself only with a voice."""
        feed = None
        if voice is not None:
            assert self.talker is not None
            self.timbre(voice)
            feed = TalkerFeed.start(self.talker, self.thinker.embed, voice_token=voice.bos_token)
        return SeatState(
            thinker=self.thinker.init_state(1),
            talker=None if feed is None else self.talker.init_state(1),
            feed=feed,
            hidden=None,
            token_ids=torch.zeros(1, 0, dtype=torch.int64),
            next_position=0,
        )

    # ------------------------------------------------------------------------------------------------------------ read

    def read(self, state: SeatState, reading: Reading) -> Tensor:
        """A piece of prompt; gives its hidden states (1, T, D). Errors: ContextFull, before anything has changed."""
        after = state.length + reading.embedded.length
        if after > self.context:
            raise ContextFull(
                f"conversation: {after} tokens with what is to be read, the model's context holds {self.context}; "
                "begin a new session, or go back to an earlier turn"
            )
        hidden = self.thinker.step(reading.embedded, state.thinker)
        if reading.embedded.length:
            state.heed(reading.token_ids, hidden, reading.next_position)
        positions = reading.embedded.positions
        self.recall(state, ThinkerChunk(reading.token_ids, reading.heard, hidden, positions))
        return hidden

    def recall(self, state: SeatState, chunk: ThinkerChunk) -> None:
        """The Talker reads what the Thinker has read."""
        if state.feed is not None and self.talker is not None and chunk.length:
            self.talker.step(state.feed.prompt(chunk), state.talker)

    def reading(self, token_ids: Sequence[int], position: int) -> Reading:
        """Text tokens as a piece of prompt whose first one stands at `position`."""
        weight = self.thinker.embed.weight
        ids = torch.tensor([list(token_ids)], dtype=torch.int64, device=weight.device)
        embeds = self.thinker.embed(ids)
        T = len(token_ids)
        positions = (position + torch.arange(T, device=weight.device)).expand(1, 3, T)
        return Reading(Embedded(embeds, positions), ids, embeds, position + T)

    def chunk(
        self, token_ids: Sequence[int], hidden: Sequence[Tensor], position: int
    ) -> ThinkerChunk:
        """Tokens of a reply that were read, the first at `position`, as the Talker reads a prompt."""
        text = self.reading(token_ids, position)
        return ThinkerChunk(
            text.token_ids, text.heard, torch.cat(list(hidden), 1), text.embedded.positions
        )

    # ----------------------------------------------------------------------------------------------------------- think

    def begin(self, reply: Replying) -> None:
        """Say the first token; from now on the conversation's memory is in the pool. Errors: ContextFull, InputError."""
        state, options, generation = reply.memory, reply.options, reply.options.generation
        if state.hidden is None:
            raise InputError("conversation: nothing was said yet, expected a turn to answer")
        room = self.context - state.length
        if room < 1:
            raise ContextFull(
                f"conversation: {state.length} tokens fill the model's context; begin a new session, or go back to an earlier turn"
            )
        sampler = Sampler.for_text(generation, greedy=options.greedy)
        home = state.hidden.device
        reply.text_choice = Choice.start(
            sampler, self.thinker.config.vocab_size, seed=options.seed, seen=state.token_ids, device=home
        )  # fmt: skip
        reply.begun, reply.thinking = True, True
        reply.mark, reply.prompt_tokens = state.mark(), state.length
        reply.text, reply.text_limit = (
            self.tokenizer.decode_stream(),
            min(generation.max_text_tokens, room),
        )
        if options.speech:
            assert state.feed is not None
            reply.sample_rate = self.model.config.code2wav.sample_rate
            reply.feed = state.feed.fork()
            reply.talking = reply.speaking = True
        logits = self.thinker.logits(_sound(state.hidden))
        self._accept_token(reply, int(self.text_drawing.draw(logits, [reply.text_choice])))
        if reply.thinking:
            reply.text_row = self.thinkers.join(state.thinker)
            state.thinker = None

    def think(self, replies: Sequence[Replying]) -> list[Exception | None]:
        """One token more of each reply, all of one lane; gives the error of each (numbers that are not finite)."""
        last = torch.tensor([[reply.token_ids[-1]] for reply in replies])
        tokens_R1 = last.to(self.thinker.embed.weight.device)
        embeds = self.thinker.embed(tokens_R1)
        at = [reply.mark.next_position + len(reply.hidden) for reply in replies]
        positions = torch.tensor(at, device=embeds.device)[:, None, None].expand(-1, 3, 1)
        rows = [reply.text_row for reply in replies]
        hidden = self.thinkers.step(rows, Embedded(embeds, positions))
        heard: list[Tensor | None] = [None] * len(replies)
        if any(reply.talking for reply in replies):
            home = self.talker.embed.weight
            heard = list((hidden + embeds).to(home).split(1))
        for reply, own, told in zip(replies, hidden.split(1), heard, strict=True):
            reply.hear(own, told)
        state_RD, sound = _finite(hidden[:, -1])
        logits = self.thinker.logits(state_RD)
        chosen = self.text_drawing.draw(logits, [reply.text_choice for reply in replies])
        return self._deal(replies, chosen, sound, self._accept_token)

    def _accept_token(self, reply: Replying, token: int) -> None:
        reply.accept_token(token, self.text_ends)
        if not reply.thinking and reply.text_row is not None:
            reply.memory.thinker = self.thinkers.leave(reply.text_row)
            reply.text_row = None

    # ------------------------------------------------------------------------------------------------------------ talk

    def open(self, reply: Replying) -> None:
        """The first code of a reply; from now on the Talker's memory is in the pool."""
        config, dit = self.model.config, self.model.config.code2wav.dit
        talker, options, state = self.talker, reply.options, reply.memory
        length = state.talker.extent + 2
        reply.code_limit = min(
            options.generation.max_codes, dit.max_positions // dit.repeats,
            config.talker.decoder.max_positions - length,
        )  # fmt: skip
        if reply.code_limit < 1:
            self._stop_talking(reply)
            return
        sampler = Sampler.for_codes(
            options.generation, config.talker, num_codes=dit.num_codes, greedy=options.greedy
        )
        opening = reply.feed.opening()
        marks = torch.tensor([[config.talker.codec_mask, config.talker.codec_pad, config.talker.codec_bos]])  # fmt: skip
        reply.code_choice = Choice.start(
            sampler, config.talker.decoder.vocab_size, seed=options.seed, seen=marks, device=opening.embeds.device
        )  # fmt: skip
        reply.speech = self.speech(options)
        timbre = self.timbre(reply.voice)
        reply.spoken = reply.speech.init_state(
            1, voice=timbre, seed=options.seed, noise=reply.noise
        )
        reply.wanted = reply.speech.wants(reply.spoken)
        hidden = talker.step(opening, state.talker)[:, -1]
        reply.code_row = self.talkers.join(state.talker)
        state.talker = None
        logits = talker.logits(_sound(hidden))
        self._accept_code(reply, int(self.code_drawing.draw(logits, [reply.code_choice])))

    def talk(self, replies: Sequence[Replying]) -> list[Exception | None]:
        """One code more of each reply, all of one lane; gives the error of each."""
        codes = torch.tensor([[reply.codes[-1]] for reply in replies])
        home = self.talker.embed.weight.device
        x = feed_rows([reply.feed for reply in replies], self.talker.embed(codes.to(home)))
        hidden = self.talkers.step([reply.code_row for reply in replies], x)
        state_RD, sound = _finite(hidden[:, -1])
        chosen = self.code_drawing.draw(
            self.talker.logits(state_RD), [reply.code_choice for reply in replies]
        )
        return self._deal(replies, chosen, sound, self._accept_code)

    def _accept_code(self, reply: Replying, code: int) -> None:
        if not reply.accept_code(code, self.code_ends):
            self._stop_talking(reply)
        else:
            reply.voice_codes()

    def _stop_talking(self, reply: Replying) -> None:
        reply.talking = False
        if reply.code_row is not None:
            reply.memory.talker = self.talkers.leave(reply.code_row, keep=reply.mark.talker)
            reply.code_row = None
        if reply.codes:
            reply.voice_codes(last=True)
        reply.speaking = reply.sounding

    # ----------------------------------------------------------------------------------------------------------- sound

    def speech(self, options: Options) -> Speech:
        """How codes become sound with these options; kept, since its walk takes a while to make."""
        generation = options.generation
        windows = replace(
            self.windows, points=generation.flow_points, guidance=generation.flow_guidance,
            sway=generation.flow_sway, method=options.flow_method,
        )  # fmt: skip
        if windows not in self._speeches:
            if len(self._speeches) >= MANY_WALKS:
                self._speeches.pop(next(iter(self._speeches)))
            self._speeches[windows] = Speech(
                self.model.dit, self.model.vocoder, self.model.config.code2wav, windows=windows
            )
        return self._speeches[windows]

    def timbre(self, voice: Voice) -> Timbre:
        """What a voice adds to every frame; heard once, before anybody waits for it. InputError if it does not fit."""
        if voice.name not in self._timbres or self._timbres[voice.name][0] is not voice:
            if len(self._timbres) >= MANY_VOICES:
                self._timbres.pop(next(iter(self._timbres)))
            with torch.inference_mode():
                self._timbres[voice.name] = voice, self.model.dit.prime(voice)
        return self._timbres[voice.name][1]

    def sound(self, replies: Sequence[Replying]) -> list[Exception | None]:
        """The next stretch of sound of each reply, all made the same way; gives the error of each."""
        waves = self._speech_of(replies).run([reply.spoken for reply in replies])
        errors: list[Exception | None] = []
        for reply, wave in zip(replies, waves, strict=True):
            try:
                if reply.live:
                    reply.accept_sound(wave[0].float().cpu().numpy())
                errors.append(None)
            except Exception as own:
                errors.append(own)
        return errors

    @staticmethod
    def _speech_of(replies: Sequence[Replying]) -> Speech:
        speech = replies[0].speech
        assert speech is not None and all(reply.speech is speech for reply in replies)
        return speech

    def part(self, reply: Replying) -> None:
        """The reply is over: what is in the pools comes home, the Talker's memory without the speech."""
        state = reply.memory
        if reply.text_row is not None:
            state.thinker, reply.text_row = self.thinkers.leave(reply.text_row), None
        if reply.code_row is not None:
            state.talker, reply.code_row = (
                self.talkers.leave(reply.code_row, keep=reply.mark.talker),
                None,
            )
        elif reply.code_choice is not None:
            state.talker.trim(reply.mark.talker)
        reply.thinking = reply.talking = False

    # ------------------------------------------------------------------------------------------------------------- all

    @staticmethod
    def _deal(replies, chosen: Tensor, sound: Tensor, accept) -> list[Exception | None]:
        """Give each reply its token, waiting for the device once; a reply whose own part fails does not stop the others."""
        errors: list[Exception | None] = []
        tokens, fine = torch.stack((chosen, sound.to(chosen.dtype))).tolist()
        for reply, token, finite in zip(replies, tokens, fine, strict=True):
            error: Exception | None = None
            if not finite:
                error = ArithmeticError(NOT_FINITE)
            elif reply.live:  # another reply's listener may have ended this one meanwhile
                try:
                    accept(reply, token)
                except Exception as own:
                    error = own
            errors.append(error)
        return errors


def _finite(hidden_RD: Tensor) -> tuple[Tensor, Tensor]:
    """The same without NaN and infinities, which must not reach the others' draws; and which rows had none."""
    return torch.nan_to_num(hidden_RD, 0.0, 0.0, 0.0), hidden_RD.sum(-1).isfinite()


def _sound(hidden_1D: Tensor) -> Tensor:
    """The same; ArithmeticError when it is not finite."""
    if not bool(hidden_1D.sum().isfinite()):
        raise ArithmeticError(NOT_FINITE)
    return hidden_1D
