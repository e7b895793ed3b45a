"""One thread a process: tests run in parallel by xdist, and spinning OpenMP threads on a busy machine cost 10 to 28 times."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

sys.path[:0] = [str(Path(__file__).parent / folder) for folder in ("parity", "laws")]

import hypothesis
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("thinktalk", deadline=None, max_examples=30, print_blob=True)
hypothesis.settings.load_profile("thinktalk")
