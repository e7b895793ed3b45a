"""Servers for tests: settings that are quick, and `thinktalk serve` in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from thinktalk.server.settings import Settings

__all__ = ["Server", "quick_settings", "serving"]


def quick_settings(model: str, **changes) -> Settings:
    """Few codes, a cheap flow, no limit by measured load (a test machine is busy)."""
    given = dict(model=model, max_codes=20, max_text_tokens=8, flow_points=3, flow_method="euler", max_load=None, queue_seconds=60.0)  # fmt: skip
    return Settings(
        **(
            given
            | {
                "decode_workers": 1,
                "fit_steps": 2,
                "served_names": ("tiny",),
                "hosts": ("testserver",),
            }
            | changes
        )
    )


@dataclass
class Server:
    """A running server."""

    url: str
    """http://127.0.0.1:PORT"""
    process: subprocess.Popen
    log: Path

    @property
    def base_url(self) -> str:
        """For OpenAI's client."""
        return f"{self.url}/v1"

    @property
    def websocket_base_url(self) -> str:
        """For OpenAI's client, too."""
        return f"ws{self.url.removeprefix('http')}/v1"

    def text(self) -> str:
        """What it has logged so far."""
        return self.log.read_text(errors="replace")


@contextlib.contextmanager
def serving(model: str, *options: str, log: Path, seconds: float = 120.0) -> Iterator[Server]:
    """`thinktalk serve` on a free port; `options` are added to the command line. Ended by SIGTERM."""
    quick = ["--max-codes", "20", "--max-text-tokens", "8", "--flow-points", "3", "--flow-method", "euler", "--max-load", "1000", "--drain-seconds", "5"]  # fmt: skip
    command = [sys.executable, "-m", "thinktalk.cli.main", "serve", "--model", model, "--port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, *quick, "--served-names", "tiny", *options],
            stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            yield Server(_address(process, log, seconds), process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _address(process: subprocess.Popen, log: Path, seconds: float) -> str:
    """Wait for the line that says where it listens."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = re.search(r"ready on (http://\S+)", log.read_text(errors="replace"))
        if found:
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"the server did not come up:\n{log.read_text(errors='replace')[-4000:]}")
