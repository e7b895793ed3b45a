"""Every stage of the Talker on two ranks with sharded parameters does what one rank does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def two_ranks(*words: str) -> dict:
    """Run talker_worker.py as two ranks, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    worker = str(Path(__file__).with_name("talker_worker.py"))
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, worker, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **place, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=200) for process in started]
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors
    return json.loads(outputs[0][0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["k0", "k1", "k1 guided", "k2", "k3"])
def test_two_ranks_do_what_one_does(name, tiny_checkpoint, tmp_path):
    """Losses to 2e-6 of themselves or 1e-7: float32 sums in another order, over four steps; weights as test_parallel has them."""
    from talker_worker import run

    alone = run(name, tiny_checkpoint, str(tmp_path / "one"), 4, 2)
    both = two_ranks(name, tiny_checkpoint, str(tmp_path / "two"), "4", "1")
    assert both["sharded"] > 20 and alone["sharded"] == 0
    for one, two in zip(alone["lines"], both["lines"], strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=2e-6, abs=1e-7)
    assert alone["whole"].keys() == both["whole"].keys()
    for tensor, values in alone["whole"].items():
        assert values == pytest.approx(both["whole"][tensor], rel=1e-5, abs=5e-6), tensor
