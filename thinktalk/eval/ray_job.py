"""Ray: `thinktalk eval WORDS` in N shares, each by a worker of Ray Data with its own model -> the report, on a folder all see.

    python -m thinktalk.eval.ray_job 16 librispeech fleurs --model M --device cuda --data /nfs/sets --out /nfs/out

A share is a process that asks its part of the items and waits for nobody; when all have ended, one more asks what is left (a
share that died, and nothing else) and makes the report. Started again, it goes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from thinktalk.errors import ConfigError

__all__ = ["run"]


def run(words: Sequence[str], shares: int, **resources: Any) -> int:
    """Evaluate in so many shares on the cluster that Ray knows; the exit status of the run that makes the report.

    words:      what follows `thinktalk eval`; every folder in it must be seen by all machines.
    resources:  of a share, as Ray Data's map takes them (num_gpus=1, num_cpus=4).
    Errors: ConfigError (no Ray, no shares).
    """
    if shares < 1:
        raise ConfigError(f"{shares} shares: expected 1 or more")
    try:
        import ray.data
    except ImportError:
        raise ConfigError("ray is not installed, expected it for a job on a cluster; pip install 'thinktalk[ray]'") from None  # fmt: skip
    asked = ray.data.range(shares, override_num_blocks=shares)
    # one share a task, so that a share that dies takes no other with it
    done = asked.map(partial(_share, words=list(words), shares=shares), **resources).take_all()
    for told in sorted(done, key=lambda told: told["rank"]):
        if told["status"]:
            print(f"share {told['rank']} of {shares} ended with status {told['status']}: {told['said']}", file=sys.stderr)  # fmt: skip
    return subprocess.run(_command(words), check=False).returncode


def _share(row: dict[str, Any], *, words: list[str], shares: int) -> dict[str, Any]:
    """One share, in a process of its own on the worker's machine."""
    rank = int(row["id"])
    environ = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(shares), "LOCAL_RANK": "0", "THINKTALK_GATHER": "0"}  # fmt: skip
    ended = subprocess.run(_command(words), env=environ, capture_output=True, text=True, check=False)  # fmt: skip
    lines = ended.stderr.strip().splitlines()
    return {"rank": rank, "status": ended.returncode, "said": lines[-1] if lines else ""}


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "thinktalk.cli.main", "eval", *words]


if __name__ == "__main__":
    gpus = {"num_gpus": 1} if any(word.startswith("cuda") for word in sys.argv) else {}
    sys.exit(run(sys.argv[2:], int(sys.argv[1]), **gpus))
