"""Voices: spk_dict.pt (official) and voices.safetensors (ours, for added ones) to {name: Voice} and back.

    spk_dict.pt {name: {cond (1, 192), ref_mel (1, T, 80), bos_token}} + voices.safetensors over it -> {name: Voice}

spk_dict.pt is a pickle from strangers: only tensors and plain containers are built from it, nothing is ever called.
A voice named "default" is always among the voices: the one stored under that name, else Chelsie, else the first.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thinktalk.code2wav.speaker import Voice
from thinktalk.config import OmniConfig
from thinktalk.errors import ConfigError, InputError, WeightsError
from thinktalk.weights.files import TensorFiles, first_line, read_header
from thinktalk.weights.store import Planned, atomic_write, write_file

__all__ = ["ADDED", "DEFAULT", "OFFICIAL", "add_voice", "check_voice", "find_voice", "load_voices", "next_voice_token", "own_voices", "read_voice_file", "read_voice_metadata", "remove_voice", "save_voices", "write_voice_file"]  # fmt: skip

OFFICIAL, ADDED, DEFAULT = "spk_dict.pt", "voices.safetensors", "default"
_SIZE_LIMIT = 256 << 20  # bytes of a voice file; Qwen's two voices need well under one megabyte
_FRAMES = (
    8,
    100_000,
)  # shortest and longest reference mel; the speaker encoder reflects up to 4 frames at each end
_KEYS = {"cond", "ref_mel", "bos_token"}
FIRST_TOKEN = 227
"""Tokens from <|endoftext|> to the first that stands for a voice: 151643 + 227 is Ethan's."""


def load_voices(
    directory: str | Path, config: OmniConfig | None = None, *, extra: Path | None = None
) -> dict[str, Voice]:
    """Every voice of a checkpoint by name, float32 on the CPU, "default" among them.

    `extra` is one more voices.safetensors (a user's own), read last. Sizes are checked against `config`.
    WeightsError when a file is damaged, hostile or holds no usable voice, or when there is no voice at all.
    """
    directory = Path(directory)
    voices = own_voices(directory, config)
    if extra is not None and extra.exists():
        voices |= read_voice_file(extra, config)
    if not voices:
        raise WeightsError(
            f"{directory}: has neither {OFFICIAL} nor {ADDED}; expected at least one voice; copy {OFFICIAL} there or load "
            'parts=("thinker",)'
        )
    if DEFAULT not in voices:
        voices[DEFAULT] = voices.get("Chelsie") or next(iter(voices.values()))
    return voices


def own_voices(directory: Path, config: OmniConfig | None = None) -> dict[str, Voice]:
    """The voices stored in a directory, without the "default" that load_voices adds; empty when there are none."""
    voices: dict[str, Voice] = {}
    if (directory / OFFICIAL).exists():
        voices |= _read_pickle(directory / OFFICIAL, config)
    if (directory / ADDED).exists():
        voices |= read_voice_file(directory / ADDED, config)
    return voices


def find_voice(voices: Mapping[str, Voice], name: str) -> Voice:
    """The voice of that name, capitals aside; InputError that lists the names there are."""
    if name in voices:
        return voices[name]
    for known, voice in voices.items():
        if known.casefold() == name.casefold():
            return voice
    have = ", ".join(sorted(voices))
    raise InputError(f"voice {name!r} is unknown; have {have}; add one with: thinktalk voices add")


def next_voice_token(config: OmniConfig, voices: Mapping[str, Voice]) -> int:
    """The token that a new voice gets: the lowest from Ethan's on that none of `voices` has.

    ConfigError when the vocabulary has no row left for it.
    """
    thinker, taken = config.thinker, {voice.bos_token for voice in voices.values()}
    room = range(thinker.ids.pad + FIRST_TOKEN, thinker.text.vocab_size)
    token = next((token for token in room if token not in taken), None)
    if token is None:
        raise ConfigError(f"voices: {len(taken)} have a token and the vocabulary of {thinker.text.vocab_size} is full; expected room from {room.start} on; remove one")  # fmt: skip
    return token


# --------------------------------------------------------------------------------------------------------------- read


def _read_pickle(path: Path, config: OmniConfig | None) -> dict[str, Voice]:
    try:
        if path.stat().st_size > _SIZE_LIMIT:
            raise ValueError(f"{path.stat().st_size} bytes")
        data = path.read_bytes()
        if zipfile.is_zipfile(io.BytesIO(data)):
            with zipfile.ZipFile(
                io.BytesIO(data)
            ) as archive:  # a small file may unpack to a huge one
                if sum(info.file_size for info in archive.infolist()) > _SIZE_LIMIT:
                    raise ValueError("unpacks to more than the limit")
        stored = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises nearly anything on bytes it does not like
        raise WeightsError(
            f"{path}: not a plain table of tensors ({first_line(error):.120}), nothing in it was run; "
            "expected the official voices; copy it again from a source you trust"
        ) from None
    if not isinstance(stored, dict) or not stored:
        raise WeightsError(
            f"{path}: holds {type(stored).__name__}, expected {{name: voice}}; copy it again"
        )
    voices = {}
    for name, fields in stored.items():
        if not isinstance(fields, dict) or not fields.keys() >= _KEYS:
            raise WeightsError(
                f"{path}: voice {name!r:.60} lacks {', '.join(sorted(_KEYS))}; copy it again"
            )
        voices[name] = check_voice(
            name, fields["cond"], fields["ref_mel"], fields["bos_token"], where=str(path), config=config
        )  # fmt: skip
    return voices


def read_voice_file(path: str | Path, config: OmniConfig | None = None) -> dict[str, Voice]:
    """The voices of one file in our format: tensors NAME.cond and NAME.ref_mel, their tokens in the metadata."""
    path = Path(path)
    if not path.exists():
        raise WeightsError(f"{path}: not there; expected a voice file; check the path")
    if path.stat().st_size > _SIZE_LIMIT:
        raise WeightsError(
            f"{path}: {path.stat().st_size} bytes, expected a voice file under {_SIZE_LIMIT}"
        )
    entries = read_header(path)
    try:
        tokens = json.loads(read_voice_metadata(path)["voices"])
        assert isinstance(tokens, dict)
    except (KeyError, ValueError, TypeError, AssertionError):
        raise WeightsError(
            f"{path}: its metadata name no voices; expected a file of: thinktalk voices add"
        ) from None
    files = TensorFiles.of(entries)
    voices = {}
    for name, bos in tokens.items():
        for key in ("cond", "ref_mel"):
            if f"{name}.{key}" not in files:
                raise WeightsError(
                    f"{path}: voice {name!r:.60} has no {key}; add it again with: thinktalk voices add"
                )
        cond, ref_mel = files.read(f"{name}.cond"), files.read(f"{name}.ref_mel")
        voices[name] = check_voice(name, cond, ref_mel, bos, where=str(path), config=config)
    return voices


def read_voice_metadata(path: str | Path) -> dict[str, str]:
    """The strings in the header of a file that read_voice_file has read."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header["__metadata__"]


def check_voice(
    name: Any, cond: Any, ref_mel: Any, bos_token: Any, *, where: str = "voice", config: OmniConfig | None = None
) -> Voice:  # fmt: skip
    """A Voice from untrusted values, or a WeightsError that says which of them is wrong."""

    def wrong(what: str) -> WeightsError:
        return WeightsError(f"{where}: voice {name!r:.60}: {what}; make the voice again")

    if (
        not isinstance(name, str)
        or not 0 < len(name) <= 64
        or not name.isprintable()
        or name != name.strip()
    ):
        raise wrong("its name must be 1 to 64 printable characters")
    width, mels, vocab = 192, 80, 1 << 20
    if config is not None:
        vocab = config.thinker.text.vocab_size
        if config.code2wav is not None:
            width, mels = config.code2wav.dit.speaker_width, config.code2wav.dit.num_mels
    if not _dense(cond) or tuple(cond.shape) not in ((1, width), (width,)):
        raise wrong(f"cond is {_form(cond)}, expected floats (1, {width})")
    shape = tuple(ref_mel.shape) if isinstance(ref_mel, Tensor) else ()
    if (
        not _dense(ref_mel)
        or shape[-1:] != (mels,)
        or len(shape) not in (2, 3)
        or (len(shape) == 3 and shape[0] != 1)
    ):
        raise wrong(f"ref_mel is {_form(ref_mel)}, expected floats (1, T, {mels})")
    frames = shape[-2]
    if not _FRAMES[0] <= frames <= _FRAMES[1]:
        raise wrong(f"ref_mel has {frames} frames, expected {_FRAMES[0]} to {_FRAMES[1]}")
    cond, ref_mel = (
        cond.detach().float().reshape(1, width),
        ref_mel.detach().float().reshape(1, frames, mels),
    )
    if not (cond.isfinite().all() and ref_mel.isfinite().all()):
        raise wrong("holds NaN or infinity")
    if (
        isinstance(bos_token, Tensor)
        and bos_token.numel() == 1
        and not bos_token.is_floating_point()
    ):
        bos_token = bos_token.item()
    if type(bos_token) is not int or not 0 <= bos_token < vocab:
        raise wrong(f"bos_token is {bos_token!r:.60}, expected a token id below {vocab}")
    return Voice(name=name, cond=cond.clone(), ref_mel=ref_mel.clone(), bos_token=bos_token)


def _dense(value: Any) -> bool:
    """A plain floating tensor whose memory is its own: a tiny storage may pose as a huge expanded tensor."""
    return (
        isinstance(value, Tensor) and value.layout == torch.strided and value.is_floating_point()
        and value.device.type == "cpu" and value.is_contiguous()
    )  # fmt: skip


def _form(value: Any) -> str:
    return (
        f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    )


# -------------------------------------------------------------------------------------------------------------- write


def save_voices(voices: Mapping[str, Voice], directory: str | Path) -> None:
    """Write spk_dict.pt as the reference reads it; the "default" that load_voices adds is not stored."""
    stored = {
        name: {"cond": v.cond.cpu(), "ref_mel": v.ref_mel.cpu(), "bos_token": v.bos_token}
        for name, v in voices.items()
        if name != DEFAULT or v.name == DEFAULT
    }
    buffer = io.BytesIO()
    torch.save(stored, buffer)
    atomic_write(Path(directory) / OFFICIAL, buffer.getvalue())


def write_voice_file(
    voices: Mapping[str, Voice], path: str | Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write voices in our own format, which needs no pickle; `metadata` are further strings for its header."""
    path = Path(path)
    plan = [
        Planned(f"{name}.{key}", torch.float32, tuple(value.shape), lambda value=value: value)
        for name, voice in voices.items()
        for key, value in (("cond", voice.cond), ("ref_mel", voice.ref_mel))
    ]
    tokens = json.dumps({name: voice.bos_token for name, voice in voices.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        write_file(partial, plan, metadata={"voices": tokens, **(metadata or {})})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def add_voice(
    path: str | Path, voice: Voice, *, config: OmniConfig | None = None, replace: bool = False
) -> None:
    """Add a voice to a file in our format, which is made when it is not there; InputError when the name is taken."""
    path = Path(path)
    voices = read_voice_file(path, config) if path.exists() else {}
    if voice.name in voices and not replace:
        raise InputError(
            f"{path}: has a voice {voice.name!r} already; choose another name or remove it first"
        )
    cond, ref_mel = voice.cond.cpu().contiguous(), voice.ref_mel.cpu().contiguous()
    voice = check_voice(voice.name, cond, ref_mel, voice.bos_token, where=str(path), config=config)
    write_voice_file(voices | {voice.name: voice}, path)


def remove_voice(path: str | Path, name: str, *, config: OmniConfig | None = None) -> None:
    """Remove a voice from a file in our format; InputError when it is not there (official voices stay)."""
    path = Path(path)
    voices = read_voice_file(path, config) if path.exists() else {}
    if name not in voices:
        have = ", ".join(sorted(voices)) or "none"
        raise InputError(
            f"{path}: has no added voice {name!r}; have {have}; voices of {OFFICIAL} cannot be removed"
        )
    write_voice_file({known: voice for known, voice in voices.items() if known != name}, path)
