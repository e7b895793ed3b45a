"""Thinking: the Thinker at work for many conversations.

    read    a piece of prompt  -> its memory
    begin   what was read      -> the first token of a reply
    think   one token each     -> the next tokens, and what the Talker hears of them

A step over several conversations that fails leaves them as they were: it may be tried again one by one.
Letters: R conversations, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from thinktalk.engine.drawing import Choice, Drawing, all_finite, deal, must_be_finite
from thinktalk.engine.pool import RowPool
from thinktalk.engine.replying import Replying
from thinktalk.engine.seat_state import SeatState
from thinktalk.errors import InputError, ThinktalkError
from thinktalk.messages import Embedded, ThinkerChunk
from thinktalk.pipeline import Reading
from thinktalk.prompt import Tokenizer
from thinktalk.thinker.sampling import Sampler
from thinktalk.weights.hf import OmniModel

__all__ = ["ContextFull", "Thinking"]


class ContextFull(ThinktalkError):  # noqa: N818  (a state of affairs, not a mistake)
    """A conversation has reached the model's context; it may be taken back, or a new one begun."""


class Thinking:
    """The Thinker, and the pool in which conversations that think meet."""

    def __init__(self, model: OmniModel, tokenizer: Tokenizer):
        assert model.thinker is not None, "an engine needs a Thinker"
        self.thinker, self.tokenizer = model.thinker, tokenizer
        ids = model.config.thinker.ids
        self.ends = (ids.im_end, ids.pad)
        self.context = model.config.thinker.text.max_positions
        self.pool, self.drawing = RowPool(model.thinker), Drawing()
        self.listener = None if model.talker is None else model.talker.embed.weight

    # ------------------------------------------------------------------------------------------------------------ read

    def read(self, state: SeatState, reading: Reading) -> ThinkerChunk:
        """Read a piece of prompt; what the Talker is to hear of it. Errors: ContextFull, before anything has changed."""
        after = state.length + reading.embedded.length
        if after > self.context:
            raise ContextFull(
                f"conversation: {after} tokens with what is to be read, the model's context holds {self.context}; "
                "begin a new session, or go back to an earlier turn"
            )
        hidden = self.thinker.step(reading.embedded, state.thinker)
        if reading.embedded.length:
            state.heed(reading.token_ids, hidden, reading.next_position)
        return ThinkerChunk(reading.token_ids, reading.heard, hidden, reading.embedded.positions)

    def reading(self, token_ids: Sequence[int], position: int) -> Reading:
        """Text tokens as a piece of prompt whose first one stands at `position`."""
        home = self.thinker.embed.weight.device
        ids = torch.tensor([list(token_ids)], dtype=torch.int64, device=home)
        embeds, T = self.thinker.embed(ids), len(token_ids)
        positions = (position + torch.arange(T, device=home)).expand(1, 3, T)
        return Reading(Embedded(embeds, positions), ids, embeds, position + T)

    def recollection(
        self, token_ids: Sequence[int], hidden: Sequence[Tensor], position: int
    ) -> ThinkerChunk:
        """Tokens of a reply that were read, the first at `position`, as the Talker reads a prompt."""
        text = self.reading(token_ids, position)
        states = torch.cat(list(hidden), 1)
        return ThinkerChunk(text.token_ids, text.heard, states, text.embedded.positions)

    # ----------------------------------------------------------------------------------------------------------- think

    def begin(self, reply: Replying) -> None:
        """Say the first token; from now on the conversation's memory is in the pool. Errors: ContextFull, InputError."""
        state, generation = reply.memory, reply.options.generation
        if state.hidden is None:
            raise InputError("conversation: nothing was said yet, expected a turn to answer")
        room = self.context - state.length
        if room < 1:
            raise ContextFull(
                f"conversation: {state.length} tokens fill the model's context; begin a new session, or go back to an earlier turn"
            )
        reply.text_choice = self._choice(reply, state.token_ids[:, :0])
        reply.begin(
            state.mark(),
            self.tokenizer.decode_stream(),
            min(generation.max_text_tokens, room),
        )
        logits = self.thinker.logits(must_be_finite(state.hidden))
        self._accept(reply, int(self.drawing.draw(logits, [reply.text_choice])))
        if reply.thinking:
            reply.text_row = self.pool.join(state.thinker)
            state.thinker = None

    def think(self, replies: Sequence[Replying]) -> list[Exception | None]:
        """One token more of each reply, all of one lane; gives the error of each."""
        home = self.thinker.embed.weight.device
        embeds = self.thinker.embed(torch.tensor([[r.token_ids[-1]] for r in replies], device=home))
        at = [reply.mark.next_position + len(reply.hidden) for reply in replies]
        positions = torch.tensor(at, device=home)[:, None, None].expand(-1, 3, 1)
        rows = [reply.text_row for reply in replies]
        hidden = self.pool.step(rows, Embedded(embeds, positions))
        try:
            state_RD, finite = all_finite(hidden[:, -1])
            choices = [reply.text_choice for reply in replies]
            chosen = self.drawing.draw(self.thinker.logits(state_RD), choices)
            heard: list[Tensor | None] = [None] * len(replies)
            if any(reply.talking for reply in replies):
                heard = list((hidden + embeds).to(self.listener).split(1))
        except Exception:
            self.pool.take_back(rows)
            raise
        for reply, own, told in zip(replies, hidden.split(1), heard, strict=True):
            reply.hear(own, told)
        return deal(replies, chosen, finite, self._accept)

    def _accept(self, reply: Replying, token: int) -> None:
        reply.accept_token(self._given(reply, token), self.ends)
        if not reply.thinking:
            self.part(reply)

    def _given(self, reply: Replying, token: int) -> int:
        """The token that the reply must have here, or else the one that was drawn."""
        wording = reply.wording
        if reply.given:
            token = reply.given.popleft()
            if not reply.given:  # draws begin here: those before are forgotten
                seen = torch.tensor([wording.given], dtype=torch.int64)
                reply.text_choice = self._choice(reply, seen)
        elif wording.ends and len(reply.token_ids) == len(wording.given):
            token = self.ends[0]
        return token

    def _choice(self, reply: Replying, said: Tensor) -> Choice:
        """How a reply that has said (1, T) chooses its tokens."""
        options, state = reply.options, reply.memory
        return Choice.start(
            Sampler.for_text(options.generation, greedy=options.greedy), self.thinker.config.vocab_size,
            seed=options.seed, seen=torch.cat((state.token_ids, said), 1), device=self.thinker.embed.weight.device,
        )  # fmt: skip

    def part(self, reply: Replying) -> None:
        """The reply thinks no more: its memory comes home."""
        reply.thinking = False
        if reply.text_row is not None:
            reply.memory.thinker = self.pool.leave(reply.text_row)
            reply.text_row = None
