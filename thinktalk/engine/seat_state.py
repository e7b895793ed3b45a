"""SeatState: all that a conversation has read, and how it is taken back to an earlier moment.

mark = state.mark()        lengths and positions; no memory is copied
state.rewind(mark)         as if nothing had been read since
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from thinktalk.layers.kv_cache import DecoderState
from thinktalk.stream import State
from thinktalk.talker.prepare import TalkerFeed

__all__ = ["Mark", "SeatState"]


class Mark(NamedTuple):
    """A moment of a conversation, to come back to."""

    thinker: int  # tokens the Thinker had read
    talker: int  # tokens the Talker had read
    next_position: int
    hidden: Tensor | None
    latest: Tensor | None  # where the Talker's positions stood
    highest: Tensor | None


@dataclass
class SeatState(State):
    """What one conversation remembers between replies; sampling settings and random generators are not part of it."""

    thinker: DecoderState | None  # None while it is in the pool of those who think
    talker: (
        DecoderState | None
    )  # None without speech, and while it is in the pool of those who talk
    feed: TalkerFeed | None  # the Talker's voice and where its positions stand
    hidden: (
        Tensor | None
    )  # (1, D) of the last token read: the next one comes from it; None at the start
    token_ids: Tensor  # (1, T) int64 on the CPU, all tokens read
    next_position: int  # of the next token

    @property
    def length(self) -> int:
        """Tokens the Thinker has read."""
        return self.thinker.extent

    def fork(self) -> SeatState:
        """An independent copy; only what is used is copied."""
        return replace(
            self,
            thinker=self.thinker.fork(),
            talker=None if self.talker is None else self.talker.fork(),
            feed=None if self.feed is None else self.feed.fork(),
        )

    def mark(self) -> Mark:
        """This moment."""
        feed, talker = self.feed, self.talker
        return Mark(
            self.thinker.extent,
            0 if talker is None else talker.extent,
            self.next_position,
            self.hidden,
            None if feed is None else feed.latest,
            None if feed is None else feed.highest,
        )

    def rewind(self, mark: Mark) -> None:
        """Forget what was read since; the mark must be of this conversation, and not later than now."""
        self.thinker.trim(mark.thinker)
        self.token_ids = self.token_ids[:, : mark.thinker]
        self.hidden, self.next_position = mark.hidden, mark.next_position
        if self.talker is not None and self.feed is not None:
            assert mark.latest is not None and mark.highest is not None, "a mark without speech"
            self.talker.trim(mark.talker)
            self.feed.latest, self.feed.highest = mark.latest, mark.highest

    def go_back(self, mark: Mark, token_ids: list[int], hidden: list[Tensor]) -> None:
        """To a mark and these tokens after it, which were read with these hidden states (1, 1, D); the Talker stays."""
        n = len(token_ids)
        self.thinker.trim(mark.thinker + n)
        ids = torch.tensor([token_ids], dtype=torch.int64)
        self.token_ids = torch.cat((self.token_ids[:, : mark.thinker], ids), 1)
        self.next_position = mark.next_position + n
        self.hidden = hidden[-1][:, -1].clone() if n else mark.hidden
        if self.feed is not None:
            assert mark.latest is not None and mark.highest is not None, "a mark without speech"
            self.feed.latest, self.feed.highest = mark.latest, mark.highest

    def heed(self, token_ids: Tensor, hidden: Tensor, next_position: int) -> None:
        """Count tokens (1, T) that the Thinker has just read, with their hidden states (1, T, D)."""
        self.token_ids = torch.cat((self.token_ids, token_ids.cpu()), 1)
        self.hidden = hidden[:, -1].clone()
        self.next_position = next_position
