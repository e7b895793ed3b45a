"""The shipped model: a trained checkpoint -> thinktalk/pretrained/NAME, matrices in int8, one file a stage.

    checkpoint --pack--> audio | vision | thinker | talker | dit | vocoder | wav2code .safetensors, an index of them,
                         config.json, tokenizer, voices, README.md (the model card)

A stage can be packed alone: only its own file changes, so that a better part costs the repository no more than itself. The
same weights always give the same bytes. What is packed is a checkpoint in the official layout as any other.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Iterable
from math import prod
from pathlib import Path
from typing import Any

import torch

from thinktalk.config import OmniConfig
from thinktalk.errors import ConfigError, WeightsError
from thinktalk.weights.assign import SCALE, Assignment
from thinktalk.weights.card import card
from thinktalk.weights.config_read import read_config, read_raw
from thinktalk.weights.config_write import write_config
from thinktalk.weights.convert import Conversion, opened, stored
from thinktalk.weights.files import INDEX, Entry, read_header
from thinktalk.weights.hf import copy_assets
from thinktalk.weights.join import joined_config
from thinktalk.weights.model import PARTS, build
from thinktalk.weights.store import atomic_directory, atomic_write, write_file
from thinktalk.weights.update import STAGES, WAV2CODE
from thinktalk.weights.voices import ADDED, OFFICIAL, load_voices
from thinktalk.weights.wav2code import load_tokenizer

__all__ = ["MAX_BYTES", "MAX_FILE_BYTES", "pack", "shipped"]

SHIPPED = Path(__file__).parents[1] / "pretrained"
MAX_FILE_BYTES = 16_000_000
"""Largest file of a packed model: a repository keeps every version of it for ever."""
MAX_BYTES = 44 << 20
"""Largest packed model, all its files together."""
MIN_VALUES, MIN_ROW = 1024, 32  # smaller matrices save nothing worth their rounding
CARD = "README.md"
HALVES = PARTS["code2wav"]  # the only stages that are computed in float32 however they are stored


def shipped(name: str) -> Path | None:
    """The directory of a model that this installation holds, or None."""
    directory = SHIPPED / name
    return directory if (directory / "config.json").is_file() else None


def pack(
    source: str | Path,
    target: str | Path,
    *,
    stages: Iterable[str] | None = None,
    float16: Collection[str] = (),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Pack a checkpoint into `target`, which changes as a whole or not at all; what each file holds, in plain values.

    stages:    those whose files are replaced in a packed model that is there; None packs all into a new directory, or in
               the place of a checkpoint with `overwrite`. The tokenizer goes with "thinker", voices with "talker" and "dit".
    float16:   of "dit" and "vocoder", those whose tensors are stored as float16 in the place of int8.
    ConfigError when a stage is unknown or does not fit those that stay; WeightsError when the result is larger than a
    repository should carry, or not whole.
    """
    source, target = Path(source), Path(target)
    config = read_config(source)
    model = build(config)
    have = (*model.stages(), *((WAV2CODE,) if config.wav2code is not None else ()))
    chosen = have if stages is None else tuple(stages)
    _check_names(source, chosen, have, float16)
    kept = [] if stages is None else _kept(target, chosen)
    if stages is not None:
        config = joined_config(read_config(target), config, chosen)
    assignment = opened(source, model)
    if WAV2CODE in chosen:
        load_tokenizer(source)  # says what it lacks
    with atomic_directory(target, overwrite=overwrite or stages is not None) as fresh:
        files = {stage: _name(stage) for stage in STAGES if stage in (*chosen, *kept)}
        errors = {}
        for stage in files:
            if stage in kept:
                shutil.copyfile(target / _name(stage), fresh / _name(stage))
            else:
                errors[stage] = _write(assignment, stage, fresh, half=stage in float16)
        _write_index(fresh, files.values())
        base = target if kept else source
        write_config(config, fresh, base=read_raw(base), dtype="float32")
        copy_assets(source if "thinker" in chosen else target, fresh)
        _copy_voices(source if {"talker", "dit"} & set(chosen) else target, fresh)
        report = _report(fresh, files, errors)
        text = next((p.read_text("utf-8") for p in (target / CARD, source / CARD) if p.is_file()), "")  # fmt: skip
        atomic_write(fresh / CARD, card(text, config, report["parts"]).encode())
        _check_whole(fresh, target, config)
        report["bytes"] = _check_sizes(fresh, target)
    return report


def _name(stage: str) -> str:
    return f"{stage}.safetensors"


def _check_names(
    source: Path, chosen: Collection[str], have: Collection[str], float16: Collection[str]
) -> None:
    for stage in chosen:
        if stage not in STAGES:
            raise ConfigError(f"stage {stage!r} is unknown; have {', '.join(STAGES)}")
        if stage not in have:
            raise ConfigError(f"{source}: has no {stage}, expected one to pack; have {', '.join(have)}")  # fmt: skip
    if wrong := set(float16) - set(HALVES):
        raise ConfigError(f"float16 {sorted(wrong)[0]!r}: only {' and '.join(HALVES)} can be stored so")  # fmt: skip


def _kept(target: Path, chosen: Collection[str]) -> list[str]:
    """The stages of a packed model that stay as they are."""
    if not (target / "config.json").is_file():
        raise WeightsError(f"{target}: holds no packed model, expected one in which {', '.join(chosen)} is replaced; pack all stages first")  # fmt: skip
    kept = [stage for stage in STAGES if stage not in chosen and (target / _name(stage)).is_file()]
    named = {*map(_name, kept), *map(_name, chosen)}
    if strangers := {p.name for p in target.glob("*.safetensors")} - named - {ADDED}:
        raise WeightsError(f"{target}: has {sorted(strangers)[0]}, expected one file a stage; pack all stages into a new directory")  # fmt: skip
    return kept


def _write(assignment: Assignment, stage: str, fresh: Path, *, half: bool) -> float:
    """The file of a stage; the mean relative error of its matrices."""
    job, tensors = Conversion(assignment.files), stored(assignment, stage)
    matrices = {official for official, (name, _) in tensors.items() if _is_matrix(assignment.files[name])}  # fmt: skip
    if half:
        plan = job.plan(tensors, goal=torch.float16)
    else:
        rest = {official: place for official, place in tensors.items() if official not in matrices}
        plan = job.plan({o: tensors[o] for o in matrices}, int8=matrices)
        plan += job.plan(rest, goal=torch.float32)
    write_file(fresh / _name(stage), plan, metadata={"part": stage})
    return sum(job.errors.values()) / len(job.errors) if job.errors else 0.0


def _is_matrix(entry: Entry) -> bool:
    return len(entry.shape) > 1 and prod(entry.shape) >= MIN_VALUES and prod(entry.shape[1:]) >= MIN_ROW  # fmt: skip


def _write_index(fresh: Path, files: Iterable[str]) -> None:
    headers = {file: read_header(fresh / file) for file in files}
    where = {name: file for file, entries in headers.items() for name in entries}
    total = sum(entry.nbytes for entries in headers.values() for entry in entries.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    atomic_write(fresh / INDEX, (json.dumps(index, indent=1) + "\n").encode())


def _copy_voices(source: Path, fresh: Path) -> None:
    for name in (OFFICIAL, ADDED):
        (fresh / name).unlink(missing_ok=True)
        if (source / name).is_file():
            shutil.copyfile(source / name, fresh / name)


def _report(fresh: Path, files: dict[str, str], errors: dict[str, float]) -> dict[str, Any]:
    parts = {}
    for stage, file in files.items():
        entries = read_header(fresh / file)
        parts[stage] = {
            "parameters": sum(prod(e.shape) for name, e in entries.items() if not name.endswith(SCALE)),
            "bytes": (fresh / file).stat().st_size,
            "sha256": hashlib.sha256((fresh / file).read_bytes()).hexdigest(),
        }  # fmt: skip
        if stage in errors:
            parts[stage]["int8_error"] = errors[stage]
    return {"replaced": list(errors), "parts": parts, "parameters": sum(p["parameters"] for p in parts.values())}  # fmt: skip


def _check_whole(fresh: Path, target: Path, config: OmniConfig) -> None:
    """What was packed opens."""
    try:
        Assignment.open(fresh, build(config)).check()
        if config.wav2code is not None:
            load_tokenizer(fresh)
        if config.code2wav is not None:
            load_voices(fresh, config)
    except WeightsError as error:
        raise WeightsError(str(error).replace(str(fresh), str(target))) from None


def _check_sizes(fresh: Path, target: Path) -> int:
    """Bytes in all; WeightsError when they are too many."""
    sizes = {path.name: path.stat().st_size for path in fresh.iterdir()}
    largest = max(sizes, key=lambda name: sizes[name])
    if sizes[largest] > MAX_FILE_BYTES:
        raise WeightsError(f"{target / largest}: would take {sizes[largest]:,} bytes, expected at most {MAX_FILE_BYTES:,}; make that part smaller")  # fmt: skip
    if (total := sum(sizes.values())) > MAX_BYTES:
        raise WeightsError(f"{target}: would take {total:,} bytes, expected at most {MAX_BYTES:,}; make a part smaller")  # fmt: skip
    return total
