"""One thread a process: tests run in parallel by xdist, and spinning OpenMP threads on a busy machine cost 10 to 28 times."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

sys.path[:0] = [
    str(Path(__file__).parent / folder) for folder in ("parity", "laws", "data", "server")
]

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
hypothesis.settings.register_profile("thinktalk", deadline=None, max_examples=30, print_blob=True)
hypothesis.settings.load_profile("thinktalk")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> str:
    """A seeded random checkpoint of every part, in the official layout; read it, do not write into it."""
    from thinktalk.config import tiny
    from thinktalk.weights.random import random_checkpoint

    return str(random_checkpoint(tiny(), tmp_path_factory.mktemp("tiny") / "model", seed=0))
