"""Talks: a conversation on the terminal <-> a file to go on with: its messages as JSON, media by their paths."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from thinktalk.errors import InputError

__all__ = ["load_messages", "save_messages", "write_whole"]

ROLES = ("system", "user", "assistant")


def save_messages(messages: Sequence[dict[str, Any]], path: str) -> None:
    """Write them. Errors: InputError."""
    text = json.dumps(messages, ensure_ascii=False, indent=1)
    write_whole(path, f"{text}\n".encode())


def load_messages(path: str) -> list[dict[str, Any]]:
    """A conversation that :save wrote. Errors: InputError."""
    try:
        messages = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path given to --continue") from None  # fmt: skip
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not a saved conversation; expected what :save wrote") from None
    fits = isinstance(messages, list) and all(
        isinstance(m, dict) and set(m) == {"role", "content"} and m["role"] in ROLES for m in messages
    )  # fmt: skip
    if not fits or (messages and messages[-1]["role"] == "user"):
        raise InputError(f"{path}: expected a list of messages that ends with an answer, as :save writes it")  # fmt: skip
    return messages


def write_whole(path: str, data: bytes) -> None:
    """A file, whole or not at all. Errors: InputError."""
    part = Path(f"{path}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from None  # fmt: skip
