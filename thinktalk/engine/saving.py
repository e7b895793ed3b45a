"""Saving: a session between replies -> one file, and back in another process, to the bit.

    what is remembered, as dataclasses --pack--> tensors + JSON --safetensors--> file --unpack--> the same dataclasses

A saved session may come from a stranger: nothing of it is executed, every type, shape, length and range is checked before it
is used, and what does not fit the model at hand is refused in one line.
"""

from __future__ import annotations

import hashlib
import json
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from thinktalk.engine.checking import Memory, Record, check
from thinktalk.engine.engine import Engine
from thinktalk.engine.packing import Damaged, pack, unpack
from thinktalk.engine.seat import Seat
from thinktalk.errors import InputError, ThinktalkError
from thinktalk.layers.kv_cache import DecoderState
from thinktalk.media.fetch import describe
from thinktalk.weights.files import TensorFiles, first_line, read_header
from thinktalk.weights.store import Planned, write_file
from thinktalk.weights.voices import find_voice

if TYPE_CHECKING:
    from thinktalk.engine.session import Session

__all__ = ["Record", "load_record", "revive", "save_session"]

VERSION = 1
KEY = "thinktalk.session"
JSON_LIMIT = 16 << 20  # characters


# ---------------------------------------------------------------------------------------------------------------- write


def save_session(session: Session, path: str | PathLike[str]) -> None:
    """Write a session that rests. Errors: InputError when the place cannot be written."""
    memory, engine = session._seat.state, session._engine
    feed = memory.feed
    record = Record(
        version=VERSION, fingerprint=fingerprint(engine), voice=session._voice, options=session._options,
        fps=session._listener.live.fps, frame_tokens=session._listener.frame_tokens,
        history=json.dumps(session._history), pace=session._pace, state=session._state, opening=session._opening,
        thinker=_used(memory.thinker), talker=None if memory.talker is None else _used(memory.talker),
        latest=None if feed is None else feed.latest, highest=None if feed is None else feed.highest,
        hidden=memory.hidden, token_ids=memory.token_ids, next_position=memory.next_position, **session._media,
    )  # fmt: skip
    found: dict[str, Tensor] = {}
    text = json.dumps(pack(record, "session", found))
    planned = [
        Planned(name, t.dtype, tuple(t.shape), lambda t=t: t.contiguous())
        for name, t in found.items()
    ]
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            write_file(part, planned, {KEY: text})
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{describe(path)}: cannot be written ({error.strerror or error}); choose another place"
        ) from None


def _used(state: DecoderState) -> Memory:
    used = state.extent
    return Memory(
        torch.stack([layer.k[0, :, :used] for layer in state.layers]),
        torch.stack([layer.v[0, :, :used] for layer in state.layers]),
    )


def fingerprint(engine: Engine) -> str:
    """What tells one model from another: its sizes, its precision and some of its weights."""
    model = engine.model
    assert model.thinker is not None
    text = f"{model.config.thinker}{model.config.talker}{model.thinker.norm.weight.dtype}"
    digest = hashlib.sha256(text.encode())
    for stage in (model.thinker, model.talker):
        if stage is not None:
            for weight in (stage.norm.weight, stage.embed.weight[0], stage.layers[0].norm1.weight):
                digest.update(weight.detach().double().cpu().numpy().tobytes())
    return digest.hexdigest()


# ----------------------------------------------------------------------------------------------------------------- read


def load_record(path: str | PathLike[str], engine: Engine) -> Record:
    """What was saved, checked against the model. Errors: InputError."""
    label = describe(Path(path))
    try:
        record = _read(Path(path))
        if record.version != VERSION:
            raise Damaged(f"is of version {record.version}")
        if record.fingerprint != fingerprint(engine):
            raise InputError(
                f"{label}: belongs to another model, expected the one it was saved with; load that one"
            )
        check(record, engine.model)
    except Damaged as fault:
        raise InputError(
            f"{label}: {fault}; expected a session saved by this version; save it again"
        ) from None
    return record


def _read(path: Path) -> Record:
    try:
        entries = read_header(path)
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        text = header.get("__metadata__", {})[KEY]
        if len(text) > JSON_LIMIT:
            raise Damaged(f"{len(text)} characters of JSON")
        content = json.loads(text)
        files = TensorFiles.of(entries)
        used: set[str] = set()
        record = unpack(Record, content, "session", lambda name: _tensor(files, name, used))
    except ThinktalkError as error:
        raise Damaged(str(error).split("; ")[0].split(": ", 1)[-1]) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"no session can be read from it ({first_line(error)[:100]})") from None
    if used != set(entries):
        raise Damaged("holds tensors that belong to nothing")
    return record


def _tensor(files: TensorFiles, name: str, used: set[str]) -> Tensor:
    if name not in files or name in used:
        raise Damaged(f"lacks the tensor {name[:60]!r}")
    used.add(name)
    tensor = files.read(name)
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise Damaged(f"{name[:60]} holds NaN or infinity")
    return tensor


def revive(record: Record, engine: Engine) -> Seat:
    """A seat that remembers what was saved. Errors: Busy, InputError when the voice is not there any more."""
    voice = None if record.voice is None else find_voice(engine.model.voices, record.voice)
    state = engine.stages.fresh_state(voice)
    with torch.inference_mode(False), torch.no_grad():
        _fill(state.thinker, record.thinker)
        if state.talker is not None and state.feed is not None:
            assert record.talker is not None and record.latest is not None
            assert record.highest is not None
            _fill(state.talker, record.talker)
            home = state.feed.latest.device
            state.feed.latest, state.feed.highest = record.latest.to(home), record.highest.to(home)
        home = state.thinker.layers[0].k.device
        state.hidden = None if record.hidden is None else record.hidden.to(home)
    state.token_ids, state.next_position = record.token_ids, record.next_position
    return engine.open(voice=voice, state=state)


def _fill(state: DecoderState, memory: Memory) -> None:
    T = memory.keys.shape[2]
    state.reserve(T + 1)
    for layer, k, v in zip(state.layers, memory.keys, memory.values, strict=True):
        layer.k[0, :, :T] = k.to(layer.k.device)
        layer.v[0, :, :T] = v.to(layer.v.device)
    state.advance(T)
