"""Saving: a session between replies -> one file, and back in another process, to the bit.

    what is remembered, as dataclasses --pack--> tensors + JSON --safetensors--> file --unpack--> the same dataclasses

A saved session may come from a stranger: nothing of it is executed, every type, shape, length and range is checked before it
is used, and what does not fit the model at hand is refused in one line.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from thinktalk.config import OmniConfig
from thinktalk.engine.alignment import Pace
from thinktalk.engine.engine import Engine
from thinktalk.engine.listening import ListenerState
from thinktalk.engine.live import Live, LiveState
from thinktalk.engine.seat import Seat
from thinktalk.errors import InputError, ThinktalkError
from thinktalk.layers.kv_cache import DecoderState
from thinktalk.layers.resample import Resampler
from thinktalk.media.fetch import describe
from thinktalk.pipeline import Options
from thinktalk.prompt import Prompt
from thinktalk.weights.files import TensorFiles, first_line, read_header
from thinktalk.weights.store import Planned, write_file
from thinktalk.weights.voices import find_voice

if TYPE_CHECKING:
    from thinktalk.engine.session import Session

__all__ = ["Record", "load_record", "revive", "save_session"]

VERSION = 1
KEY = "thinktalk.session"
JSON_LIMIT = 16 << 20  # characters
LONGEST_S = 86_400.0  # a turn


@dataclasses.dataclass
class Memory:
    """Keys and values of one decoder, as far as they are used."""

    keys: Tensor  # (layers, Hkv, T, K)
    values: Tensor  # (layers, Hkv, T, K)


@dataclasses.dataclass
class Record:
    """All that a session is, apart from the model."""

    version: int
    fingerprint: str
    voice: str | None
    options: Options
    fps: float
    frame_tokens: int | None
    allow_urls: bool
    use_audio_in_video: bool | None
    history: str  # JSON
    pace: Pace
    state: ListenerState
    opening: list[Prompt]  # not read yet
    thinker: Memory
    talker: Memory | None
    latest: Tensor | None  # (1,) where the Talker's positions stand
    highest: Tensor | None  # (1,)
    hidden: Tensor | None  # (1, D)
    token_ids: Tensor  # (1, T)
    next_position: int


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


def pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON; its tensors go to `tensors` under their place in it."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return {"tensor": name}
    if isinstance(value, (list, tuple)):
        return [pack(item, f"{name}.{n}", tensors) for n, item in enumerate(value)]
    if dataclasses.is_dataclass(value):
        own = dataclasses.fields(value)
        return {f.name: pack(getattr(value, f.name), f"{name}.{f.name}", tensors) for f in own}
    if isinstance(value, dict):
        return json.dumps(value)
    return value


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
        _check(record, engine)
    except Damaged as fault:
        raise InputError(
            f"{label}: {fault}; expected a session saved by this version; save it again"
        ) from None
    return record


class Damaged(Exception):  # noqa: N818  what is wrong, not an error of ours
    """What is wrong with a file."""


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


def unpack(kind: Any, content: Any, name: str, tensor: Any) -> Any:
    """JSON as a value of this type, or Damaged; unknown and missing fields are refused."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if content is None and type(None) in inner:
            return None
        (kind,) = [k for k in inner if k is not type(None)]
        return unpack(kind, content, name, tensor)
    if kind is Tensor:
        if not isinstance(content, dict) or set(content) != {"tensor"} or content["tensor"] != name:
            raise Damaged(f"{name}: expected a tensor")
        return tensor(name)
    if origin is list or origin is tuple:
        if not isinstance(content, list):
            raise Damaged(f"{name}: expected a list")
        kinds = [inner[0]] * len(content) if origin is list or inner[-1] is ... else list(inner)
        if len(kinds) != len(content):
            raise Damaged(f"{name}: expected {len(kinds)} items")
        items = [unpack(k, c, f"{name}.{n}", tensor) for n, (k, c) in enumerate(zip(kinds, content, strict=True))]  # fmt: skip
        return items if origin is list else tuple(items)
    if origin is dict:
        value = json.loads(content) if isinstance(content, str) else None
        if not isinstance(value, dict):
            raise Damaged(f"{name}: expected an object")
        return value
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        own = [f.name for f in dataclasses.fields(kind)]
        if not isinstance(content, dict) or set(content) != set(own):
            raise Damaged(f"{name}: expected the fields {', '.join(own)}")
        return kind(**{f: unpack(hints[f], content[f], f"{name}.{f}", tensor) for f in own})
    if kind is float and type(content) is int:
        content = float(content)
    if type(content) is not kind or kind not in (int, float, str, bool):
        raise Damaged(f"{name}: {str(content)[:40]!r}, expected {getattr(kind, '__name__', kind)}")
    return content


# ---------------------------------------------------------------------------------------------------------------- check


def _check(record: Record, engine: Engine) -> None:
    """Shapes, lengths and ranges; after this the record may be used."""
    config, model = engine.model.config, engine.model
    text = config.thinker.text
    _check_options(record, config)
    history = _json(record.history)
    if not isinstance(history, list) or not all(
        isinstance(m, dict)
        and set(m) == {"role", "content"}
        and isinstance(m["content"], str | list)
        for m in history
    ):
        raise Damaged("its history is no list of messages")
    T = record.token_ids.shape[-1]
    _form(record.token_ids, (1, T), torch.int64, "token_ids")
    if text.max_positions < T or (T and not 0 <= int(record.token_ids.min()) <= int(record.token_ids.max()) < text.vocab_size):  # fmt: skip
        raise Damaged("its token ids are not of this model")
    assert model.thinker is not None
    dtype = model.thinker.norm.weight.dtype
    _check_memory(record.thinker, text, T, dtype, "thinker")
    if (record.hidden is None) != (T == 0):
        raise Damaged("its last hidden state is missing, or too many")
    if record.hidden is not None:
        _form(record.hidden, (1, text.width), dtype, "hidden")
    speaks = record.voice is not None
    if {speaks} != {record.talker is not None, record.latest is not None, record.highest is not None}:  # fmt: skip
        raise Damaged("has a voice and no Talker, or a Talker and no voice")
    if record.talker is not None:
        if model.talker is None or config.talker is None:
            raise Damaged("speaks, and the model was loaded without its talker")
        _check_memory(record.talker, config.talker.decoder, T, model.talker.norm.weight.dtype, "talker")  # fmt: skip
        for place in (record.latest, record.highest):
            assert place is not None
            _form(place, (1,), torch.int64, "positions")
            _position(int(place), "positions")
    _position(record.next_position, "next_position")
    if record.options.speech and not speaks:
        raise Damaged("is to speak and has no voice")
    _check_listener(record, engine, T)


def _check_options(record: Record, config: OmniConfig) -> None:
    options, g = record.options, record.options.generation
    ranges = (
        (g.max_text_tokens, 1, 1 << 30), (g.max_codes, 1, 1 << 30), (g.text_top_k, 0, 1 << 30), (g.code_top_k, 0, 1 << 30),
        (g.text_temperature, 1e-6, 1e3), (g.code_temperature, 1e-6, 1e3), (g.text_top_p, 1e-9, 1), (g.code_top_p, 1e-9, 1),
        (g.text_repetition_penalty, 1e-3, 1e3), (g.code_repetition_penalty, 1e-3, 1e3), (g.flow_points, 2, 1000),
        (g.flow_guidance, -100, 100), (g.flow_sway, -100, 100), (record.pace.expected_s, 0, 1e12),
        (record.pace.voiced_s, 0, 1e12), (record.fps, 0, 100),
    )  # fmt: skip
    if not all(least <= value <= most for value, least, most in ranges):  # NaN is in no range
        raise Damaged("has options that cannot be")
    if options.flow_method not in ("rk4", "midpoint", "euler") or abs(options.seed) >= 1 << 63:
        raise Damaged("has options that cannot be")
    try:
        Live(config, fps=record.fps, frame_tokens=record.frame_tokens)
    except ThinktalkError:
        raise Damaged("samples pictures in a way that cannot be") from None


def _check_memory(memory: Memory, config: Any, T: int, dtype: torch.dtype, name: str) -> None:
    shape = (config.num_layers, config.num_kv_heads, T, config.head_dim)
    _form(memory.keys, shape, dtype, f"{name}.keys")
    _form(memory.values, shape, dtype, f"{name}.values")


def _check_listener(record: Record, engine: Engine, T: int) -> None:
    config, state = engine.model.config, record.state
    timeline, thinker = state.timeline, config.thinker
    waiting = 0
    for n, prompt in enumerate(record.opening):
        P = prompt.token_ids.shape[-1]
        _form(prompt.token_ids, (P,), torch.int64, f"opening.{n}")
        _form(prompt.positions, (3, P), torch.int64, f"opening.{n}")
        if prompt.audio or prompt.images or prompt.videos or not P:
            raise Damaged("its opening holds media")
        if not 0 <= int(prompt.token_ids.min()) <= int(prompt.token_ids.max()) < thinker.text.vocab_size:  # fmt: skip
            raise Damaged("its token ids are not of this model")
        if int(prompt.positions.min()) < 0:
            raise Damaged("its positions are negative")
        _position(int(prompt.positions.max()), "positions")
        _position(prompt.next_position, "next_position")
        waiting += P
    if timeline.tokens != T + waiting:
        raise Damaged(f"counts {timeline.tokens} tokens and holds {T + waiting}")
    _position(timeline.following, "following")
    _position(timeline.largest + 1, "largest")
    rates = (timeline.positions_per_second, timeline.chunk_seconds)
    if rates != (thinker.positions_per_second, thinker.chunk_seconds):
        raise Damaged("its clock is of another model")
    if not 0 <= state.clock_s < LONGEST_S:
        raise Damaged(f"its clock stands at {state.clock_s} s")
    if state.live is not None:
        _check_live(state.live, engine, record)


def _check_live(live: LiveState, engine: Engine, record: Record) -> None:
    config = engine.model.config
    mel, block = config.mel, config.thinker.audio.block_frames
    if live.kind not in ("", "sound", "video", "both"):
        raise Damaged(f"a stretch of the kind {live.kind[:20]!r}")
    counts = (live.samples, live.taken, live.start, live.grids, live.tokens, live.chunk, live.rate)
    if not all(0 <= n < 1 << 40 for n in counts):
        raise Damaged("a stretch with counts that cannot be")
    times = (live.origin_s, live.seen_s, live.samples / mel.sample_rate)
    if not all(0 <= s < LONGEST_S for s in times):
        raise Damaged("a stretch with times that cannot be")
    if live.rate:
        module = Resampler(live.rate, mel.sample_rate)
        if (live.resampler is None) != (live.rate == mel.sample_rate) or live.mel is None:
            raise Damaged("a stretch whose sound has no state")
        if live.resampler is not None:
            S = live.resampler.pcm.shape[-1]
            _form(live.resampler.pcm, (1, S), torch.float32, "resampler")
            if not module.context <= S < module.context + module.M + module.half:
                raise Damaged("a resampler out of step")
    if live.mel is not None:
        n, frames = live.mel.pcm.shape[-1], live.mel.log.shape[-1]
        _form(live.mel.pcm, (1, n), torch.float32, "mel")
        _form(live.mel.log, (1, mel.num_mels, frames), torch.float32, "mel")
        _form(live.mel.peak, (1, 1, 1), torch.float32, "mel")
        if n >= mel.n_fft + mel.hop or frames >= block:
            raise Damaged("a log-mel out of step")
    if len(live.blocks) > 10_000 or len(live.frames) > 10_000:
        raise Damaged("a stretch that holds too much")
    for piece in live.blocks:
        _form(piece, (mel.num_mels, block), torch.float32, "blocks")
    if live.shown is not None:
        H, W = live.shown.shape[:2]
        factor = config.thinker.vision.factor
        if H % factor or W % factor or not 0 < H * W <= 1 << 28:
            raise Damaged("a picture of a size that cannot be")
        for picture in (live.shown, *live.frames):
            _form(picture, (H, W, 3), torch.uint8, "pictures")
    elif live.frames or live.kind in ("video", "both"):
        raise Damaged("a stretch without its picture")


def _form(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise Damaged(f"{name} is {tensor.dtype} {list(tensor.shape)}, not {dtype} {list(shape)}")


def _position(value: int, name: str) -> None:
    if not -1 <= value < 1 << 31:
        raise Damaged(f"{name} {value} cannot be")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Damaged("its history is no JSON") from None


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
