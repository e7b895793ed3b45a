"""Freed memory is kept: a block that is asked for again costs no new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from thinktalk.training import freed

PROGRAM = """
import resource, statistics, sys
import torch
from thinktalk.training.freed import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16, 1 << 20)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(statistics.median(step() for _ in range(25)))
"""


def faults(how: str) -> float:
    """Pages that a step of 64 MB asks the system for, the median of 25: the first ones make the heap."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)  # fmt: skip
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's")
def test_what_was_freed_is_there_again():
    assert faults("keep") < 100
    assert faults("give back") > 10_000, "glibc as it is asks for them again: the law can fail"


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(freed.ctypes, "CDLL", lambda name: object())
    assert not freed.keep_freed_memory()
