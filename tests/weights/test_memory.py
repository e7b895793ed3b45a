"""Loading never holds a second copy: peak resident memory, file pages included, against the size of the tensors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = """
import ctypes, gc, json, re, sys
from pathlib import Path
import torch
from thinktalk import config as cfg
from thinktalk.weights.hf import load
from thinktalk.weights.random import random_checkpoint

def status(key):
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

def peak_of(directory, **options):
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # memory freed earlier would hide what is taken now
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts here
    before = status("VmRSS")
    model = load(directory, **options)
    seen = sum(float(p.detach().view(-1)[::512].float().sum()) for p in model.parameters())  # every page is touched
    size = sum(t.nbytes for t in model.state_dict().values())
    return {"peak": status("VmHWM") - before, "size": size}

root = Path(sys.argv[1])
load(random_checkpoint(cfg.tiny(), root / "warm"), dtype="int8")  # libraries and kernels are in memory now
for name, options in json.loads(sys.argv[2]):
    print(json.dumps([name, options, peak_of(root / name, **options)]), flush=True)
"""

WRITE = """
import sys, torch
from pathlib import Path
from thinktalk import config as cfg
from thinktalk.weights.random import random_checkpoint
random_checkpoint(cfg.nano(), Path(sys.argv[1]) / "float32")
random_checkpoint(cfg.nano(), Path(sys.argv[1]) / "bfloat16", dtype=torch.bfloat16)
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="reads Linux's memory counters"
)
def test_peak_memory_of_loading(tmp_path):
    cases = [
        ["float32", {}],
        ["bfloat16", {"dtype": "float32"}],
        ["float32", {"dtype": "bfloat16"}],
    ]
    run = lambda code, *args: (
        subprocess.run(  # noqa: E731
            [sys.executable, "-c", code, str(tmp_path), *args],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )
    run(WRITE)
    ratios = {}
    for line in run(MEASURE, json.dumps(cases)).splitlines():
        name, options, memory = json.loads(line)
        ratios[name, options.get("dtype")] = memory["peak"] / memory["size"]
    # 1.15 is the promise; below 0.5 the pages were not touched and the measurement says nothing
    assert all(0.5 < ratio <= 1.15 for ratio in ratios.values()), ratios
    assert len(ratios) == 3
    print(ratios)
