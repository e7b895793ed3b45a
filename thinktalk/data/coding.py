"""Coding: shards of speech -> the same shards with the codes of every recording, by the tokenizer of a checkpoint.

    00000.tar: json, opus            -> json + "codes", opus
    00001.tar: json, opus, answer.opus -> json + "codes" + "answer_codes", opus, answer.opus

Everything else stays byte for byte. Shards are written one by one and whole, so what was stopped goes on where it was.
`codes_by` in each record is a fingerprint of the tokenizer: codes of another one mean nothing to what learns from them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thinktalk.data.answers import OWN, Answer
from thinktalk.data.mixture import expand
from thinktalk.data.samples import ANSWER, AUDIO_NAMES, parse
from thinktalk.data.shards import Entry, Fault, ShardWriter, scan
from thinktalk.errors import InputError
from thinktalk.layers.mel import log_mel
from thinktalk.wav2code.encoder import SpeechTokenizer

__all__ = ["Coded", "code_shards", "fingerprint"]

HEARD_HZ = 16_000
BATCH_SECONDS = 60.0
"""Sound that is encoded together; codes do not depend on it but for rounding."""


@dataclass
class Coded:
    """What was written."""

    paths: list[str] = field(default_factory=list)
    """Shards, those that were there already among them."""
    kept: int = 0
    """Shards that were there already."""
    samples: int = 0
    """Recordings that got codes."""
    seconds: float = 0.0
    codes: int = 0
    used: int = 0
    """Different codes."""
    faults: list[Fault] = field(default_factory=list)


def fingerprint(tokenizer: SpeechTokenizer) -> str:
    """12 hexadecimal digits of the tokenizer's weights in float32: who made these codes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tokenizer.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def code_shards(
    tokenizer: SpeechTokenizer,
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    watch: Callable[[Coded], None] | None = None,
) -> Coded:
    """Write OUT/<name of each shard> with codes; a shard that is there with codes of this tokenizer stays.

    Coded is what says who speaks or what is said, and every spoken answer; other sounds have no codes. A recording that
    cannot be decoded is named in `faults` and stays without. `watch` is called after each shard.
    Errors: InputError (no shards, OUT has shards by another tokenizer or is where they lie, two shards of one name).
    """
    shards, out = [Path(path) for path in expand(paths)], Path(out)
    names = [path.name for path in shards]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{twice[0]}: is the name of two shards, expected different ones; code them into different places")  # fmt: skip
    if any(path.resolve().parent == out.resolve() for path in shards):
        raise InputError(f"{out}: is where the shards lie, expected another place; choose one")
    by, done = fingerprint(tokenizer), Coded()
    found: set[int] = set()
    for path in shards:
        target = out / path.name
        if target.exists():
            _check_kept(target, by)
            done.kept += 1
        else:
            _code_shard(tokenizer, path, target, by, done, found)
        done.paths.append(str(target))
        done.used = len(found)
        if watch is not None:
            watch(done)
    return done


def _check_kept(target: Path, by: str) -> None:
    for entry in scan(target).entries:
        told = json.loads(entry.read("json")["json"]).get("codes_by")
        if told is not None and told != by:
            raise InputError(f"{target}: has codes of the tokenizer {told}, expected {by}; move it away or choose another place")  # fmt: skip


def _code_shard(
    tokenizer: SpeechTokenizer, path: Path, target: Path, by: str, done: Coded, found: set[int]
) -> None:
    shard = scan(path)
    done.faults += shard.faults
    codes: dict[tuple[str, str], Tensor] = {}  # (key, field) -> codes
    for batch in _batches(_recordings(shard.entries, done.faults)):
        made_of = tokenizer.encode([log_mel(pcm[None])[0] for _, _, pcm in batch])
        for (key, name, pcm), made in zip(batch, made_of, strict=True):
            codes[key, name] = made
            done.samples += 1
            done.seconds += len(pcm) / HEARD_HZ
            done.codes += len(made)
            found.update(made.tolist())
    # the writer's own name for its first file becomes the shard's, when it is whole
    partial = target.with_name(f".{target.stem}.{os.getpid()}")
    try:
        with ShardWriter(partial, max_bytes=1 << 60) as writer:
            for entry in shard.entries:
                writer.write(entry.key, _members(entry, codes, by))
        writer.paths[0].replace(target)
    finally:
        for left in target.parent.glob(f"{partial.name}-*.tar"):
            left.unlink()


def _members(entry: Entry, codes: dict[tuple[str, str], Tensor], by: str) -> dict[str, bytes]:
    """The members of a sample, its record with codes."""
    members = entry.read()
    own = {name: codes[entry.key, name].tolist() for name in ("codes", OWN + "codes") if (entry.key, name) in codes}  # fmt: skip
    if own:
        record = {**json.loads(members["json"]), **own, "codes_by": by}
        members["json"] = json.dumps(record, ensure_ascii=False).encode()
    return members


def _recordings(entries: Iterable[Entry], faults: list[Fault]) -> Iterator[tuple[str, str, Tensor]]:
    """(key, field, wave) of all that is spoken."""
    for entry in entries:
        views = {"codes": entry, OWN + "codes": Answer(entry.shard, entry.key, entry.members)}
        for name, view in views.items():
            if not any(m.name.startswith(ANSWER) == (view is not entry) for m in entry.members if m.name != "json"):  # fmt: skip
                continue
            try:
                sample = parse(view)
                if (sample.voice or sample.text) and sample.member(*AUDIO_NAMES):
                    yield entry.key, name, torch.from_numpy(sample.pcm(HEARD_HZ))
            except InputError as error:
                where, _, reason = str(error).partition(": ")
                faults.append(Fault(where, reason))


def _batches(items: Iterable[tuple[str, str, Tensor]]) -> Iterator[list[Any]]:
    """Recordings of about BATCH_SECONDS together."""
    batch: list[Any] = []
    seconds = 0.0
    for item in items:
        batch.append(item)
        seconds += len(item[2]) / HEARD_HZ
        if seconds >= BATCH_SECONDS:
            yield batch
            batch, seconds = [], 0.0
    if batch:
        yield batch
