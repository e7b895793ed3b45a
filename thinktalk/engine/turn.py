"""Turn: what a seat has before it and just behind it: pieces of prompt in its queue, and the last reply, which may still be cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from thinktalk.engine.replying import Said
from thinktalk.engine.seat_state import Mark
from thinktalk.messages import ThinkerChunk
from thinktalk.pipeline import Reading

__all__ = ["Piece", "Turn"]


@dataclass
class Piece:
    """Work in the queue: a reading, a function that makes readings, or what the Talker is still to hear of a reply."""

    what: Reading | ThinkerChunk | Callable[[], Iterable[Reading] | None]
    due: float
    turn: Turn | None = None  # the reply it belongs to
    done: int = 0  # tokens of it that were read

    @property
    def left(self) -> int:
        """Tokens still to be read; what a function will make is not counted."""
        if isinstance(self.what, Reading):
            return self.what.embedded.length - self.done
        return self.what.length - self.done if isinstance(self.what, ThinkerChunk) else 0


@dataclass(eq=False)
class Turn:
    """The last reply, as long as nothing was read after it."""

    mark: Mark
    token_ids: list[int]
    hidden: list[Tensor]  # (1, 1, D) of the tokens that were read
    said: Said
    recalled: bool = False  # the Talker has read it all
