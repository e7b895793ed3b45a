"""Judging: is what somebody just said complete? The model that has heard it is asked: a session -> probability.

    Turns --since--> Judge --task--> likely_complete(session): P(Yes) / (P(Yes) + P(No)) after QUESTION
                          <-- the probability, a few frames later; None until then

The question is written after what was heard, the next token's distribution is taken, and all of it is forgotten (engine/peeking.py):
no word is generated, and nothing stays in the conversation. What the answer is worth depends on the weights:
benchmarks/judging.py measures it, and finds the probability from which a turn should end (--turn-threshold).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from thinktalk.engine.session import Session
from thinktalk.prompt import Tokenizer
from thinktalk.server.problems import problem_of

__all__ = ["QUESTION", "Judge", "answers_of", "likely_complete"]

log = logging.getLogger("thinktalk.server")

QUESTION = "Has the speaker finished what they wanted to say? Answer with Yes or No."
YES = ("Yes", " Yes", "yes", " yes", "YES")
NO = ("No", " No", "no", " no", "NO")


def likely_complete(session: Session, tokenizer: Tokenizer) -> float | None:
    """How likely (0..1) what was said in this turn is complete; None where the tokenizer cannot tell yes from no.

    Blocks until all that came is read and the question is. Errors: InputError (a reply is under way, nothing was said).
    """
    yes, no = answers_of(tokenizer)
    if not yes or not no:
        return None
    logp = session.peek(QUESTION)
    return float((logp[yes].logsumexp(0) - logp[no].logsumexp(0)).sigmoid())


def answers_of(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Tokens that begin a yes, and those that begin a no; none that could be both."""
    first = lambda words: {tokenizer.encode(word)[0] for word in words}  # noqa: E731
    yes, no = first(YES), first(NO)
    return sorted(yes - no), sorted(no - yes)


class Judge:
    """For one conversation. Called from the thread that hears; `judge` runs in the event loop in which it was made."""

    def __init__(
        self,
        judge: Callable[[], Awaitable[float | None]],
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task],
        told: Callable[[float | None], None] = lambda likely: None,
    ):
        """`spawn` begins a task, in that loop; `told` is called with every judgement, None for one that failed."""
        self._judge, self._spawn, self._told = judge, spawn, told
        self._loop = asyncio.get_running_loop()
        self._wanted = -1  # the silence to be judged
        self._known: tuple[int, float | None] = (
            -1,
            None,
        )  # the one that was: one object, two threads
        self._task: asyncio.Task | None = None

    def __call__(self, since: int) -> float | None:
        """How likely what was said before this silence is complete; None: not known yet, it is being asked."""
        if since != self._wanted:
            self._wanted = since
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._ask)
        judged, likely = self._known
        return likely if judged == since else None

    def _ask(self) -> None:
        if self._task is None or self._task.done():
            self._task = self._spawn(self._asked())

    async def _asked(self) -> None:
        """One after the other; silences that ended meanwhile are passed by."""
        since = -1
        while since != self._wanted:
            since, likely = self._wanted, None
            try:
                likely = await self._judge()
            except Exception as error:  # silence decides
                log.info("judging a turn: %s", problem_of(error).message)
            self._known = (since, likely)
            self._told(likely)
