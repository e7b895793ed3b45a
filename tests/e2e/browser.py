"""Chromium for tests: a microphone that plays a file, a camera with a moving picture, no human to ask."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from thinktalk.media.audio import load_audio

__all__ = ["chromium_path", "chromium", "microphone_file", "screenshot"]

ROOT = Path(__file__).parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium_path() -> str | None:
    """$CHROMIUM, or the first one found on the path."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def microphone_file(path: Path, *parts: float | str) -> Path:
    """A WAV for the fake microphone: seconds of (nearly) silence, and sound files, one after the other."""
    draw = np.random.default_rng(0)
    pieces = []
    for part in parts:
        if isinstance(part, str):
            pieces.append(soxr.resample(load_audio(ROOT / "examples" / part), 16_000, 48_000))
        else:
            pieces.append(1e-4 * draw.standard_normal(round(48_000 * part)))
    soundfile.write(path, np.concatenate(pieces), 48_000, subtype="PCM_16")
    return path


@contextlib.contextmanager
def chromium(microphone: Path | None = None) -> Iterator[object]:
    """A Playwright browser. Where there is no Chromium the test is skipped, which fails where CI is set."""
    path = chromium_path()
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium, or set CHROMIUM=/path/to/it")
    from playwright.sync_api import sync_playwright

    options = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        "--auto-select-desktop-capture-source=Entire screen",
        "--autoplay-policy=no-user-gesture-required",
        "--no-sandbox",
        "--disable-dev-shm-usage",
    ]
    if microphone is not None:
        options.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=options)
        try:
            yield browser
        finally:
            browser.close()


def screenshot(page, name: str) -> Path:
    """out/screens/NAME.png"""
    path = ROOT / "out" / "screens" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)
    return path
