"""The page in Chromium against a server whose every word and sample is known: what is heard, shown, lit, cut and sent."""

from __future__ import annotations

import base64
import io
import json
import time

import numpy as np
import pytest
import soundfile
from browser import ROOT, chromium, microphone_file, screenshot
from known_realtime import GAP_S, LATENCY, RATE, SENTENCE, WORD_S, known_server, spoken

from thinktalk.engine.alignment import Pace, Spoken


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """The microphone: a question after a second, and 2.5 s after it another, which interrupts the answer to the first."""
    wav = tmp_path_factory.mktemp("microphone") / "microphone.wav"
    with chromium(microphone_file(wav, 1.0, "question.wav", 2.5, "question.wav", 60.0)) as browser:
        yield browser


@pytest.fixture
def known():
    with known_server() as (url, known):
        yield url, known


@pytest.fixture
def page(browser, known):
    """The page, loaded; whatever goes wrong in its scripts fails the test."""
    context = browser.new_context(viewport={"width": 1100, "height": 760}, locale="en-US")
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: line.type == "error" and problems.append(line.text))
    page.goto(known[0])
    happens(page, "document.querySelector('#voice').options.length > 0")
    page.problems = problems
    yield page
    context.close()
    assert not problems, problems


def until(condition, seconds=20.0):
    """Wait for something outside of the page."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)


def happens(page, script):
    """Wait for something in the page; Playwright's own way evaluates strings there, which the page's policy forbids."""
    until(lambda: page.evaluate(script))


def write(page, text):
    page.fill("#text", text)
    page.press("#text", "Enter")


LIT = "document.querySelector('.assistant .lit')?.textContent ?? ''"


def test_hears_answers_and_is_interrupted_by_voice(page, known):
    _, server = known
    page.click("#mic")
    page.wait_for_selector("#state[data-activity=hearing]")
    page.wait_for_selector(".user >> text=What sails over hills?")
    happens(page, f"{LIT} !== ''")
    screenshot(page, "page-speaking")
    assert page.get_attribute("#state", "data-activity") == "speaking"
    assert not page.is_disabled("#stop")
    # the second question comes while the answer sounds
    page.wait_for_selector(".assistant.cut >> nth=0", timeout=15_000)
    until(lambda: server.events("conversation.item.truncate"))
    (cut,) = server.events("conversation.item.truncate")
    said = page.inner_text(".assistant >> nth=0 >> .lit")
    assert 0 < len(said) < len(SENTENCE) and SENTENCE.startswith(said)
    # what is lit is what was heard: a word of the script ends every 0.4 s
    assert abs(len(said.split()) - cut["audio_end_ms"] / 1000 / (WORD_S + GAP_S)) <= 1.6
    assert page.inner_text(".assistant >> nth=0 >> .cut") == SENTENCE[len(said) :]
    # the answer to the second one is played to its end, every word lit
    page.wait_for_selector(".assistant.done.over >> nth=0", timeout=20_000)
    assert page.inner_text(".assistant >> nth=1 >> .lit") == SENTENCE
    assert page.locator("#turns tr").count() == 2
    row = page.inner_text("#turns tr >> nth=1 >> td")
    for stage in ("turn end", "first word", "first sound", "loudspeaker"):
        assert stage in row
    assert "= 102 ms" in page.inner_text("#engine")
    screenshot(page, "page-interrupted")
    modes = [event["session"]["audio"]["input"]["turn_detection"] for event in server.events("session.update")]  # fmt: skip
    assert modes[-1]["type"] == "server_vad"
    page.click("#mic")
    assert page.get_attribute("#mic", "aria-pressed") == "false"


@pytest.mark.slow
def test_sound_is_played_to_the_sample_and_exported(page, known):
    """What the loudspeaker's worklet took, in order and gapless, is what the server sent."""
    known[1].pace = float("inf")
    write(page, "Speak!")
    page.wait_for_selector(".assistant.done.over", timeout=20_000)
    page.click("#open-export")
    with page.expect_download() as download:
        page.click("#save-wav")
    sound, rate = soundfile.read(download.value.path())
    assert rate == RATE and sound.shape[1] == 2
    played = np.trim_zeros(sound[:, 1])
    expected = np.trim_zeros(spoken())
    assert len(played) == pytest.approx(len(expected), abs=2)
    assert (
        np.abs(played[: len(expected) - 2] - expected[: len(played)][: len(expected) - 2]).max()
        < 2e-4
    )
    with page.expect_download() as download:
        page.click("#save-json")
    whole = json.loads(download.value.path().read_text())
    assert [m["role"] for m in whole["messages"]] == ["user", "assistant"]
    assert whole["messages"][1]["text"] == SENTENCE
    assert whole["messages"][1]["seconds"] == pytest.approx(len(spoken()) / RATE)
    assert whole["latency"][0]["engine"] == LATENCY and whole["latency"][0]["sound_ms"] >= 0
    with page.expect_download() as download:
        page.click("#save-text")
    assert "**thinktalk**" in download.value.path().read_text()


def test_words_are_lit_by_the_engines_rule(page):
    """align.js is alignment.py: the same characters at every moment, for a text with pauses, in parts and complete."""
    draw = np.random.default_rng(1)
    text = "Well, it is 12 o'clock already. 你好，世界！ We were late, of course; the others had gone home."
    pcm = np.concatenate(
        [
            draw.standard_normal(round(24_000 * s)).astype(np.float32) * level
            for s, level in [(0.35, 0.2), (0.3, 1e-4), (1.9, 0.3), (0.4, 0), (1.1, 0.1), (0.16, 1e-4), (2.2, 0.2)]
        ]
    )  # fmt: skip
    pcm = np.round(32767 * np.clip(pcm, -1, 1)).astype("<i2")
    moments = [round(0.173 * n, 3) for n in range(45)]
    theirs = page.evaluate(
        """async ({ text, sound, moments }) => {
            const { Pace, Spoken, textSeconds } = await import("/web/align.js");
            const { decodePcm } = await import("/web/sound.js");
            const pcm = decodePcm(sound), spoken = new Spoken(), pace = new Pace();
            pace.add(3, 2.5);
            const partly = [], faulty = [];
            for (let at = 0, n = 0; n < moments.length; n++) {
              const next = Math.min(pcm.length, Math.round((moments[n] + 0.5) * 24000));
              spoken.add(pcm.slice(at, at = next));
              partly.push(spoken.characters(text, moments[n], pace, false));
              faulty.push(spoken.characters(text, moments[n], new Pace(), false)); // as if it never learnt the voice's pace
            }
            spoken.add(pcm.slice(Math.round((moments.at(-1) + 0.5) * 24000)));
            const whole = moments.map((moment) => spoken.characters(text, moment, pace, true));
            return { partly, whole, faulty, seconds: textSeconds(text) };
        }""",
        {"text": text, "sound": base64.b64encode(pcm.tobytes()).decode(), "moments": moments},
    )
    ours, pace, at = Spoken(), Pace(), 0
    pace.add(3, 2.5)
    partly = []
    for moment in moments:
        until_ = min(len(pcm), round((moment + 0.5) * RATE))
        ours.add(pcm[at:until_] / np.float32(32768), RATE)
        at = until_
        partly.append(ours.characters(text, moment, pace, complete=False))
    ours.add(pcm[at:] / np.float32(32768), RATE)
    whole = [ours.characters(text, moment, pace, complete=True) for moment in moments]
    assert len(set(whole)) > 15, "the moments do not tell words apart"
    assert theirs["whole"] == whole and theirs["partly"] == partly
    assert theirs["faulty"] != partly, "the moments do not tell one pace from another"


@pytest.mark.slow
def test_microphone_is_resampled_cleanly(page):
    """The capture worklet: 1 kHz at 44.1 and 48 kHz comes out as 1 kHz at 24 kHz, 15 kHz is gone."""
    levels = page.evaluate(
        """async () => {
            const results = {};
            for (const rate of [44100, 48000, 16000]) for (const hertz of rate === 16000 ? [1000] : [1000, 15000]) {
              const context = new OfflineAudioContext(1, rate, rate);
              await context.audioWorklet.addModule("/web/worklets/capture.js");
              const tone = new OscillatorNode(context, { frequency: hertz });
              const worklet = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
              const pieces = [];
              worklet.port.onmessage = ({ data }) => pieces.push(...data.pcm);
              tone.connect(worklet);
              tone.start();
              await context.startRendering();
              await new Promise((resolve) => setTimeout(resolve, 100));
              results[`${rate} ${hertz}`] = pieces.slice(2400);
            }
            return results;
        }"""
    )
    for name, pcm in levels.items():
        pcm = np.array(pcm[: len(pcm) // 240 * 240])
        spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm)))) / len(pcm) * 4
        assert len(pcm) > 18_000, name
        if name.endswith(" 15000"):
            assert spectrum.max() < 0.003, name  # -50 dB: it would fold to 9 kHz
        else:
            hertz = np.argmax(spectrum) * RATE / len(pcm)
            assert abs(hertz - 1000) < 2 and spectrum.max() == pytest.approx(1, abs=0.02), name
            rest = np.delete(spectrum, np.arange(spectrum.argmax() - 8, spectrum.argmax() + 9))
            assert rest.max() < 0.003, name


def test_interrupted_by_key(page, known):
    _, server = known
    write(page, "Speak!")
    happens(page, f"{LIT} !== ''")
    page.keyboard.press("Escape")
    page.wait_for_selector(".assistant.cut")
    until(lambda: server.events("conversation.item.truncate"))
    (cut,) = server.events("conversation.item.truncate")
    assert 0 < cut["audio_end_ms"] < 1000 * len(spoken()) / RATE and cut["content_index"] == 0
    assert len(server.events("response.cancel")) == 1
    lit = page.inner_text(".assistant .lit")
    time.sleep(0.7)
    assert page.inner_text(".assistant .lit") == lit, "it went on speaking"
    assert page.get_attribute("#state", "data-activity") == ""
    assert page.is_disabled("#stop")
    page.keyboard.press("Escape")  # nothing to interrupt: nothing is sent
    assert len(server.events("response.cancel")) == 1


@pytest.mark.slow
def test_hold_to_talk_with_the_space_bar(page, known):
    _, server = known
    page.check("[name=mode][value=hold]", force=True)
    page.focus("[name=mode][value=hold]")
    page.keyboard.down("Space")
    page.wait_for_selector("#state[data-activity=hearing]")
    until(lambda: len(server.events("input_audio_buffer.append")) > 10)
    page.keyboard.up("Space")
    until(lambda: server.events("response.create"))
    kinds = [event["type"] for event in server.heard if event["type"] != "input_audio_buffer.append"]  # fmt: skip
    assert kinds[-3:] == [
        "input_audio_buffer.clear",
        "input_audio_buffer.commit",
        "response.create",
    ]
    assert (
        server.events("session.update")[-1]["session"]["audio"]["input"]["turn_detection"] is None
    )
    page.wait_for_selector(".user >> text=What sails over hills?")
    page.wait_for_selector(".assistant.done.over", timeout=20_000)
    sent = len(server.events("input_audio_buffer.append"))
    time.sleep(0.3)
    assert len(server.events("input_audio_buffer.append")) == sent, "it listens with the key up"


@pytest.mark.slow
def test_camera_and_files(page, known):
    _, server = known
    page.click("#camera")
    happens(page, "document.querySelector('#preview').videoWidth > 0")
    page.set_input_files("#file", [ROOT / "examples/picture.png", ROOT / "examples/question.wav", ROOT / "examples/clip.mp4"])  # fmt: skip
    happens(page, "document.querySelectorAll('#attached li').length === 3")
    screenshot(page, "page-camera")
    write(page, "What is this?")
    until(lambda: server.events("response.create"))
    content = server.events("conversation.item.create")[-1]["item"]["content"]
    kinds = ["input_image", "input_audio", "input_video", "input_image", "input_text"]
    assert [part["type"] for part in content] == kinds
    assert content[0]["image_url"].startswith("data:image/jpeg;base64,")
    seconds = len(base64.b64decode(content[1]["audio"])) / 2 / RATE
    assert seconds == pytest.approx(48_400 / 16_000, abs=0.01)
    assert base64.b64decode(content[2]["video_url"].partition(",")[2]) == (ROOT / "examples/clip.mp4").read_bytes()  # fmt: skip
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(content[3]["image_url"].partition(",")[2])))
    assert max(picture.size) <= 768 and len(np.unique(np.asarray(picture))) > 2
    assert page.locator(".user .files img").count() == 2
    assert page.locator("#attached li").count() == 0
    # while the user speaks, pictures go along
    before = len(server.events("conversation.item.create"))
    page.click("#mic")
    page.wait_for_selector("#state[data-activity=hearing]")
    page.wait_for_selector(
        "#state[data-activity=thinking], #state[data-activity=speaking]", timeout=15_000
    )
    sent = server.events("conversation.item.create")[before:]
    assert len(sent) >= 2 and {part["type"] for e in sent for part in e["item"]["content"]} == {"input_image"}  # fmt: skip
    page.click("#camera")
    assert page.is_hidden("#preview")


def test_dropped_files_and_those_it_cannot_take(page, known):
    drop = """({ name, type, bytes }) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(bytes)], name, { type }));
        dispatchEvent(new DragEvent("dragenter", { dataTransfer: transfer }));
        dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
    }"""
    page.evaluate(drop, {"name": "a.pdf", "type": "application/pdf", "bytes": [1]})
    page.wait_for_selector("#notice >> text=a.pdf: only pictures")
    page.evaluate(drop, {"name": "a.png", "type": "image/png", "bytes": [1, 2, 3]})
    page.wait_for_selector("#notice >> text=a.png: the browser cannot read it")
    picture = list((ROOT / "examples/picture.png").read_bytes())
    page.evaluate(drop, {"name": "p.png", "type": "image/png", "bytes": picture})
    page.wait_for_selector("#attached li >> text=p.png")
    page.click("[aria-label='Remove p.png']")
    assert page.locator("#attached li").count() == 0
    page.problems.clear()


@pytest.mark.slow
def test_voice_chosen_enrolled_and_deleted(page, known):
    _, server = known
    write(page, "Speak!")
    happens(page, f"{LIT} !== ''")
    page.click("#open-settings")
    page.select_option("#voice", "stone")
    until(
        lambda: server.joined == 2
    )  # a line that has spoken cannot change its voice: a new one, told the history
    until(lambda: len(server.events("session.update")) >= 2)
    assert server.events("session.update")[-1]["session"]["audio"]["output"]["voice"] == "stone"
    until(lambda: len(server.events("conversation.item.create")) >= 3)
    told = [event["item"] for event in server.events("conversation.item.create")[1:]]
    assert told[0] == {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Speak!"}]}  # fmt: skip
    assert told[1]["role"] == "assistant" and SENTENCE.startswith(told[1]["content"][0]["text"])
    page.click("#record")
    page.wait_for_selector("#record >> text=Stop")
    page.click("#record")
    page.wait_for_selector("#enrol-state >> text=Give the voice a name first")
    page.fill("#voice-name", "mine")
    clip = soundfile.read(ROOT / "examples/question.wav")[0]
    data = io.BytesIO()
    soundfile.write(data, np.tile(clip, 2), 16_000, format="WAV")
    page.set_input_files("#clip-file", {"name": "me.wav", "mimeType": "audio/wav", "buffer": data.getvalue()})  # fmt: skip
    page.wait_for_selector("#enrol-state >> text=mine is there")
    assert page.input_value("#voice") == "mine" and server.voices == ["river", "stone", "mine"]
    screenshot(page, "page-voices")
    page.click("#forget")
    page.wait_for_selector("#enrol-state >> text=mine is deleted")
    assert server.voices == ["river", "stone"]


@pytest.mark.slow
def test_line_that_breaks_is_made_anew(page, known):
    _, server = known
    page.select_option("#output", "text", force=True)
    write(page, "Write!")
    page.wait_for_selector(f".assistant.done >> text={SENTENCE}")
    server.break_line()
    page.wait_for_selector("#state[data-state=lost]")
    page.wait_for_selector("#state[data-state=on]")
    until(lambda: len(server.events("conversation.item.create")) == 3)
    roles = [event["item"]["role"] for event in server.events("conversation.item.create")]
    assert roles == ["user", "user", "assistant"]
    write(page, "Again!")
    page.wait_for_selector(".assistant.done >> nth=1")
    # in the middle of a reply: what was heard is what was said
    page.select_option("#output", "audio", force=True)
    write(page, "Speak!")
    happens(page, "document.querySelectorAll('.assistant .lit')[0]?.textContent")
    server.break_line()
    page.wait_for_selector(".assistant.cut")
    page.wait_for_selector("#state[data-state=on]")
    told = lambda: server.events("conversation.item.create")[-1]["item"]["content"][0]["text"]  # noqa: E731
    until(lambda: told() not in ("Speak!", SENTENCE))
    assert told() and SENTENCE.startswith(told())


def test_key_is_asked_for_and_sent(browser):
    with known_server(key="secret-1") as (url, server):
        context = browser.new_context(locale="en-US")
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector("#notice >> text=The server wants an API key")
        page.click("#open-settings")
        page.fill("#key", "secret-1")
        page.press("#key", "Tab")
        happens(page, "document.querySelector('#voice').options.length > 0")
        page.keyboard.press("Escape")
        write(page, "Speak!")
        page.wait_for_selector(".assistant")
        assert server.joined == 1
        assert "secret-1" not in page.evaluate("JSON.stringify(localStorage)")
        context.close()


@pytest.mark.slow
def test_languages_colours_and_phone(page):
    page.select_option("#language", "zh", force=True)
    assert (
        page.inner_text("#open-settings") == "设置"
        and page.get_attribute("html", "lang") == "zh-CN"
    )
    assert page.get_attribute("#text", "placeholder") == "输入消息"
    page.select_option("#theme", "dark", force=True)
    page.set_viewport_size({"width": 390, "height": 780})
    write(page, "你好")
    happens(page, f"{LIT} !== ''")
    screenshot(page, "page-phone-dark-zh")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
        "it scrolls sideways"
    )
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight"), (
        "it scrolls as a whole"
    )
    page.reload()
    assert page.inner_text("#open-settings") == "设置", "the choice is kept"


CONTRAST = """() => {
    const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)|transparent/.test(c)) return c; } return "rgb(255,255,255)"; };
    const poor = [];
    for (const e of document.querySelectorAll("body *")) {
      const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
      if (!own || !e.checkVisibility() || e.disabled || e.closest(".unseen, dialog:not([open]), option")) continue;
      const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
      if ((a + 0.05) / (b + 0.05) < 4.5) poor.push([e.id || e.className || e.tagName, e.textContent.slice(0, 20), (a + 0.05) / (b + 0.05)]);
    }
    return poor;
}"""


def test_usable_by_keyboard_and_screen_reader(page):
    # every control has a name, no id is used twice, labels point somewhere
    assert page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, canvas, video")].filter((e) =>
            !e.hidden && e.getAttribute("aria-hidden") !== "true" && !e.textContent.trim() && !e.labels?.length
            && !e.getAttribute("aria-label")).map((e) => e.outerHTML)"""
    ) == []  # fmt: skip
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    # tabbing reaches everything once, in reading order, with a focus that is seen
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        name = page.evaluate(
            "(({ id, name, className, tagName }) => id || name || className || tagName)(document.activeElement)"
        )
        if name == "BODY" or name in reached:
            break
        reached.append(name)
    for name in ["open-settings", "log", "mode", "mic", "camera", "attach", "text", "send"]:
        assert name in reached, (name, reached)
    assert reached.index("mic") < reached.index("text")
    page.focus("#camera")
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    # a finished reply is told once, as a whole
    page.evaluate(
        "window.told = []; new MutationObserver(() => told.push(document.querySelector('#spoken').textContent))"
        ".observe(document.querySelector('#spoken'), { childList: true, characterData: true, subtree: true })"
    )
    write(page, "Speak!")
    page.wait_for_selector(".assistant.done.over", timeout=20_000)
    assert page.evaluate("told") == [f"thinktalk: {SENTENCE}"]
    for theme in ("light", "dark"):
        page.select_option("#theme", theme, force=True)
        page.wait_for_timeout(250)
        assert page.evaluate(CONTRAST) == [], theme
