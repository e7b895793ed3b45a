"""Peeking: what the Thinker would say first if it were its turn now -> log-probabilities (V,); and nothing has happened.

logp = peek(seat, work)        `work` is read, the next token's distribution is taken, and the seat is as it was

The memories are trimmed back, not copied: a peek costs what its own tokens cost to read. V is the size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

from thinktalk.engine.answering import wait_for
from thinktalk.engine.drawing import must_be_finite
from thinktalk.engine.seat import Seat
from thinktalk.errors import InputError
from thinktalk.pipeline import Reading

__all__ = ["peek"]


def peek(seat: Seat, work: Iterable[Reading | Callable]) -> Tensor:
    """Log-probabilities (V,) of the token that follows `work`, float32 on the CPU.

    The seat must be idle, and nobody else may use it meanwhile. Errors: InputError, ContextFull.
    """
    engine, mark, turn = seat.engine, seat.mark(), seat.turn

    def following() -> Tensor:
        if seat.error is not None:
            raise seat.error
        if seat.memory.hidden is None:
            raise InputError("peek: nothing was said yet, expected a turn to answer")
        logits = engine.stages.thinking.thinker.logits(must_be_finite(seat.memory.hidden))
        return logits[0].float().log_softmax(-1).cpu()

    def restore() -> None:
        seat.turn = turn  # the last reply can still be cut: nothing was read since

    try:
        seat.read(work)
        wait_for(lambda: seat.idle, engine)
        return engine.do(following)
    finally:
        seat.rewind(mark)
        engine.do(restore)
