"""Chats: files that people fine-tune with elsewhere, as they are -> shards of ChatML samples with their media inside.

    {"messages": [{"role", "content"}], "images", "audios", "videos"}                        ms-swift, OpenAI
    {"query", "response", "history", "system", "images", ...}                                ms-swift, older
    {"conversations": [{"from", "value"}], "system", "images", ...}                          LLaMA-Factory, ShareGPT
    {"instruction", "input", "output", "history", "system", "images", ...}                   LLaMA-Factory, Alpaca

<image>, <audio> and <video> in a text say where the next medium stands; media without such a mark come first. A file is a
line of JSON each, or one JSON list. Turns of tools have no place in the model's template: such rows are passed by.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from thinktalk.data.making import RATE, Made
from thinktalk.data.prompts import SPLITS, split_of
from thinktalk.data.samples import AUDIO_NAMES, IMAGE_NAMES, VIDEO_NAMES, check_record
from thinktalk.data.shards import Fault, ShardWriter
from thinktalk.errors import InputError
from thinktalk.media.audio import load_audio
from thinktalk.media.image import load_image

__all__ = ["conversation", "make_chats", "read_rows"]

ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}  # fmt: skip
KINDS = {"image": IMAGE_NAMES, "audio": AUDIO_NAMES, "video": VIDEO_NAMES}
MARK = re.compile(r"<(image|audio|video)>")

Conversation = tuple[list[dict[str, Any]], dict[str, str]]


def make_chats(
    files: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    max_bytes: int = 256 << 20,
) -> Made:
    """Write OUT/train-00000.tar, ... of the rows of these files; rows that cannot be used are named in `faults`.

    Media are looked for below `root`, or beside the file that names them. What the user says first decides the split.
    Errors: InputError (a file that cannot be read, nothing that can be used, OUT cannot be written).
    """
    made = Made()
    with contextlib.ExitStack() as stack:
        names = [name for _, name in SPLITS]
        writers = {n: stack.enter_context(ShardWriter(Path(out) / n, max_bytes=max_bytes)) for n in names}  # fmt: skip
        for file in map(Path, files):
            for where, row in read_rows(file, made.faults):
                try:
                    members = _members(row, Path(root) if root else file.parent, where)
                except InputError as error:
                    text = str(error)
                    made.faults.append(Fault(where, text.removeprefix(f"{where}: ")))
                    continue
                record = json.loads(members["json"])
                first = next(m["content"] for m in record["messages"] if m["role"] == "user")
                split = split_of(json.dumps(first, ensure_ascii=False, sort_keys=True))
                writers[split].write(f"{writers[split].samples:06d}", members)
                made.samples[split] += 1
                made.seconds[split] += record.get("seconds", 0.0)
        if not sum(made.samples.values()):
            why = f"; first fault: {made.faults[0]}" if made.faults else ""
            raise InputError(f"{', '.join(map(str, files))[:200]}: holds no conversation that can be used{why}; see docs/data.md")  # fmt: skip
    made.paths = [str(path) for writer in writers.values() for path in writer.paths]
    return made


def read_rows(file: Path, faults: list[Fault]) -> Iterator[tuple[str, Any]]:
    """(FILE:LINE, row) of a file of JSON lines, or of one JSON list. Errors: InputError where it cannot be read."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({' '.join(str(error).split())[:100]}), expected JSON lines; check the path") from None  # fmt: skip
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file}: is no JSON list ({' '.join(str(error).split())[:100]}); mend it") from None  # fmt: skip
        yield from ((f"{file}:{n}", row) for n, row in enumerate(rows, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"{file}:{number}", json.loads(line)
            except (ValueError, RecursionError):
                faults.append(Fault(f"{file}:{number}", "is no JSON"))


def conversation(row: Any, *, where: str = "row") -> Conversation:
    """ChatML messages whose media are member names, and the path of each member. Errors: InputError names the row."""
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: is {type(row).__name__}, expected an object; write one a line")
    turns = _turns(row, where)
    waiting = {kind: _paths(row, kind, where) for kind in KINDS}
    paths: dict[str, str] = {}

    def medium(kind: str) -> dict[str, str]:
        if not waiting[kind]:
            raise InputError(f"{where}: has more <{kind}> marks than {kind}s, expected as many; add the path or drop the mark")  # fmt: skip
        path = waiting[kind].pop(0)
        ending = path.rpartition(".")[2].lower()
        if ending not in KINDS[kind]:
            raise InputError(f"{where}: {path[:80]!r} is no {kind} that is known ({', '.join(KINDS[kind])}); convert it")  # fmt: skip
        name = f"{len(paths)}.{ending}"
        paths[name] = path
        return {"type": kind, kind: name}

    marks = [m for role, text in turns if role == "user" for m in MARK.findall(text)]
    # those that no text mentions stand first, in the first thing the user says
    loose = {kind: len(waiting[kind]) - marks.count(kind) for kind in KINDS}
    messages: list[dict[str, Any]] = []
    for role, text in turns:
        if role != "user":
            messages.append({"role": role, "content": text})
            continue
        parts: list[dict[str, str]] = [medium(k) for k in KINDS for _ in range(max(0, loose[k]))]
        loose = dict.fromkeys(KINDS, 0)
        for n, piece in enumerate(MARK.split(text)):
            if n % 2:
                parts.append(medium(piece))
            elif piece:
                parts.append({"type": "text", "text": piece})
        plain = all(p["type"] == "text" for p in parts)
        messages.append({"role": role, "content": text if plain else parts})
    return messages, paths


def _turns(row: Mapping[str, Any], where: str) -> list[tuple[str, str]]:
    """(role, text) of every turn, in order, ending with an answer."""
    turns: list[tuple[Any, Any]] = []
    if row.get("system"):
        turns.append(("system", row["system"]))
    listed = row.get("messages") or row.get("conversations")
    if isinstance(listed, list):
        for turn in listed:
            if not isinstance(turn, Mapping):
                raise InputError(f"{where}: a turn is {type(turn).__name__}, expected an object; write role and content")  # fmt: skip
            turns.append((turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))))  # fmt: skip
    elif "instruction" in row or "query" in row:
        for pair in row.get("history") or []:
            if not isinstance(pair, list) or len(pair) != 2:
                raise InputError(f"{where}: history holds {str(pair)[:60]}, expected pairs of question and answer; mend it")  # fmt: skip
            turns += [("user", pair[0]), ("assistant", pair[1])]
        asked = [row.get("instruction", row.get("query")), row.get("input") or ""]
        if not all(isinstance(a, str) for a in asked):
            raise InputError(f"{where}: the question is no text, expected a string; mend it")
        turns.append(("user", "\n".join(a for a in asked if a)))
        turns.append(("assistant", row.get("output", row.get("response"))))
    else:
        have = ", ".join(map(str, list(row)[:8])) or "nothing"
        raise InputError(f"{where}: has {have}, expected messages, conversations, instruction or query; see docs/data.md")  # fmt: skip
    checked = []
    for role, text in turns:
        if not isinstance(role, str) or role not in ROLES:
            raise InputError(f"{where}: role {str(role)[:40]!r} has no place in the chat template, expected {', '.join(ROLES)}; leave the row out")  # fmt: skip
        if not isinstance(text, str):
            raise InputError(f"{where}: a turn of {role} is {type(text).__name__}, expected text; mend it")  # fmt: skip
        checked.append((ROLES[role], text))
    if "user" not in (role for role, _ in checked) or checked[-1][0] != "assistant":
        raise InputError(f"{where}: does not end with an answer to a user, expected one to learn; add it")  # fmt: skip
    return checked


def _paths(row: Mapping[str, Any], kind: str, where: str) -> list[str]:
    """The media of a kind: "images": [PATH or {"path": PATH}], or one PATH."""
    given = row.get(f"{kind}s", row.get(kind)) or []
    given = given if isinstance(given, list) else [given]
    paths = [g.get("path") if isinstance(g, Mapping) else g for g in given]
    for path in paths:
        if not isinstance(path, str) or "://" in path or path.startswith("data:"):
            raise InputError(f"{where}: {kind} {str(path)[:60]!r} is no path of a file, expected one; fetch it first")  # fmt: skip
    return paths


def _members(row: Any, root: Path, where: str) -> dict[str, bytes]:
    """The sample of a row, its media opened once so that nothing unusable gets into a shard."""
    messages, paths = conversation(row, where=where)
    members: dict[str, bytes] = {}
    record: dict[str, Any] = {"messages": messages}
    seconds = []
    for name, path in paths.items():
        try:
            members[name] = (root / path).read_bytes()
        except OSError as error:
            raise InputError(f"{where}: {path[:80]} cannot be read ({error.strerror}), looked for it in {root}; check the path") from None  # fmt: skip
        ending = name.rpartition(".")[2]
        if ending in AUDIO_NAMES:
            seconds.append(len(load_audio(members[name], sample_rate=RATE, name=f"{where}: {path}")) / RATE)  # fmt: skip
        elif ending in IMAGE_NAMES:
            load_image(members[name], name=f"{where}: {path}")
            with Image.open(io.BytesIO(members[name])) as picture:
                record.setdefault("pixels", {})[name] = [picture.height, picture.width]
    if len(seconds) == 1:
        record["seconds"] = round(seconds[0], 4)
    content = json.dumps(record, ensure_ascii=False).encode()
    check_record(content, set(members), where=where)
    return {"json": content, **members}
