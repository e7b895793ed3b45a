"""Provenance: what a figure belongs to: commit, versions, machine, day. No figure without it can be measured again."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["commit", "processor", "provenance"]

PACKAGES = ("torch", "numpy", "tokenizers", "transformers", "faster-whisper", "onnxruntime", "lm_eval", "sacrebleu", "jiwer")  # fmt: skip
"""What changes figures; those that are installed are named."""
ROOT = Path(__file__).resolve().parents[2]


def provenance() -> dict[str, str]:
    """Lines of a report's head, by name."""
    return {
        "thinktalk": " ".join(filter(None, [version("thinktalk"), commit()])),
        "versions": ", ".join([f"Python {platform.python_version()}", *_installed()]),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "day": datetime.now(UTC).date().isoformat(),
    }


def commit() -> str:
    """The commit of the checkout that runs, with a "+" where files differ from it; "" for an installed package."""
    if not (ROOT / ".git").exists():
        return ""
    head = _git("rev-parse", "--short=10", "HEAD")
    return head + ("+" if head and _git("status", "--porcelain", "--untracked-files=no") else "")


def processor() -> str:
    """The processor's name, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _installed() -> list[str]:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def _git(*words: str) -> str:
    try:
        told = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=20)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout.strip() if told.returncode == 0 else ""
