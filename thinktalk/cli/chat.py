"""thinktalk chat: one turn from files and text, or a conversation on the terminal when nothing is given."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from thinktalk.cli import options
from thinktalk.cli.loudspeaker import player_command
from thinktalk.cli.speaking import follow, whole
from thinktalk.errors import ConfigError
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
    parser.add_argument(
        "--continue",
        dest="go_on",
        default=None,
        metavar="TALK.json",
        help="go on with a conversation that :save wrote",
    )
    options.add_generation(parser)


def run(args: argparse.Namespace) -> int:
    options.check_out(args.out)
    content = user_content(args)
    system = [{"role": "system", "content": args.system}] if args.system is not None else []
    if not content:
        return converse(args, system)
    if args.go_on:
        raise ConfigError("--continue: a conversation takes your lines; leave --text and files out")
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


def converse(args: argparse.Namespace, system: list[dict]) -> int:
    """A conversation on the terminal or in a pipe (conversation.py)."""
    from thinktalk.cli.conversation import Conversation
    from thinktalk.cli.talks import load_messages

    if args.whole:
        raise ConfigError("--whole: for one answer; give --text or a file, or leave it out")
    messages = load_messages(args.go_on) if args.go_on else []
    if system:
        messages = [*system, *(m for m in messages if m["role"] != "system")]
    if args.play and not args.no_speech:
        player_command(24_000)  # told now, not after the first answer
    omni = options.load_model(args, speech=not args.no_speech)
    with omni.engine, closing(Conversation(omni, args, messages)) as conversation:
        return conversation.run()
