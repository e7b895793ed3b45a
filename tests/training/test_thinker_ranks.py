"""Two ranks that meet different media in the same step are one rank that meets both: no waiting, the same gradients."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # two processes a case, 10 s each

WORKER = Path(__file__).with_name("thinker_rank.py")


def ranks(count: int, out: Path, accumulate: int, name: str) -> list[dict]:
    """Losses and gradients of four steps."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(out), str(accumulate), name],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={
                **os.environ, "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
            },
        )
        for rank in range(count)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors[-2000:]
    return json.loads(outputs[0][0])["lines"]


@pytest.mark.parametrize("name", ["p1", "p2", "lora"])
def test_two_ranks_with_other_media_are_one(name, tmp_path):
    alone = ranks(1, tmp_path / "alone", 2, name)
    both = ranks(2, tmp_path / "both", 1, name)
    assert len(alone) == len(both) == 4
    for one, two in zip(alone, both, strict=True):
        # float32; gradients added up in another order, four steps on
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert two["norm"] == pytest.approx(one["norm"], rel=1e-4)
