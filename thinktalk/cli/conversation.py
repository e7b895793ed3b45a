"""Conversation: lines of a terminal or a pipe -> a session's turns, answered as they come (docs/cli.md).

    a line               a turn: text, and files by @path or dropped on the terminal
    :voice NAME, ...     a command (COMMANDS); after a space a line may begin with a colon
    Ctrl-C               ends the answer; what was heard of it is what the model remembers. Twice: ends everything

Words are printed and sound is played or written while the engine, in a thread of its own, goes on. A mistake is told in a
line and loses nothing: the conversation stays as it was before the turn.
"""

from __future__ import annotations

import argparse
import asyncio
import glob
import os
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinktalk.cli import options
from thinktalk.cli.attachments import content_of, files_in
from thinktalk.cli.lines import Lines
from thinktalk.cli.speaking import Outlet, printable
from thinktalk.cli.talks import save_messages, write_whole
from thinktalk.errors import ConfigError, InputError, ThinktalkError
from thinktalk.events import Reply

if TYPE_CHECKING:
    from thinktalk.omni import Omni

__all__ = ["COMMANDS", "Conversation"]

COMMANDS = {
    ":help": "this",
    ":attach FILE ...": "files for your next line (@FILE within a line, or a file dropped on the terminal, does the same)",
    ":voice [NAME]": "the voices, or another voice from now on",
    ":save FILE": "the conversation, to go on with (.json: thinktalk chat --continue FILE), or the last answer's sound (.wav)",
    ":reset": "forget everything that was said",
    ":quit": "end (Ctrl-D, or Ctrl-C twice, too)",
}
HINT = "Type, and press Enter. @FILE attaches a picture, sound, video or text. Ctrl-C interrupts. :help says more."


class Quit(Exception):  # noqa: N818  (no mistake)
    """The user has had enough."""


class Conversation:
    """One user's; the engine's thread must run. `messages`: a conversation so far, its system prompt first."""

    def __init__(self, omni: Omni, args: argparse.Namespace, messages: list[dict[str, Any]]):
        self.omni, self.args = omni, args
        self.messages = messages
        """What was said: files by their paths, answers as far as they were heard."""
        self.waiting: list[dict[str, Any]] = []
        """Files for the next line."""
        self.lines = Lines(self.completions)
        self._voice = args.voice
        self._system = [m for m in messages[:1] if m["role"] == "system"]
        self._answers = 0
        self._last_sound: str | None = None
        self._session = self._begin(messages)

    # ------------------------------------------------------------------------------------------------------------- lines

    def run(self) -> int:
        """Until the end of input; the exit status."""
        if self.lines.interactive:
            print(HINT, file=sys.stderr)
        strikes = 0  # Ctrl-C in a row
        while True:
            try:
                line = self.lines.read(self._prompt())
            except KeyboardInterrupt:
                if not self.lines.interactive:
                    raise
                print(file=sys.stderr)
                if self.lines.typed:  # it cleared the line
                    continue
                strikes += 1
                if strikes > 1:
                    return 130
                self._tell("Ctrl-C again, or Ctrl-D, ends.")
                continue
            if line is None:
                return 0
            strikes = 0
            try:
                strikes += not self._line(line)
            except Quit:
                return 0
            except ThinktalkError as error:
                self._tell(f"thinktalk: {' '.join(str(error).split())}")
            except KeyboardInterrupt:  # before there was an answer
                if not self.lines.interactive:
                    raise
                print(file=sys.stderr)
                strikes += 1

    def _prompt(self) -> str:
        return f"[{len(self.waiting)} attached] > " if self.waiting else "> "

    def _line(self, line: str) -> bool:
        """What a line asks for; False when its answer was interrupted."""
        if not line.strip():
            return True
        if line[:1] == ":" and line[1:2].isalpha():
            self._command(line)
            return True
        content = [*self.waiting, *content_of(line)]
        media = [part for part in content if part["type"] != "text"]
        text = "\n\n".join(part["text"] for part in content if part["type"] == "text")
        if self.lines.interactive:
            for part in media:
                self._tell(f"attached: {part['type']} {part[part['type']]}")
        words = [{"type": "text", "text": text}] if text else []
        whole = self._turn([*media, *words] if media else text)
        self.waiting = []
        return whole

    # ------------------------------------------------------------------------------------------------------------- turns

    def _turn(self, content: str | list[dict[str, Any]]) -> bool:
        """One turn and its answer; False when that was interrupted. With an error the turn never was."""
        try:
            self._session.add(content)
        except KeyboardInterrupt:
            self._reopen()
            raise
        out = self._next_file()
        try:
            reply, text = asyncio.run(self._answer(out))
        except BaseException:
            self._reopen()
            raise
        self.messages += [{"role": "user", "content": content}, {"role": "assistant", "content": text}]  # fmt: skip
        self._answers += 1
        self._last_sound = out or self._last_sound
        if reply is not None:
            options.report(reply, out, json_wanted=self.args.json)
        elif not self.lines.interactive:
            raise KeyboardInterrupt
        return reply is not None

    async def _answer(self, out: str | None) -> tuple[Reply | None, str]:
        """The answer and its text; after Ctrl-C, which cancels this, no answer and what was heard of its text."""
        args, code2wav = self.args, self.omni.config.code2wav
        rate = 24_000 if code2wav is None else code2wav.sample_rate
        play = args.play and not args.no_speech
        with Outlet(out=out, play=play, quiet=args.json, sample_rate=rate) as outlet:
            speaker = outlet.speaker
            try:
                async with aclosing(self._session.respond()) as events:
                    async for event in events:
                        outlet.take(event)
                reply = outlet.end()
                if speaker is not None:
                    speaker.finish()
                    while speaker.playing:
                        await asyncio.sleep(0.02)
                await asyncio.sleep(0)  # a Ctrl-C that came with the last event
                return reply, reply.text
            except asyncio.CancelledError:
                if speaker is None:  # what stands on the screen was read
                    kept = self._session.interrupt(read=True)
                else:
                    speaker.stop()
                    kept = self._session.interrupt(heard_s=speaker.heard_s)
                if not args.json:
                    print("" if speaker is None else f" [heard up to: {printable(kept[-40:])}]")
                return None, kept

    def _next_file(self) -> str | None:
        """Where this answer's sound goes: numbered; with --play nowhere, unless --out says so."""
        if self.args.no_speech or (self.args.play and self.args.out is None):
            return None
        out = Path(self.args.out or "answer.wav")
        return str(out.with_stem(f"{out.stem}-{self._answers + 1}"))

    def _begin(self, messages: list[dict[str, Any]]) -> Any:
        """A session that has read these messages."""
        args = self.args
        wanted = options.generation(args) | {"voice": self._voice}
        return self.omni.session(
            messages=messages or None, speech=not args.no_speech, allow_urls=args.allow_urls,
            use_audio_in_video=False if args.no_video_sound else None, **wanted,
        )  # fmt: skip

    def _reopen(self) -> None:
        """Another session, which has read what was said so far."""
        fresh = self._begin(self.messages)
        self._session.close()
        self._session = fresh

    def close(self) -> None:
        """Hang up."""
        self._session.close()

    # ---------------------------------------------------------------------------------------------------------- commands

    def _command(self, line: str) -> None:
        word, _, rest = line.strip().partition(" ")
        command: Callable[[str], None] | None = getattr(self, f"_do_{word[1:]}", None)
        if command is None:
            raise InputError(f"{word}: no such command; :help lists them (begin with a space to say it)")  # fmt: skip
        command(rest.strip())

    def _tell(self, text: str) -> None:
        print(text, file=sys.stderr)

    def _do_help(self, _: str) -> None:
        width = max(map(len, COMMANDS))
        for name, what in COMMANDS.items():
            self._tell(f"{name:<{width}}  {what}")

    def _do_attach(self, files: str) -> None:
        self.waiting += files_in(files)
        for part in self.waiting:
            kind = part["type"]
            self._tell(f"{kind} {part[kind].splitlines()[0] if kind == 'text' else part[kind]}")
        if not self.waiting:
            self._tell("nothing is attached; :attach FILE")

    def _do_voice(self, name: str) -> None:
        if self.args.no_speech:
            raise ConfigError(":voice: answers are not spoken; begin without --no-speech")
        if not name:
            marks = ((voice, "*" if voice == self._voice else " ") for voice in self.omni.voices)
            for voice, mark in marks:
                self._tell(f"{mark} {voice}")
            return
        before, self._voice = self._voice, name
        try:
            self._reopen()
        except BaseException:
            self._voice = before
            raise
        self._tell(f"voice: {name}")

    def _do_save(self, path: str) -> None:
        if not path:
            raise InputError(":save: expected a file, such as :save talk.json or :save answer.wav")
        path = os.path.expanduser(path.strip("\"'"))
        if path.endswith(".wav"):
            if self._last_sound is None:
                raise InputError(f"{path}: no answer's sound was kept; with --play give --out, too")
            write_whole(path, Path(self._last_sound).read_bytes())
        else:
            save_messages(self.messages, path)
        self._tell(f"saved: {path}")

    def _do_reset(self, _: str) -> None:
        self.messages, self.waiting = list(self._system), []
        self._reopen()
        self._tell("forgotten")

    def _do_quit(self, _: str) -> None:
        raise Quit

    def completions(self, line: str) -> list[str]:
        """What Tab makes of a line: a command, a voice's name, a file's path."""
        if line.startswith(":voice "):
            return [f":voice {name}" for name in self.omni.voices if f":voice {name}".startswith(line)]  # fmt: skip
        if line.startswith(":") and " " not in line:
            names = [name.split()[0] for name in COMMANDS]
            return [name for name in names if name.startswith(line)]
        mark = " " if line.startswith((":attach ", ":save ")) else "@"
        head, found, path = line.rpartition(mark)
        if not found:
            return []
        path = path.replace("\\ ", " ")
        pattern = glob.escape(os.path.expanduser(path)) + "*"
        escape = lambda name: name.replace(" ", "\\ ")  # noqa: E731
        return [f"{head}{mark}{escape(p)}{'/' if os.path.isdir(p) else ''}" for p in sorted(glob.glob(pattern))]  # fmt: skip
