"""thinktalk chat as somebody at a terminal has it: files, commands, Ctrl-C, a real pseudo terminal, and a pipe."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import thinktalk
from thinktalk.cli import loudspeaker
from thinktalk.cli.attachments import content_of, files_in
from thinktalk.cli.conversation import Conversation
from thinktalk.cli.main import main
from thinktalk.cli.speaking import printable
from thinktalk.cli.talks import load_messages
from thinktalk.errors import InputError

# ---------------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some files, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THINKTALK_HISTORY", "")
    for name in ("cat.png", "my cat.png", "it's.png"):
        Image.new("RGB", (60, 40), (200, 30, 30)).save(name)
    Path("a.wav").write_bytes(b"")
    Path("notes.txt").write_text("milk\n")
    Path("paper.pdf").write_bytes(b"%PDF")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "files", "text"),
    [
        ("Hello", [], "Hello"),
        ("it's \"quoted\", isn't it", [], "it's \"quoted\", isn't it"),
        ("@cat.png", ["cat.png"], ""),
        ("look at @cat.png please", ["cat.png"], "look at please"),
        ("what is @cat.png?", ["cat.png"], "what is"),
        ('@"my cat.png" and @a.wav', ["my cat.png", "a.wav"], "and"),
        ("@my\\ cat.png", ["my cat.png"], ""),
        ("'{here}/my cat.png' who", ["my cat.png"], "who"),
        ("{here}/my\\ cat.png", ["my cat.png"], ""),
        ("file://{here}/my%20cat.png", ["my cat.png"], ""),
        ('"{here}/it\'s.png"', ["it's.png"], ""),
        ("{here}/gone.png is not there", [], "{here}/gone.png is not there"),
        ("read /etc/passwd to me", [], "read /etc/passwd to me"),
        ("thanks @anna, mail me@cat.png", [], "thanks @anna, mail me@cat.png"),
        ("@notes.txt what is missing", [], "notes.txt:\nmilk\n\nwhat is missing"),
        ("line  one\nline two", [], "line  one\nline two"),
    ],
)
def test_what_is_typed_and_what_is_dropped(folder: Path, line: str, files: list, text: str):
    fill = lambda s: s.replace("{here}", str(folder))  # noqa: E731
    content = content_of(fill(line))
    media = [part[part["type"]] for part in content if part["type"] != "text"]
    assert media == [str(folder / name) for name in files]
    assert "".join(part["text"] for part in content if part["type"] == "text") == fill(text)


@pytest.mark.parametrize("line", ["@gone.png", "@no/such", "@paper.pdf?", "@./", "@bad.txt"])
def test_a_wrong_file_is_told(folder: Path, line: str):
    (folder / "bad.txt").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(InputError, match=r"no such file|a folder|its ending|not a text"):
        content_of(line if line != "@paper.pdf?" else "@./paper.pdf")


def test_attaching_takes_names_alone(folder: Path):
    kinds = [part["type"] for part in files_in("cat.png 'my cat.png' notes.txt")]
    assert kinds == ["image", "image", "text"]


# ---------------------------------------------------------------------------------------------------------------- turns


class Typed(io.StringIO):
    """Lines of somebody at a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def model(tiny_checkpoint: str) -> thinktalk.Omni:
    """Loaded once."""
    return thinktalk.load(tiny_checkpoint)


@pytest.fixture
def typed(
    model: thinktalk.Omni,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> Iterator[Callable]:
    """typed("line", ..., options=[...]) -> (status, stdout, stderr)."""
    monkeypatch.setattr(thinktalk, "load", lambda *a, **k: model)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def call(*lines: str, options: tuple = ("--no-speech",), most: int = 6) -> tuple:
        monkeypatch.setattr(sys, "stdin", Typed("".join(f"{line}\n" for line in lines)))
        words = ["chat", "--model", "tiny", "--greedy", "--max-text-tokens", str(most), *options]
        status = main(words)
        return status, *capsys.readouterr()

    yield call
    signal.signal(signal.SIGINT, before)


def saved(path: str = "talk.json") -> list[dict]:
    return json.loads(Path(path).read_text())


def test_a_conversation_is_what_chat_would_have_said(typed: Callable, model: thinktalk.Omni):
    status, out, err = typed(
        "Hello", ":attach cat.png", "", "What is it?", "@gone.png", ":bogus", "", ":save talk.json", ":quit", "never"
    )  # fmt: skip
    assert status == 0
    assert "gone.png: no such file" in err
    assert ":bogus: no such command" in err
    first, answer, second, last = messages = saved()
    assert [m["role"] for m in messages] == ["user", "assistant"] * 2
    assert [p["type"] for p in second["content"]] == ["image", "text"], "a mistake lost the file"
    assert out == f"{answer['content']}\n{last['content']}\n"
    ask = lambda said: model.chat(said, speech=False, greedy=True, max_text_tokens=6).text  # noqa: E731
    assert ask([first]) == answer["content"]
    assert ask(messages[:3]) == last["content"]
    assert ask([second]) != last["content"], "the planted fault, a history forgotten, must show"


def test_it_goes_on_where_it_was_saved_and_forgets_when_told(typed: Callable):
    typed("Hello", ":save talk.json")
    before = saved()
    _, out, _ = typed("More", ":save more.json", options=("--no-speech", "--continue", "talk.json"))
    assert saved("more.json")[:2] == before
    assert saved("more.json")[3]["content"] == out.strip("\n")
    typed("Hello", ":reset", "@cat.png", ":save new.json")
    assert saved("new.json")[0]["content"] == [{"type": "image", "image": str(Path.cwd() / "cat.png")}]  # fmt: skip
    typed("Hello", ":reset", "More", ":save new.json", options=("--no-speech", "--system", "Be kind."))  # fmt: skip
    assert [m["content"] for m in saved("new.json")][:2] == ["Be kind.", "More"]


def test_what_was_not_saved_by_us_is_refused(typed: Callable):
    for number, text in enumerate(("", "{}", '[{"role": "judge", "content": ""}]', '[{"role": "user", "content": "x"}]')):  # fmt: skip
        Path(f"{number}.json").write_text(text)
        with pytest.raises(InputError, match=r"saved|ends with an answer"):
            load_messages(f"{number}.json")
    assert typed(options=("--continue", "gone.json"))[0] == 2
    assert typed(options=("--whole",))[0] == 2


def test_voices_are_listed_and_changed(typed: Callable):
    options = ("--max-codes", "4")
    status, _, err = typed("Hello", ":voice", ":voice Nobody", ":voice Ethan", "Again", ":save talk.json", ":save a.txt.wav", options=options)  # fmt: skip
    assert status == 0
    assert "Nobody" in err
    assert "voice: Ethan" in err
    assert len(saved()) == 4
    assert Path("answer-2.wav").read_bytes() == Path("a.txt.wav").read_bytes()


# --------------------------------------------------------------------------------------------------------------- Ctrl-C


def ctrl_c_after(monkeypatch: pytest.MonkeyPatch, words: int) -> list[str]:
    """Ctrl-C when so many pieces of text were printed; what was printed."""
    from thinktalk.cli import conversation

    shown: list[str] = []
    take = conversation.Outlet.take

    def counted(outlet: object, event: object) -> None:
        take(outlet, event)
        if isinstance(event, thinktalk.TextDelta):
            shown.append(event.text)
            if len(shown) == words:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(conversation.Outlet, "take", counted)
    return shown


@pytest.mark.parametrize("forgets", [False, True])
def test_after_ctrl_c_the_model_remembers_what_was_read(
    typed: Callable, monkeypatch: pytest.MonkeyPatch, forgets: bool
):
    shown = ctrl_c_after(monkeypatch, 12)
    if forgets:  # the planted fault: as if all that was made had been read
        monkeypatch.setattr(Conversation, "_answer", whole_answer)
    status, _, _ = typed("Hello", ":save talk.json", most=3000)
    assert status == 0, "a conversation goes on after Ctrl-C"
    kept = saved()[1]["content"]
    assert (kept == "".join(shown)) is not forgets
    assert len(shown) < 3000


async def whole_answer(self: Conversation, out: object) -> tuple:
    events = [event async for event in self._session.respond(max_text_tokens=40)]
    return None, events[-1].reply.text


def test_ctrl_c_while_it_plays_keeps_what_was_heard(typed: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    player = folder / "bin" / "aplay"
    player.parent.mkdir()
    player.write_text("#!/bin/sh\nhead -c 4800 >heard; kill -INT $PPID; exec cat >>heard\n")
    player.chmod(0o755)
    monkeypatch.setenv("PATH", str(player.parent), prepend=os.pathsep)
    status, out, _ = typed("Hello", ":save talk.json", options=("--play", "--max-codes", "24"), most=40)  # fmt: skip
    assert status == 0
    assert "[heard up to: " in out
    kept = saved()[1]["content"]
    assert len(kept) < len(out.split(" [heard up to: ")[0])
    assert not list(folder.glob("answer*.wav")), "played, and not asked to be kept"


def test_what_was_read_is_more_than_what_was_heard(model: thinktalk.Omni):
    """Words run ahead of sound: where nobody listens, the words count."""

    def cut(**how: bool) -> tuple[str, str]:
        with model.session(greedy=True, max_text_tokens=8, max_codes=4) as session:  # fmt: skip
            session.text("Hello")
            shown = ""
            for event in session.respond_sync():
                if isinstance(event, thinktalk.TextDelta):
                    shown += event.text
                    if len(shown) > 6:
                        return shown, session.interrupt(**how)
        raise AssertionError("the answer is too short for this test")

    shown, kept = cut(read=True)
    assert kept == shown
    shown, kept = cut(read=False)
    assert len(kept) < len(shown), "the planted fault, nothing was heard yet, must show"


# ---------------------------------------------------------------------------------------------------------- loudspeaker


def test_what_was_heard_goes_by_the_clock(folder: Path, monkeypatch: pytest.MonkeyPatch):
    player = folder / "bin" / "aplay"
    player.parent.mkdir()
    player.write_text("#!/bin/sh\nexec cat >played\n")
    player.chmod(0o755)
    monkeypatch.setenv("PATH", str(player.parent), prepend=os.pathsep)
    now = [10.0]
    monkeypatch.setattr(loudspeaker.time, "monotonic", lambda: now[0])
    second = np.linspace(-1, 1, 1000, dtype=np.float32)
    with loudspeaker.Loudspeaker(1000) as speaker:
        speaker.play(second)
        now[0] += 0.4
        assert (speaker.heard_s, speaker.left_s) == pytest.approx((0.4, 0.6))
        speaker.play(second)
        assert speaker.left_s == pytest.approx(1.6)
        now[0] += 5.0  # all was played long ago: the pause is not heard sound
        assert speaker.heard_s == pytest.approx(2.0)
        speaker.play(second)
        now[0] += 0.1
        assert speaker.heard_s == pytest.approx(2.1)
        now[0] += 5.0
    assert np.frombuffer(Path("played").read_bytes(), "<i2").tolist() == 3 * (second * 32767).astype("<i2").tolist()  # fmt: skip
    with loudspeaker.Loudspeaker(1000) as speaker:
        speaker.play(second)
        now[0] += 0.3
        speaker.stop()
        now[0] += 0.3
        assert speaker.heard_s == pytest.approx(0.3)
        assert speaker.left_s == 0


def test_what_a_terminal_would_obey_is_not_printed():
    assert printable("a\x1b]0;x\x07b\r\u202ec\n\t你好") == "a�]0;x�b��c\n\t你好"


# ------------------------------------------------------------------------------------------------------- a real terminal


class Terminal:
    """A program in a pseudo terminal of its own."""

    def __init__(self, words: list[str], **environ: str):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=take_terminal, env=os.environ | environ,
        )  # fmt: skip
        os.close(slave)
        self.shown = ""

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def until(self, *wanted: str) -> None:
        """Wait for these, in this order; all up to the last is then forgotten."""
        for text in wanted:
            self._wait(lambda text=text: text in self.shown, text)
            self.shown = self.shown.partition(text)[2]

    def more(self, characters: int) -> None:
        """Wait until so much is shown."""
        self._wait(lambda: len(self.shown) >= characters, f"{characters} characters")

    def _wait(self, there: Callable[[], bool], what: str, seconds: float = 120) -> None:
        until = time.monotonic() + seconds
        while not there():
            assert time.monotonic() < until, f"{what!r} never came: {self.shown!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self.master, 65536).decode(errors="replace")
                except OSError:  # the terminal's other end is closed
                    raise AssertionError(f"it ended before {what!r}: {self.shown!r}") from None
            self.shown = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", self.shown)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def take_terminal() -> None:
    """Make standard input the terminal that controls the process, as a shell does: Ctrl-C reaches it."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.slow  # noise may write what a prompt looks like, and then this waits for one too many
def test_at_a_real_terminal(tiny_checkpoint: str, folder: Path):
    words = [sys.executable, "-m", "thinktalk.cli.main", "chat", "--model", tiny_checkpoint]
    words += ["--no-speech", "--greedy", "--max-text-tokens", "30000"]
    terminal = Terminal(words, THINKTALK_HISTORY=str(folder / "state" / "history"), TERM="xterm")
    try:
        terminal.until("Type, and press Enter", "> ")
        terminal.type("Hello\r")
        terminal.until("Hello\r\n")
        terminal.more(20)  # words come while it thinks
        terminal.type("\x03")
        terminal.until("\n", "> ")
        terminal.type(f"'{folder}/my cat.png' and\r")  # as a file manager drops it
        terminal.until("attached: image", "my cat.png")
        terminal.more(10)
        terminal.type("\x03")
        terminal.until("> ")
        terminal.type("save talk.json\x01:\r")  # Ctrl-A: to the beginning of the line
        terminal.until("saved: ")
        terminal.until("> ")
        terminal.type(":sa\t x.json\r")  # Tab
        terminal.until("saved: x.json", "> ")
        terminal.type("\x1b[A\r")  # up: the line before
        terminal.until("saved: x.json", "> ")
        terminal.type("half a line")
        terminal.until("half a line")
        terminal.type("\x03")  # clears it
        terminal.until("> ")
        terminal.type("\x03")
        terminal.until("Ctrl-C again", "> ")
        terminal.type("\x03")
        assert terminal.process.wait(60) == 130
    finally:
        terminal.close()
    first, answer, second, _ = saved()
    assert first["content"] == "Hello"
    assert len(answer["content"]) > 3
    assert second["content"][0] == {"type": "image", "image": str(folder / "my cat.png")}
    history = folder / "state" / "history"
    assert history.read_text().splitlines()[-1] == ":save x.json"
    assert history.stat().st_mode & 0o77 == 0
