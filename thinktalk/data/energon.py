"""Energon: the same tars through megatron-energon, for those whose training already lives there (extra `energon`).

    index(shards, folder)     FOLDER/ has links to the tars and energon's .nv-meta beside them; no byte of a tar changes
    EnergonData(folder, ...)  batches of what `make` and `collate` give, as Loader's; its place is energon's own state

Samples are ours: records are checked, what cannot be used is passed by, counted and named. What energon cannot do, Loader can:
budgets of seconds, another number of ranks or workers after a restart. Metadatasets blend such folders; `task_encoder` is for them.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from thinktalk.data.energon_state import objects, plain
from thinktalk.data.mixture import expand
from thinktalk.data.samples import Sample, check_record
from thinktalk.data.shards import Fault
from thinktalk.errors import ConfigError, InputError

__all__ = ["EnergonData", "index", "task_encoder"]

Make = Callable[[Sample, torch.Generator], Any]
DATASET = "__module__: megatron.energon\n__class__: CrudeWebdataset\n"
MAX_LOST = 100
"""Batches in a row that may lose all of their samples."""


def _energon() -> Any:
    try:
        return importlib.import_module("megatron.energon")
    except ImportError as error:
        raise ConfigError(f"energon: cannot be imported ({error}), expected megatron-energon; install it: pip install 'thinktalk[energon]'") from None  # fmt: skip


def index(
    shards: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
) -> int:
    """Make FOLDER an energon dataset (split "train") of these tars, which stay where they are; gives the number of samples.

    A key may be there once among all of them: give each corpus, and each split of one, a folder of its own. Errors:
    InputError (no tar, a name or a key that is there twice, FOLDER is no dataset of ours or cannot be written).
    """
    energon = _energon()
    folder, tars = Path(folder), [Path(path).resolve() for path in expand(shards)]
    names = [tar.name for tar in tars]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{folder}: two shards are called {twice[0]}, expected names of their own; index each folder of shards apart")  # fmt: skip
    if folder.exists() and any(path.is_file() and not path.is_symlink() for path in folder.iterdir()):  # fmt: skip
        raise InputError(f"{folder}: holds files, expected a folder for links alone; choose another")  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.tar"):
            old.unlink()
        for tar in tars:
            (folder / tar.name).symlink_to(tar)
        told = io.StringIO()  # energon prints what it does, and how it cannot do it
        with contextlib.redirect_stdout(told):
            try:
                energon.BaseWebdatasetFactory.prepare_dataset(
                    folder, names, split_parts_ratio=[("train", 1.0)], shuffle_seed=None,
                    workers=min(8, len(names)),
                )  # fmt: skip
            except SystemExit:
                reason = " ".join(told.getvalue().split())
                key = reason.partition('duplicate key: "')[2].partition('"')[0] or reason[:120]
                raise InputError(f"{folder}: the key {key} is in two samples, expected it once; index each folder or split of shards apart") from None  # fmt: skip
        (folder / ".nv-meta" / "dataset.yaml").write_text(DATASET)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); make room or choose another place") from None  # fmt: skip
    counts = json.loads((folder / ".nv-meta" / ".info.json").read_text())["shard_counts"]
    return sum(counts.values())


def task_encoder(make: Make, collate: Callable[[list[Any]], Any]) -> Any:
    """Energon's TaskEncoder for our samples: batches are (what `collate` gives or None, samples asked for, faults).

    An encoded sample has `made`, or None and a `fault` that says why. Random numbers follow from energon's seed.
    """
    energon = _energon()

    class Encoder(energon.DefaultTaskEncoder):
        decoder = None  # bytes stay bytes: samples.py opens them
        cookers = [energon.Cooker(energon.stateless(_cook))]

        @energon.stateless(restore_seeds=True)
        def encode_sample(self, sample: Any) -> Any:
            generator = torch.Generator().manual_seed(int(torch.randint(1 << 62, ())))
            where, members = sample.made
            try:
                content = members.get("json")
                if content is None:
                    raise InputError(f"{where}: has no json, expected a record; make it again")
                media = {name: value for name, value in members.items() if name != "json"}
                record = check_record(content, set(media), where=where)
                sample.made = make(Sample(where=where, record=record, media=media), generator)
            except InputError as error:
                named, _, reason = str(error).partition(": ")
                sample.made = None
                sample.fault = Fault(named if named.startswith(where) else where, reason)
            return sample

        @energon.stateless
        def batch(self, samples: list[Any]) -> Any:  # in a worker: what it gives is pickled
            kept = [sample.made for sample in samples if sample.fault is None]
            faults = [sample.fault for sample in samples if sample.fault is not None]
            return collate(kept) if kept else None, len(samples), faults

    return Encoder()


def _cook(raw: dict[str, Any]) -> Any:
    """Energon's raw sample: its name and its members."""
    members = {k: v for k, v in raw.items() if not k.startswith("__")}
    where = f"{raw['__shard__']}/{raw['__key__']}"
    return _made()(**_energon().basic_sample_keys(raw), made=(where, members), fault=None)


_KINDS: dict[str, type] = {}


def _made() -> type:
    """energon's Sample with what was made of it; its class exists once energon does."""
    if "made" not in _KINDS:
        energon = _energon()
        fields = {"made": Any, "fault": Any}
        kind = type("Made", (energon.Sample,), {"__annotations__": fields, "__module__": __name__})
        _KINDS["made"] = energon.edataclass(kind)
    return _KINDS["made"]


class EnergonData:
    """This rank's batches of `size` samples, without end, read by energon from an indexed folder or a metadataset.

    >>> data = EnergonData("indexed", make=lambda sample, generator: sample.pcm(16_000), collate=list, size=8)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        make: Make,
        collate: Callable[[list[Any]], Any],
        *,
        size: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        shuffle: int = 1024,
        seed: int = 0,
    ):
        """`shuffle`: samples among which the next one is drawn; every rank gives the same numbers but for its `rank`."""
        if not Path(path).exists():
            raise InputError(f"{path}: is not there, expected a folder that thinktalk.data.energon.index made; make it")  # fmt: skip
        energon = _energon()
        self.path = path
        self.samples = 0
        """Samples asked for so far, by this rank."""
        self.skipped = 0
        """Those of them that were passed by."""
        self.faults: deque[Fault] = deque(maxlen=1000)
        """The latest of them, by name."""
        workers_of = energon.WorkerConfig(rank=rank, world_size=world, num_workers=workers, seed_offset=seed)  # fmt: skip
        self._options = dict(
            worker_config=workers_of, batch_size=size, shuffle_buffer_size=shuffle,
            max_samples_per_sequence=100, task_encoder=task_encoder(make, collate),
        )  # fmt: skip
        self._loader: Any = None
        self._state: Any = None

    def __iter__(self) -> Iterator[Any]:
        """Go on from the place of the data."""
        energon = _energon()
        state = self.state_dict()["energon"] if self._loader is not None else self._state
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no accelerator, that cores are few
            dataset = energon.get_train_dataset(self.path, **self._options)
            # place to the batch, whatever the workers have read ahead
            self._loader = energon.get_savable_loader(dataset, checkpoint_every_sec=0)
            if state is not None:
                self._loader.restore_state_rank(objects(state))
            batches = iter(self._loader)
            lost = 0
            while lost < MAX_LOST:
                batch, asked, missing = next(batches)
                self.samples += asked
                self.skipped += len(missing)
                self.faults.extend(missing)
                lost = lost + 1 if batch is None else 0
                if batch is not None:
                    yield batch
        raise InputError(f"{self.faults[-1]}; so it was {MAX_LOST} batches long; see: thinktalk data check")  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """The place after the batch delivered last: numbers, strings, bytes, and lists and dicts of them."""
        if self._loader is not None:
            self._state = plain(self._loader.save_state_rank())
        return {"energon": self._state, "samples": self.samples, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there, with as many ranks and workers as there were; iterate anew."""
        self._loader, self._state = None, state["energon"]
        self.samples, self.skipped = state["samples"], state["skipped"]
