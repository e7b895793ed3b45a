"""thinktalk chat: one turn from files and text, or a conversation on the terminal when nothing is given."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from thinktalk.cli import options
from thinktalk.cli.speaking import follow, whole
from thinktalk.errors import ThinktalkError
from thinktalk.events import Event, Reply

if TYPE_CHECKING:
    from thinktalk.omni import Omni

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser)
    parser.add_argument("--text", default=None, metavar="T", help="what you say")
    for kind in ("audio", "image", "video"):
        parser.add_argument(
            f"--{kind}",
            action="append",
            default=[],
            metavar="F",
            help=f"{kind} file; may be given again",
        )
    parser.add_argument(
        "--system", default=None, metavar="S", help="system prompt in place of the model's own"
    )
    parser.add_argument(
        "--no-speech",
        action="store_true",
        help="answer in text only; the Talker and vocoder are not loaded",
    )
    parser.add_argument(
        "--no-video-sound", action="store_true", help="do not listen to the sound of videos"
    )
    parser.add_argument(
        "--allow-urls",
        action="store_true",
        help="let --audio, --image and --video be http(s) addresses",
    )
    parser.add_argument(
        "--play",
        action="store_true",
        help="play the speech as it comes (aplay, paplay, pw-play, play or ffplay)",
    )
    parser.add_argument(
        "--whole",
        action="store_true",
        help="make the speech in one piece at the end, exactly as the reference does",
    )
    options.add_generation(parser)


def run(args: argparse.Namespace) -> int:
    options.check_out(args.out)
    content = user_content(args)
    system = [{"role": "system", "content": args.system}] if args.system is not None else []
    if not content:
        return converse(args, system)
    omni = options.load_model(args, speech=not args.no_speech)
    messages = [*system, {"role": "user", "content": content}]
    answer(omni, messages, args, out=args.out or "answer.wav", allow_urls=args.allow_urls)
    return 0


def answer(
    omni: Omni,
    messages: list[dict],
    args: argparse.Namespace,
    *,
    out: str,
    allow_urls: bool = False,
) -> Reply:
    """One answer, printed and written as it comes; with --whole when it is complete."""
    speech = not args.no_speech
    asked = {"speech": speech, "allow_urls": allow_urls, **options.generation(args)}
    if args.whole:
        reply = omni.chat(messages, **asked)
        events: Iterator[Event] = whole(reply)
    else:
        events = omni.stream(messages, **asked)
    rate = omni.config.code2wav.sample_rate if speech and omni.config.code2wav else 24_000
    reply = follow(
        events,
        out=out if speech else None,
        play=args.play and speech,
        quiet=args.json,
        sample_rate=rate,
    )
    options.report(reply, out if speech else None, json_wanted=args.json)
    return reply


def user_content(args: argparse.Namespace) -> list[dict]:
    """The user's turn: pictures, videos and sounds first, as the official examples order them, then the text."""
    content: list[dict] = [{"type": "image", "image": path} for path in args.image]
    content += [
        {"type": "video", "video": p, "use_audio": not args.no_video_sound} for p in args.video
    ]
    content += [{"type": "audio", "audio": path} for path in args.audio]
    if args.text is not None:
        content.append({"type": "text", "text": args.text})
    return content


def converse(args: argparse.Namespace, history: list[dict]) -> int:
    """A conversation: one line a turn; `@file` attaches a file; an empty line or the end of input ends it."""
    omni = options.load_model(args, speech=not args.no_speech)
    asking = sys.stdin.isatty()
    if asking:
        print(
            "Type, and press Enter. @FILE attaches a sound, picture or video. Ctrl-D ends.",
            file=sys.stderr,
        )
    turn = 0
    while True:
        if asking:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line.strip():
            return 0
        out = Path(args.out or "answer.wav")
        try:
            message = {"role": "user", "content": parse_line(line)}
            numbered = str(out.with_stem(f"{out.stem}-{turn + 1}"))
            reply = answer(
                omni, [*history, message], args, out=numbered, allow_urls=args.allow_urls
            )
        except ThinktalkError as error:  # a wrong attachment must not end the conversation
            print(f"thinktalk: {error}", file=sys.stderr)
            continue
        turn += 1
        history += [message, {"role": "assistant", "content": reply.text}]


_KINDS = {
    "image": {".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".heic"},
    "video": {".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v"},
}


def parse_line(line: str) -> list[dict]:
    """Words beginning with @ are attachments, by their ending; the rest is text."""
    content, words = [], []
    for word in line.split():
        if word.startswith("@") and len(word) > 1:
            ending = Path(word).suffix.lower()
            kind = next((kind for kind, endings in _KINDS.items() if ending in endings), "audio")
            content.append({"type": kind, kind: word[1:]})
        else:
            words.append(word)
    return [*content, {"type": "text", "text": " ".join(words)}] if words else content
