"""Figures of the engine that need no model."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest

from thinktalk.engine.measure import peak_mb


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_memory_is_that_of_the_process_alone():
    """A process that a large one has started; ru_maxrss, the planted fault, begins with what that one held."""
    code = f"import resource, sys\nfrom contextlib import suppress\n{inspect.getsource(peak_mb)}\nprint(peak_mb(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)"
    ballast = np.ones(30_000_000)
    told = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True).stdout.split()  # fmt: skip
    own, inherited = map(float, told)
    assert 1 < own < 100 < ballast.nbytes / 1e6 < inherited
