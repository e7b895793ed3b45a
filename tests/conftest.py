"""One thread a process: tests run in parallel by xdist, and spinning OpenMP threads on a busy machine cost 10 to 28 times."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["OMP_NUM_THREADS"] = "1"  # torch and every process that a test starts
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

sys.path[:0] = [
    str(Path(__file__).parent / folder) for folder in ("parity", "laws", "data", "server")
]

import hypothesis  # noqa: E402
import pytest  # noqa: E402

if TYPE_CHECKING:
    from serving import Server

hypothesis.settings.register_profile("thinktalk", deadline=None, max_examples=30, print_blob=True)
hypothesis.settings.load_profile("thinktalk")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> str:
    """A seeded random checkpoint of every part, in the official layout; read it, do not write into it.

    Its flow has 3 time points: with the usual 10, half of a tiny model's time would go into one differential equation.
    """
    from thinktalk.config import tiny
    from thinktalk.weights.random import random_checkpoint

    config = tiny()
    config = replace(config, generation=replace(config.generation, flow_points=3))
    return str(random_checkpoint(config, tmp_path_factory.mktemp("tiny") / "model", seed=0))


@pytest.fixture(scope="session")
def server(tiny_checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`thinktalk serve` in a process of its own: server.url, server.process."""
    from serving import serving

    with serving(tiny_checkpoint, log=tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--dist loadgroup` a file is run by one worker and so is whatever needs the server: nothing is set up twice.

    Slow tests may take 20 minutes, on a machine that does other things too.
    """
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            shared = "server" in getattr(item, "fixturenames", ())
            item.add_marker(pytest.mark.xdist_group("server" if shared else item.path.stem))
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1200))


def pytest_collection_finish() -> None:
    """What the imports made stays: the garbage collector need not walk through it time and again."""
    gc.collect()
    gc.freeze()
