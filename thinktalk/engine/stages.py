"""Stages: the networks at work for many conversations: thinking.py and speaking.py, and what goes through both.

Which unit of work is done when, and for whom, is the scheduler's to say.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thinktalk.code2wav.speaker import Voice
from thinktalk.code2wav.streaming import Windows
from thinktalk.engine.replying import Replying
from thinktalk.engine.seat_state import SeatState
from thinktalk.engine.speaking import Speaking
from thinktalk.engine.thinking import Thinking
from thinktalk.messages import ThinkerChunk
from thinktalk.pipeline import Reading
from thinktalk.prompt import Tokenizer
from thinktalk.talker.prepare import TalkerFeed
from thinktalk.weights.hf import OmniModel

__all__ = ["Stages"]


class Stages:
    """One model's networks, with the pools in which conversations meet."""

    def __init__(self, model: OmniModel, tokenizer: Tokenizer, *, windows: Windows | None = None):
        self.thinking = Thinking(model, tokenizer)
        can_speak = None not in (model.talker, model.dit, model.vocoder)
        self.speaking = Speaking(model, windows) if can_speak else None

    @property
    def decoders(self) -> list:
        """Thinker and, if there is one, Talker."""
        both = [self.thinking.thinker]
        return both if self.speaking is None else [*both, self.speaking.talker]

    def fresh_state(self, voice: Voice | None) -> SeatState:
        """A conversation that has read nothing; it speaks only with a voice."""
        talker = feed = None
        if voice is not None:
            assert self.speaking is not None
            self.speaking.timbre(voice)
            embed = self.thinking.thinker.embed
            feed = TalkerFeed.start(self.speaking.talker, embed, voice_token=voice.bos_token)
            talker = self.speaking.talker.init_state(1)
        return SeatState(
            thinker=self.thinking.thinker.init_state(1),
            talker=talker,
            feed=feed,
            hidden=None,
            token_ids=torch.zeros(1, 0, dtype=torch.int64),
            next_position=0,
        )

    def read(self, state: SeatState, reading: Reading) -> Tensor:
        """Both read a piece of prompt; gives the Thinker's hidden states (1, T, D). Errors: ContextFull."""
        chunk = self.thinking.read(state, reading)
        self.recall(state, chunk)
        return chunk.hidden

    def recall(self, state: SeatState, chunk: ThinkerChunk) -> None:
        """The Talker reads what the Thinker has read."""
        if self.speaking is not None:
            self.speaking.recall(state, chunk)

    def part(self, reply: Replying) -> None:
        """The reply is over: its memory comes home, the Talker's without the speech."""
        self.thinking.part(reply)
        if self.speaking is not None:
            self.speaking.part(reply)

    def rest(self) -> None:
        """Nothing is to be done now."""
        self.thinking.drawing.forget()
        if self.speaking is not None:
            self.speaking.drawing.forget()

    @property
    def pool_bytes(self) -> int:
        """Bytes of keys and values of the conversations that are in the pools."""
        spoken = 0 if self.speaking is None else self.speaking.pool.num_bytes
        return self.thinking.pool.num_bytes + spoken

    def own_bytes(self, state: SeatState) -> int:
        """Bytes of keys and values that a conversation holds outside the pools."""
        return sum(part.num_bytes for part in (state.thinker, state.talker) if part is not None)
