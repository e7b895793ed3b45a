"""Wording: what is fixed about a reply's words before it begins -> Watch, which follows its text as it comes.

    given       "<tool_call>\\n"   it begins with these tokens, whatever the Thinker would have chosen; with `ends` it is them
    stop        ("\\n\\n",)        the text ends before the first of these, and so does the speech
    unspoken    ("<tool_call>",)  from the first of these on it is written and not spoken

A stop string is held back until it is known whether it is one. The Talker hears a token when the Thinker reads it, one step
later: a mark of one token is never spoken, of one that takes several tokens the last is not.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Watch", "Wording"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wording:
    """What is fixed about a reply's words; nothing, as it stands."""

    given: tuple[int, ...] = ()
    """Tokens it begins with."""
    ends: bool = False
    """Whether nothing follows them."""
    stop: tuple[str, ...] = ()
    """Strings before which it ends."""
    unspoken: tuple[str, ...] = ()
    """Strings from which on it is only written."""


class Watch:
    """A text that comes in pieces, cut at the first stop string.

    >>> watch = Watch(Wording(stop=("END",)))
    >>> watch.push("the E"), watch.push("ND of it"), watch.stopped
    ('the ', '', True)
    """

    def __init__(self, wording: Wording):
        self.wording = wording
        self.stopped = self.silent = False
        self._held = ""  # may be the beginning of a stop string
        self._tail = ""  # may be the beginning of an unspoken one
        self._longest = max(map(len, wording.unspoken), default=1)

    def push(self, piece: str) -> str:
        """What may be given out of the text so far and was not yet."""
        if self.stopped:
            return ""
        text = self._held + piece
        found = [at for at in map(text.find, self.wording.stop) if at >= 0]
        self.stopped = bool(found)
        free = min(found) if found else len(text) - self._undecided(text)
        self._held = "" if found else text[free:]
        self._listen(piece)
        return text[:free]

    def flush(self) -> str:
        """What was held back, when the text has ended by itself."""
        held, self._held = self._held, ""
        return held

    def _undecided(self, text: str) -> int:
        """Characters at the end of the text that a stop string may begin with."""
        return max(
            (n for stop in self.wording.stop for n in range(1, len(stop)) if text.endswith(stop[:n])),
            default=0,
        )  # fmt: skip

    def _listen(self, piece: str) -> None:
        if self.wording.unspoken and not self.silent:
            tail = self._tail + piece
            self.silent = any(mark in tail for mark in self.wording.unspoken)
            self._tail = tail[-self._longest :]
