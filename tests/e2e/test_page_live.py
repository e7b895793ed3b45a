"""The page in Chromium, `thinktalk serve` in a process of its own, the tiny random model: it talks noise, but it talks."""

from __future__ import annotations

import time

import numpy as np
import pytest
from browser import ROOT, chromium, microphone_file, screenshot
from serving import serving

from thinktalk.media.audio import load_audio, write_wav

LONG = ("--max-codes", "600", "--max-text-tokens", "40")


@pytest.fixture(scope="module")
def server(tiny_checkpoint, tmp_path_factory):
    with serving(tiny_checkpoint, *LONG, log=tmp_path_factory.mktemp("live") / "log") as server:
        yield server


def told(server):
    """Nothing went wrong in the server."""
    return [line for line in server.text().splitlines() if "ERROR" in line or "Traceback" in line]


@pytest.mark.slow
def test_a_question_is_heard_answered_and_interrupted(server, tmp_path):
    wav = microphone_file(tmp_path / "ask.wav", 1.0, "question.wav", 9.0, "question.wav", 60.0)
    with chromium(wav) as browser:
        page = browser.new_page(viewport={"width": 1100, "height": 760}, locale="en-US")
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(server.url)
        until(lambda: page.inner_text("#model"))
        page.click("#mic")
        page.wait_for_selector("#state[data-activity=hearing]")
        page.wait_for_selector("#state[data-activity=speaking]")
        until(lambda: page.evaluate("document.querySelector('.assistant .unlit')?.textContent"))
        screenshot(page, "live-speaking")
        assert page.evaluate(PEAK) > 0, "nothing is drawn of the voice"
        # the second question interrupts, and is answered in its turn
        page.wait_for_selector(".assistant.cut", timeout=30_000)
        page.wait_for_selector("#state[data-activity=speaking]")
        assert page.locator(".user").count() == 2
        page.keyboard.press("Escape")
        page.wait_for_selector(".assistant.cut >> nth=1")
        assert page.locator("#turns tr").count() == 2
        screenshot(page, "live-interrupted")
        # what is written is answered, a picture goes along
        page.click("#mic")
        page.set_input_files("#file", ROOT / "examples/picture.png")
        page.wait_for_selector("#attached li")
        page.fill("#text", "What is this?")
        page.press("#text", "Enter")
        page.wait_for_selector(".assistant >> nth=2")
        page.wait_for_selector("#state[data-activity=speaking]")
        screenshot(page, "live-picture")
        # a written reply is played by nobody; the engine's ledger of it is shown
        page.select_option("#output", "text", force=True)
        page.fill("#text", "And this?")
        page.press("#text", "Enter")
        page.wait_for_selector(".assistant.done")
        until(lambda: page.inner_text("#engine").startswith("input "))
        assert not problems, problems
        assert page.inner_text("#notice") == ""
        assert not told(server), told(server)


@pytest.mark.slow
def test_a_voice_is_enrolled_spoken_with_and_deleted(tiny_checkpoint, tmp_path):
    options = ("--voices-dir", str(tmp_path / "voices"), "--fit-steps", "3")
    with (
        serving(tiny_checkpoint, *LONG, *options, log=tmp_path / "log") as server,
        chromium() as browser,
    ):
        page = browser.new_page(viewport={"width": 1100, "height": 760}, locale="en-US")
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(server.url)
        until(lambda: page.locator("#voice option").count() == 2)
        page.click("#open-settings")
        page.fill("#voice-name", "mine")
        page.set_input_files("#clip-file", clip(tmp_path / "me.wav"))
        page.wait_for_selector("#enrol-state >> text=mine is there")
        assert page.input_value("#voice") == "mine" and page.is_enabled("#forget")
        assert "experimental" in page.inner_text("#voice option:checked")
        screenshot(page, "live-voices")
        page.keyboard.press("Escape")
        page.fill("#text", "Speak!")
        page.press("#text", "Enter")
        page.wait_for_selector("#state[data-activity=speaking]")
        page.keyboard.press("Escape")
        page.click("#open-settings")
        page.click("#forget")
        page.wait_for_selector("#enrol-state >> text=mine is deleted")
        assert page.locator("#voice option").count() == 2 and not page.is_enabled("#forget")
        assert not list((tmp_path / "voices").iterdir())
        assert not problems and not told(server), (problems, told(server))


def clip(path):
    """Ten seconds of somebody asking."""
    pcm = load_audio(ROOT / "examples/question.wav")
    write_wav(path, np.tile(pcm, 4)[:160_000], 16_000)
    return path


PEAK = """(() => {
    const canvas = document.querySelector("#wave-voice"), { width, height } = canvas;
    const pixels = canvas.getContext("2d").getImageData(0, 0, width, Math.floor(height / 3)).data;
    return pixels.filter((v, i) => i % 4 === 3 && v > 0).length;
})()"""


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.05)
