"""Attachments: what somebody types, or drags into the terminal -> the content of a message.

    look at @cat.png and '/home/me/my clip.mp4' closely  ->  picture, video, "look at and closely"

A word is a file when it begins with @ and is one or looks like one, or when it is the whole path of a picture, recording,
video or text that exists: that is what a terminal types when a file is dropped on it, quoted ('my file.png', "my file.png"),
escaped (my\\ file.png) or as file:///. Everything else stays text as it was typed, quotes and apostrophes too.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from thinktalk.errors import InputError
from thinktalk.media.fetch import is_url, one_line

__all__ = ["KINDS", "content_of", "files_in"]

ENDINGS = {
    "image": "png jpg jpeg webp avif gif bmp heic heif tif tiff",
    "video": "mp4 webm mkv mov avi m4v mpg mpeg ogv",
    "audio": "wav mp3 flac ogg opus oga m4a aac aiff aif weba amr wma",
    "text": "txt md rst csv tsv json jsonl yaml yml toml xml html tex log py js ts c h cpp rs go java sh sql",
}
KINDS = {f".{ending}": kind for kind, endings in ENDINGS.items() for ending in endings.split()}
MOST_TEXT_BYTES = 1 << 18
STOPS = ".,;:!?)\"'"

# a word: quoted as a whole (with @ before or inside of the quotes), or anything up to a space that is not escaped
WORD = re.compile(
    r"""(?<!\S)@?(?: "(?P<double>[^"\n]+)" | '(?P<single>[^'\n]+)' )(?!\S) | (?P<bare>(?:\\.|\S)+)""",
    re.VERBOSE,
)


def content_of(line: str) -> list[dict[str, Any]]:
    """A line as content: pictures, videos and sounds first, as the official examples order them, then the text.

    Errors: InputError for a file that is not there, or of no kind that is known.

    >>> content_of("it's me, @me")
    [{'type': 'text', 'text': "it's me, @me"}]
    """
    parts: list[dict[str, Any]] = []
    text, end = "", 0
    for match in WORD.finditer(line):
        if (path := _path(match)) is not None:
            parts.append(attach(path))
            text, end = text + line[end : match.start()], match.end()
            if line[end : end + 1] == " ":  # there were two around it
                end += 1
    text = (text + line[end:]).strip()
    media = [part for part in parts if part["type"] != "text"]
    written = [part["text"] for part in parts if part["type"] == "text"]
    words = "\n\n".join([*written, *([text] if text else [])])
    return [*media, {"type": "text", "text": words}] if words else media


def files_in(line: str) -> list[dict[str, Any]]:
    """Every word of a line is a file: its parts. Errors: as content_of."""
    paths = [_path(match, named=True) for match in WORD.finditer(line)]
    return [attach(path) for path in paths if path]


def attach(path: str) -> dict[str, Any]:
    """A file as a part of a message; of a web address only the ending is looked at.

    Errors: InputError for a file that is not there, or of no kind that is known.
    """
    name = urlsplit(path).path if is_url(path) else path
    kind = KINDS.get(Path(name).suffix.lower())
    if not is_url(path):
        path = os.path.abspath(os.path.expanduser(path))  # a saved conversation may go on elsewhere
        if not Path(path).is_file():
            what = "a folder" if Path(path).is_dir() else "no such file"
            raise InputError(f"{one_line(path)}: {what}; check the path (quote it when it has spaces)")  # fmt: skip
    if kind is None:
        raise InputError(
            f"{one_line(path)}: its ending tells no kind, expected a picture (.png), sound (.wav), video (.mp4) or text (.txt); rename it"
        )
    return {"type": kind, kind: path} if kind != "text" else _text(path)


def _text(path: str) -> dict[str, Any]:
    """A text file, with its name before it."""
    if is_url(path):
        raise InputError(f"{one_line(path)}: texts are not fetched; save it and attach the file")
    try:
        data = Path(path).read_bytes()
        if len(data) > MOST_TEXT_BYTES:
            raise InputError(f"{one_line(path)}: {len(data)} bytes of text, expected at most {MOST_TEXT_BYTES}; attach a part of it")  # fmt: skip
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{one_line(path)}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{one_line(path)}: not a text in UTF-8; convert it first") from None
    return {"type": "text", "text": f"{Path(path).name}:\n{text.strip()}"}


def _path(match: re.Match[str], *, named: bool = False) -> str | None:
    """The file that a word names; None for a word. `named`: it is one, with or without @."""
    whole, quoted = match[0], match["double"] or match["single"]
    path = quoted or whole
    asked = named or whole.startswith("@") or path.startswith("@")
    path = path.removeprefix("@")
    if path.lower().startswith("file://"):
        path = unquote(urlsplit(path).path)
        path = path.lstrip("/") if os.name == "nt" else path
    elif not quoted and os.name != "nt":  # there a path has backslashes of its own
        path = re.sub(r"\\(.)", r"\1", path)
    if named or (asked and _looks_like_a_file(path)):
        return path
    if asked and _looks_like_a_file(stripped := path.rstrip(STOPS)):  # "what is @cat.png?"
        return stripped
    return path if Path(os.path.expanduser(path)).is_absolute() and _is_medium(path) else None


def _looks_like_a_file(path: str) -> bool:
    """Not @somebody: a wrong path is told of, a name is a word."""
    return bool(path) and (is_url(path) or "/" in path or Path(path).suffix.lower() in KINDS)


def _is_medium(path: str) -> bool:
    try:
        return Path(path).suffix.lower() in KINDS and Path(os.path.expanduser(path)).is_file()
    except (OSError, ValueError):  # a name too long, a NUL
        return False
