"""Lines: what somebody types, with editing, completion and a history that outlives the program; or the lines of a pipe.

    lines = Lines(complete=lambda line: [":help", ":quit"])
    lines.read("> ")        "a line", or None at the end of input

The history is a file of the user's own (mode 600): $THINKTALK_HISTORY, else thinktalk/history below $XDG_STATE_HOME
(~/.local/state). An empty THINKTALK_HISTORY keeps none. Python without readline (Windows) reads lines without all this.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

__all__ = ["Lines"]

MOST_LINES = 1000


class Lines:
    """One source of lines: standard input. `complete(line)`: what the whole line may become."""

    def __init__(self, complete: Callable[[str], list[str]] | None = None):
        self.interactive = sys.stdin.isatty()
        """Whether somebody types."""
        self._edits = self.interactive and sys.stdout.isatty()
        self.typed = ""
        """After KeyboardInterrupt: what stood in the line."""
        self._readline = _readline() if self._edits else None
        self._history = _history_file() if self._readline is not None else None
        if self._readline is not None:
            self._set_up(self._readline, complete)

    def read(self, prompt: str) -> str | None:
        """The next line, asked for where somebody types; None at the end. Errors: KeyboardInterrupt."""
        if not self._edits:
            if self.interactive:
                print(prompt, end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            return line.rstrip("\r\n") if line else None
        before = signal.signal(signal.SIGINT, self._stop)
        try:
            line = input(prompt)
        except EOFError:
            print()
            return None
        finally:
            signal.signal(signal.SIGINT, before)
        self._remember()
        return line

    def _stop(self, *_: object) -> None:
        """Ctrl-C; readline has forgotten the line by the time that input() tells of it."""
        self.typed = "" if self._readline is None else self._readline.get_line_buffer()
        raise KeyboardInterrupt

    # ------------------------------------------------------------------------------------------------------------ inside

    def _set_up(self, readline: ModuleType, complete: Callable[[str], list[str]] | None) -> None:
        readline.set_auto_history(True)
        readline.set_history_length(MOST_LINES)
        if self._history is not None:
            with contextlib.suppress(OSError):
                readline.read_history_file(self._history)
        if complete is not None:
            found: list[str] = []

            def completer(_: str, state: int) -> str | None:
                if state == 0:
                    found[:] = complete(readline.get_line_buffer())
                return found[state] if state < len(found) else None

            readline.set_completer_delims("")  # the whole line: paths have spaces
            readline.set_completer(completer)
            libedit = "libedit" in (readline.__doc__ or "")
            readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")

    def _remember(self) -> None:
        """After each line, so that nothing is lost however the program ends."""
        append = getattr(self._readline, "append_history_file", None)
        if self._history is not None and append is not None:
            with contextlib.suppress(OSError):  # a full disk must not end a conversation
                append(1, self._history)


def _readline() -> ModuleType | None:
    try:
        import readline
    except ImportError:
        return None
    return readline


def _history_file() -> str | None:
    """Made where it is missing; None when none is wanted or none can be."""
    told = os.environ.get("THINKTALK_HISTORY")
    if told == "":
        return None
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    path = Path(told or f"{state}/thinktalk/history").expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:
        return None
    return str(path)
