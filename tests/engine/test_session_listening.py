"""Listening piece by piece gives the prompt of the whole recording: ids, positions, media; and says when it cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from thinktalk import config as cfg
from thinktalk.engine.listening import Listener
from thinktalk.engine.live import Live, join_prompts
from thinktalk.errors import ConfigError, InputError
from thinktalk.layers.mel import log_mel
from thinktalk.media.image import patchify, resize_image
from thinktalk.media.video import video_size
from thinktalk.prompt import SPEECH_SYSTEM, PromptBuilder, Tokenizer, build_prompt
from thinktalk.weights.tokenizer import build_tokenizer

CONFIG = replace(
    cfg.tiny(),
    visual=replace(cfg.VisualConfig(), video_min_tokens=4, video_max_tokens=12, min_pixels=28 * 28),
)
MEL_TOLERANCE = 1e-5  # float32 STFT of pieces; values lie around 1


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    directory = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(CONFIG, directory)
    return Tokenizer.load(directory, config=CONFIG.thinker)


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise that is loudest at its beginning and never silent: the running maximum is the clip's."""
    rng = np.random.default_rng(seed)
    pcm = 0.05 * rng.standard_normal(round(16_000 * seconds)).astype(np.float32)
    pcm[:400] *= 10
    return pcm


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (56, 84, 3), dtype=np.uint8) for _ in range(count)]


def cut(pcm: np.ndarray, cuts: list[float]) -> list[np.ndarray]:
    return np.split(pcm, sorted(round(c * len(pcm)) for c in cuts))


class Pieces:
    """A listener and all that it wrote."""

    def __init__(self, tokenizer, **options):
        self.listener = Listener(tokenizer, CONFIG, **options)
        self.state = self.listener.init_state()
        self.written = []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.written += getattr(self.listener, name)(*args, self.state, **kwargs)
            return self

        return call

    def hear(self, pcm, rate=16_000):
        self.written += self.listener.hear(torch.from_numpy(pcm), rate, self.state)

    def see(self, frame, at_s):
        self.written += self.listener.see(frame, at_s, self.state)

    def start(self, messages):
        self.written += self.listener.messages(messages, self.state, speech=True)
        return self

    def turn(self):
        return self.begin("user")

    def prompt(self):
        return join_prompts(self.finish().answer().written)


def assert_same(ours, whole) -> None:
    assert ours.token_ids.tolist() == whole.token_ids.tolist()
    assert torch.equal(ours.positions, whole.positions)
    assert ours.next_position == whole.next_position
    for medium in ("audio", "images", "videos"):
        assert bool(getattr(ours, medium)) == bool(getattr(whole, medium))
    if whole.audio:
        mine, theirs = torch.cat(ours.audio, 1), torch.cat(whole.audio, 1)
        rest = theirs.shape[1] - mine.shape[1]
        assert 0 <= rest < 3  # one or two frames at the end are no token
        theirs = theirs[:, : mine.shape[1]]
        assert (mine - theirs).abs().max() < MEL_TOLERANCE
    for medium in ("images", "videos"):
        if getattr(whole, medium):
            mine = torch.cat([patches for patches, *_ in getattr(ours, medium)])
            assert torch.equal(mine, torch.cat([p for p, *_ in getattr(whole, medium)]))


def whole(tokenizer, content):
    messages = [{"role": "user", "content": content}]
    return build_prompt(messages, tokenizer=tokenizer, config=CONFIG, speech=True)


def opened(tokenizer, **options):
    pieces = Pieces(tokenizer, **options)
    return pieces.start([{"role": "system", "content": SPEECH_SYSTEM}]).turn()


# ----------------------------------------------------------------------------------------------------------------- text


def test_text_in_any_pieces_is_one_text(tokenizer):
    pieces = opened(tokenizer)
    for part in ("What is", " the w", "eather", "?"):
        pieces.add(part)
    assert_same(pieces.prompt(), whole(tokenizer, "What is the weather?"))


def test_a_conversation_given_at_once(tokenizer):
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Good morning."},
        {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
    ]
    pieces = Pieces(tokenizer).start(messages)
    built = build_prompt(messages, tokenizer=tokenizer, config=CONFIG, speech=True)
    assert_same(pieces.prompt(), built)


# ---------------------------------------------------------------------------------------------------------------- sound


@settings(max_examples=15)
@given(
    seconds=st.sampled_from([0.05, 0.5, 1.99, 2.0, 2.0025, 2.5, 4.0, 5.3]),
    cuts=st.lists(st.floats(0, 1), max_size=6),
)
def test_sound_in_any_chunking_is_the_recording(tokenizer, seconds, cuts):
    pcm = speech(seconds)
    pieces = opened(tokenizer)
    for part in cut(pcm, cuts):
        pieces.hear(part)
    pieces.add("What was that?")
    ours = pieces.prompt()
    assert pieces.state.exact
    content = [{"type": "audio", "audio": pcm}, {"type": "text", "text": "What was that?"}]
    assert_same(ours, whole(tokenizer, content))


def test_at_the_end_one_partial_block_is_left(tokenizer):
    pieces = opened(tokenizer)
    for part in np.split(speech(8.0), 100):
        pieces.hear(part)
    before = sum(len(p.audio) for p in pieces.written)
    assert before == 3  # the fourth block waits for its last window, which hears 2.5 ms beyond it
    pieces.prompt()
    assert sum(len(p.audio) for p in pieces.written) == 4


def test_a_louder_block_later_is_told(tokenizer):
    """The clip-wide maximum lies in the future: silence before a loud word is not what the whole recording gives."""
    pcm = np.concatenate([1e-6 * speech(2.0), speech(2.0)])
    pieces = opened(tokenizer)
    pieces.hear(pcm)
    ours = pieces.prompt()
    assert not pieces.state.exact
    with pytest.raises(AssertionError):
        assert_same(ours, whole(tokenizer, [{"type": "audio", "audio": pcm}]))
    assert ours.token_ids.tolist() == whole(tokenizer, [{"type": "audio", "audio": pcm}]).token_ids.tolist()  # fmt: skip


def test_rising_loudness_within_80_db_is_exact(tokenizer):
    pcm = np.concatenate([0.3 * speech(2.0), speech(2.0)])
    pieces = opened(tokenizer)
    pieces.hear(pcm)
    ours = pieces.prompt()
    assert pieces.state.exact
    assert_same(ours, whole(tokenizer, [{"type": "audio", "audio": pcm}]))


def test_a_click_is_no_sound(tokenizer):
    pieces = opened(tokenizer)
    pieces.hear(speech(0.01))
    pieces.add("Hello")
    assert_same(pieces.prompt(), whole(tokenizer, "Hello"))


def test_another_rate_in_any_chunking_is_the_same(tokenizer):
    pcm = np.repeat(speech(2.3), 3)
    prompts = []
    for parts in ([pcm], np.array_split(pcm, 37)):
        pieces = opened(tokenizer)
        for part in parts:
            pieces.hear(part, 48_000)
        prompts.append(pieces.prompt())
    assert_same(*prompts)


# ------------------------------------------------------------------------------------------------------------- pictures


def whole_video(tokenizer, frames, pcm=None, fps=2.0):
    """The same with the builder: what a file with these frames and this sound becomes."""
    builder = PromptBuilder(tokenizer, CONFIG)
    builder.mark("im_start")
    builder.text(f"system\n{SPEECH_SYSTEM}")
    builder.mark("im_end")
    builder.text("\n")
    builder.mark("im_start")
    builder.text("user\n")
    height, width = video_size(4, *frames[0].shape[:2], CONFIG.visual)
    sized = [np.asarray(resize_image(Image.fromarray(f), height, width)) for f in frames]
    patches, grid = patchify(np.stack(sized), CONFIG.thinker.vision, CONFIG.visual)
    mel = None if pcm is None else log_mel(torch.from_numpy(pcm)[None], CONFIG.mel)[0]
    builder.video(patches, grid, 2 / fps, mel=mel)
    builder.mark("im_end")
    builder.text("\n")
    builder.mark("im_start")
    builder.text("assistant\n")
    return builder.prompt()


@pytest.mark.parametrize("count", [2, 4, 7, 11])
def test_silent_frames_are_a_video(tokenizer, count):
    frames = pictures(count)
    pieces = opened(tokenizer)
    for n, frame in enumerate(frames):
        pieces.see(frame, n / 2)
    ours = pieces.prompt()
    assert_same(ours, whole_video(tokenizer, frames))
    if count % 2 == 0:  # by the public road too: a list of frames is a video at 2 a second
        assert_same(ours, whole(tokenizer, [{"type": "video", "video": frames}]))


@settings(max_examples=12)
@given(
    seconds=st.sampled_from([0.4, 1.0, 2.0, 3.7, 4.02, 6.5]),
    fps=st.sampled_from([1.0, 2.0, 3.0]),
    spread=st.floats(0.01, 1),
)
def test_pictures_and_sound_are_a_video_with_sound(tokenizer, seconds, fps, spread):
    pcm = speech(seconds)
    frames = pictures(int(np.ceil(seconds * fps - 1e-9)))
    events = [(n / fps, "see", n) for n in range(len(frames))]
    step = max(1, int(16_000 * spread))
    events += [((s + step) / 16_000, "hear", s) for s in range(0, len(pcm), step)]
    pieces = opened(tokenizer, fps=fps)
    for at_s, sense, n in sorted(events):
        if sense == "see":
            pieces.see(frames[n], at_s)
        else:
            pieces.hear(pcm[n : n + step])
    assert_same(pieces.prompt(), whole_video(tokenizer, frames, pcm, fps))


def test_the_order_of_the_senses_does_not_count(tokenizer):
    """All the sound first, or all the pictures of the first two seconds first: the same prompt."""
    pcm, frames = speech(1.9), pictures(4)
    hear_first, see_first = opened(tokenizer), opened(tokenizer)
    hear_first.hear(pcm)
    for n, frame in enumerate(frames):
        hear_first.see(frame, n / 2)
        see_first.see(frame, n / 2)
    see_first.hear(pcm)
    reference = whole_video(tokenizer, frames, pcm)
    assert_same(hear_first.prompt(), reference)
    assert_same(see_first.prompt(), reference)


def test_a_fast_camera_is_sampled_by_time(tokenizer):
    """30 pictures a second: the one on the screen at each half second; a camera that stops shows its last one."""
    frames = pictures(45)
    pieces = opened(tokenizer)
    for n, frame in enumerate(frames):
        pieces.see(frame, n / 30)
    pieces.see(None, 3.0)
    shown = [frames[0], frames[15], frames[30], frames[44], frames[44], frames[44], frames[44]]
    assert_same(pieces.prompt(), whole_video(tokenizer, shown))


def test_grids_are_written_while_the_sound_of_their_chunk_is_still_coming(tokenizer):
    pieces = opened(tokenizer)
    for n, frame in enumerate(pictures(13)):
        pieces.see(frame, n / 2)
        pieces.hear(speech(0.5, n))
    # 6.5 s: three chunks whole but for the third one's last 2.5 ms, all six grids that have a successor
    assert sum(len(p.videos) for p in pieces.written) == 6
    assert sum(len(p.audio) for p in pieces.written) == 3


def test_a_camera_switched_on_later_begins_another_stretch(tokenizer):
    pieces = opened(tokenizer)
    pieces.hear(speech(3.0))
    for n in range(4):
        pieces.see(pictures(4)[n], 3.0 + n / 2)
        pieces.hear(speech(0.5, n))
    ids = CONFIG.thinker.ids
    prompt = pieces.prompt()
    marks = [t for t in prompt.token_ids.tolist() if t in (ids.audio_bos, ids.vision_bos, ids.audio_eos, ids.vision_eos)]  # fmt: skip
    assert marks == [ids.audio_bos, ids.audio_eos, ids.vision_bos, ids.audio_bos, ids.audio_eos, ids.vision_eos]  # fmt: skip
    assert sum(mel.shape[1] for mel in prompt.audio) == 500


# --------------------------------------------------------------------------------------------------------------- limits


def test_a_full_context_drops_what_comes_and_says_so(tokenizer):
    config = replace(CONFIG, thinker=replace(CONFIG.thinker, text=replace(CONFIG.thinker.text, max_positions=400)))  # fmt: skip
    listener = Listener(tokenizer, config)
    state = listener.init_state()
    pieces = listener.begin("user", state)
    for _ in range(40):
        pieces += listener.hear(torch.from_numpy(speech(1.0)), 16_000, state)
    assert state.full
    pieces += listener.finish(state) + listener.answer(state)
    prompt = join_prompts(pieces)
    assert prompt.length == state.timeline.tokens < 400
    with pytest.raises(InputError, match="context of 400"):
        listener.add("x" * 2000, state)


@pytest.mark.parametrize("at_s", [float("nan"), float("inf"), 1e9, 0.2])
def test_times_that_cannot_be(tokenizer, at_s):
    pieces = opened(tokenizer)
    pieces.see(pictures(1)[0], 0.5)
    with pytest.raises(InputError, match="frame at"):
        pieces.see(pictures(1)[0], at_s)


def test_an_error_changes_nothing(tokenizer):
    pieces = opened(tokenizer)
    pieces.hear(speech(2.5))
    with pytest.raises(InputError):
        pieces.see(np.zeros((4, 4), np.float32), 2.5)
    with pytest.raises(InputError):
        pieces.add([{"type": "text", "text": "a"}, {"type": "image", "image": "no-such.png"}])
    with pytest.raises(InputError):
        pieces.hear(speech(0.1), rate=5)
    assert_same(pieces.prompt(), whole(tokenizer, [{"type": "audio", "audio": speech(2.5)}]))


@pytest.mark.parametrize("options", [{"fps": 0.5}, {"fps": float("nan")}, {"frame_tokens": 1}])
def test_settings_that_cannot_be(options):
    with pytest.raises(ConfigError):
        Live(CONFIG, **options)


# ------------------------------------------------------------------------------------------------------- planted faults


def test_planted_faults_are_caught(tokenizer, monkeypatch):
    pcm, frames = speech(4.5), pictures(9)

    def check():
        pieces = opened(tokenizer)
        for n, frame in enumerate(frames):
            pieces.see(frame, n / 2)
            pieces.hear(pcm[n * 8000 : (n + 1) * 8000])
        assert_same(pieces.prompt(), whole_video(tokenizer, frames, pcm))

    check()
    original = Live._write_block

    def early(self, state, timeline, limit):  # sound counts from where the pictures ended
        state.start += 1
        return original(self, state, timeline, limit)

    def late(self, picture, until_s, state):  # a picture stands one moment too long
        original_take(self, picture, until_s + 0.5, state)

    original_take = Live._take
    for name, fault in (("_write_block", early), ("_take", late)):
        with monkeypatch.context() as patch:
            patch.setattr(Live, name, fault)
            with pytest.raises(AssertionError):
                check()
