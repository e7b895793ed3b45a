"""A checkpoint with some of its parts trained further: base + {part: module} -> a new checkpoint; what did not change is shared.

    base/model-00001.safetensors   untouched parts only   -> the same file, hard-linked
    base/model-00002.safetensors   also a trained part    -> what is left of it, one file a part
    parts {"talker": module}                              -> talker.safetensors, in the precision that base has
    config.json, tokenizer, voices                        -> copied, or written anew

Every stage of training begins with a checkpoint and ends with one (recipes/recipe.py), so a run of ten stages holds its
unchanged gigabytes once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from thinktalk.code2wav.speaker import Voice
from thinktalk.config import OmniConfig
from thinktalk.errors import ConfigError, WeightsError
from thinktalk.wav2code.encoder import SpeechTokenizer
from thinktalk.weights.assign import SCALE, Assignment, locate, naming_of
from thinktalk.weights.config_read import FILES, THINKER_ONLY, read_config, read_raw
from thinktalk.weights.config_write import write_config
from thinktalk.weights.files import SINGLE, TensorFiles, read_json
from thinktalk.weights.hf import copy_assets, planned
from thinktalk.weights.model import PARTS, build
from thinktalk.weights.store import Planned, atomic_directory, write_index, write_parts
from thinktalk.weights.voices import ADDED, OFFICIAL, save_voices
from thinktalk.weights.wav2code import PREFIX, load_tokenizer

__all__ = ["STAGES", "update_checkpoint"]

WAV2CODE = PREFIX.rstrip(".")
STAGES = (*(stage for stages in PARTS.values() for stage in stages), WAV2CODE)
"""Names that parts may have: audio, vision, thinker, talker, dit, vocoder, wav2code."""


def update_checkpoint(
    base: str | Path,
    directory: str | Path,
    parts: Mapping[str, nn.Module],
    *,
    config: OmniConfig | None = None,
    voices: Mapping[str, Voice] | None = None,
    overwrite: bool = False,
) -> None:
    """Write `directory`: the checkpoint `base` with these parts in the place of its own; it appears whole or not at all.

    parts:  modules by the names of STAGES. Each tensor is stored in the precision its part has in base (int8 becomes float).
    config: the new configuration, where it is another one; that of a wav2code is its module's.
    voices: all voices from now on; None keeps those of base.
    Files that hold nothing new are hard links to base's (copies across disks): write into neither.
    ConfigError for unknown parts; WeightsError lists every tensor that does not fit the configuration.
    """
    base, directory = Path(base), Path(directory)
    if unknown := set(parts) - set(STAGES):
        raise ConfigError(f"part {sorted(unknown)[0]!r} is unknown; have {', '.join(STAGES)}")
    had = read_config(base)
    config = had if config is None else config
    tokenizer = parts.get(WAV2CODE)
    if isinstance(tokenizer, SpeechTokenizer):
        config = replace(config, wav2code=tokenizer.config)
    old = _Old.read(base)
    fresh_tensors = {name: old.matched(name, _plan(name, module, config)) for name, module in parts.items()}  # fmt: skip
    with atomic_directory(directory, overwrite=overwrite) as fresh:
        where = old.share(fresh, changed=set(parts))
        write_parts(fresh, old.left(where, changed=set(parts)), where)
        write_parts(fresh, fresh_tensors, where)
        write_index(fresh, where)
        copy_assets(base, fresh)
        if config != had or read_json(base / "config.json").get("model_type") == THINKER_ONLY:
            write_config(config, fresh, base=read_raw(base), dtype=old.main_dtype())
        else:
            for name in FILES:
                if (base / name).is_file():
                    shutil.copyfile(base / name, fresh / name)
        if voices is not None:
            (fresh / ADDED).unlink(missing_ok=True)
            save_voices(voices, fresh)
        elif (base / OFFICIAL).is_file():
            shutil.copyfile(base / OFFICIAL, fresh / OFFICIAL)
        _check(fresh, directory, config, WAV2CODE in parts)


def _plan(part: str, module: nn.Module, config: OmniConfig) -> list[Planned]:
    """The tensors of a trained part by their official names."""
    if part == WAV2CODE:
        return [Planned(PREFIX + name, t.dtype, tuple(t.shape), lambda t=t: t) for name, t in module.state_dict().items()]  # fmt: skip
    try:
        return planned(part, module, config, None)
    except KeyError as error:
        raise ConfigError(f"part {part}: a {type(module).__name__} has what no {part} has ({error.args[0]}); give the module of the model alone") from None  # fmt: skip


def _check(fresh: Path, directory: Path, config: OmniConfig, has_tokenizer: bool) -> None:
    """What was written opens: all headers against the configuration."""
    try:
        Assignment.open(fresh, build(config)).check()
        if has_tokenizer:
            load_tokenizer(fresh)
    except WeightsError as error:
        raise WeightsError(str(error).replace(str(fresh), str(directory))) from None


@dataclass
class _Old:
    """Whose tensor lies in which file of the base."""

    files: TensorFiles
    stage: dict[str, str] = field(default_factory=dict)  # stored name -> part, "" where nobody's
    official: dict[str, str] = field(default_factory=dict)  # stored name -> official name

    @classmethod
    def read(cls, base: Path) -> _Old:
        files, naming = TensorFiles(base), naming_of(base)
        old = cls(files)
        for name in files:
            own = name.startswith(PREFIX)  # ours has one name everywhere
            old.official[name] = official = name if own else naming(name)
            place = locate(official)
            old.stage[name] = WAV2CODE if own else place[0] if place else ""
        return old

    def main_dtype(self) -> str:
        """The precision most weights have, as configurations name it."""
        sizes = Counter[torch.dtype]()
        for name in self.files:
            sizes[self.files[name].dtype] += self.files[name].nbytes
        sizes.pop(torch.int8, None)
        found = sizes.most_common(1)
        return str(found[0][0] if found else torch.float32).removeprefix("torch.")

    def matched(self, part: str, plan: list[Planned]) -> list[Planned]:
        """The same tensors in the precision that this part has here."""
        kinds = Counter[torch.dtype]()
        for name, stage in self.stage.items():
            entry = self.files[name]
            if stage == part and entry.dtype.is_floating_point and not name.endswith(SCALE):
                kinds[entry.dtype] += entry.nbytes
        if not kinds:
            return plan
        kind = kinds.most_common(1)[0][0]
        return [
            replace(t, dtype=kind) if t.dtype.is_floating_point and not t.name.endswith(SCALE) else t
            for t in plan
        ]  # fmt: skip

    def share(self, fresh: Path, *, changed: set[str]) -> dict[str, str]:
        """Link the files that stay as they are; {tensor: file}."""
        inside: dict[Path, list[str]] = defaultdict(list)
        for name in self.files:
            inside[self.files[name].path].append(name)
        kept = {
            path: names
            for path, names in inside.items()
            if all(self.stage[n] not in changed and self.official[n] == n for n in names)
        }
        where: dict[str, str] = {}
        for path, names in kept.items():
            # readers that know no index would take model.safetensors for the whole
            alone = path.name != SINGLE or not (changed - {WAV2CODE} or len(inside) > len(kept))
            target = fresh / (path.name if alone else "base.safetensors")
            _link(path, target)
            where |= dict.fromkeys(names, target.name)
        return where

    def left(self, where: Mapping[str, str], *, changed: set[str]) -> dict[str, list[Planned]]:
        """What stays of files that could not be shared, by part."""
        left: dict[str, list[Planned]] = defaultdict(list)
        for name, stage in self.stage.items():
            if name not in where and stage not in changed:
                entry = self.files[name]
                make = lambda name=name: self.files.view(name)  # noqa: E731
                tensor = Planned(self.official[name], entry.dtype, entry.shape, make)
                left[stage or "rest"].append(tensor)
        return left


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or a file system without hard links
        with contextlib.suppress(FileNotFoundError):
            target.unlink()
        shutil.copyfile(source, target)
