"""Messages to prompts: structure and its errors, marks, placeholders, positions, limits, and real media."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from thinktalk import config as cfg
from thinktalk import prompt as prompt_module
from thinktalk.errors import InputError
from thinktalk.media.timeline import audio_tokens
from thinktalk.media.video import Video
from thinktalk.prompt import (
    DEFAULT_SYSTEM,
    SPEECH_SYSTEM,
    Mark,
    Medium,
    Prompt,
    PromptBuilder,
    Tokenizer,
    build_prompt,
    render,
)
from thinktalk.weights.tokenizer import build_tokenizer

CONFIG = cfg.tiny()
IDS = CONFIG.thinker.ids
EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return build_tokenizer(CONFIG, tmp_path_factory.mktemp("tokenizer"))


def user(*parts: object) -> list[dict]:
    return [{"role": "user", "content": list(parts)}]


# -------------------------------------------------------------------------------------------------------------- render


def test_the_order_of_the_template() -> None:
    picture, sound = object(), (np.zeros(800, np.float32), 16_000)
    messages = user(
        {"type": "text", "text": "Look: "},
        {"type": "image", "image": picture},
        {"type": "text", "text": "and "},
        {"type": "text", "text": "hear: "},
        {"type": "audio", "audio": sound},
    )
    assert render(messages) == [
        Mark("im_start"), f"system\n{DEFAULT_SYSTEM}", Mark("im_end"), "\n",
        Mark("im_start"), "user\nLook: ", Medium("image", picture, "messages[0].content[1]"),
        "and hear: ", Medium("audio", sound, "messages[0].content[4]"), Mark("im_end"), "\n",
        Mark("im_start"), "assistant\n",
    ]  # fmt: skip


def test_which_system_prompt_leads() -> None:
    hello = {"role": "user", "content": "Hi"}
    own = {"role": "system", "content": "Be brief."}
    assert render([hello], speech=True)[1] == f"system\n{SPEECH_SYSTEM}"
    assert render([hello])[1] == f"system\n{DEFAULT_SYSTEM}"
    assert render([own, hello], speech=True)[1] == "system\nBe brief."
    assert render([hello, own])[1] == f"system\n{DEFAULT_SYSTEM}"


def test_a_transcript_for_training_has_no_open_turn() -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    assert render(turns, answer=False) == render(turns)[:-2]
    assert render(turns)[-2:] == [Mark("im_start"), "assistant\n"]


def test_use_audio_is_carried() -> None:
    video = render(user({"type": "video", "video": b"x", "use_audio": False}))[6]
    assert video == Medium("video", b"x", "messages[0].content[0]", False)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ("Hi", "messages: str, expected a list"),
        ({"role": "user", "content": "Hi"}, "messages: dict, expected a list"),
        (None, "messages: NoneType, expected a list"),
        ([], "messages: none, expected at least one"),
        (["Hi"], r"messages\[0\]: str, expected a dict"),
        ([{"role": "user"}], r"messages\[0\]: \['role'\], expected"),
        ([{"role": "user", "content": "a", "name": "b"}], r"'name'"),
        ([{"role": "tool", "content": "a"}], r"role 'tool' is unknown; use one of system, user"),
        ([{"role": "<|im_start|>", "content": "a"}], "is unknown"),
        ([{"role": np.zeros(3), "content": "a"}], "is unknown"),
        ([{"role": "user", "content": None}], r"messages\[0\]\.content: NoneType, expected a str"),
        ([{"role": "user", "content": b"a"}], r"content: bytes, expected a string"),
        ([{"role": "user", "content": {"type": "text", "text": "a"}}], "content: dict, expected"),
        (user("a"), r"messages\[0\]\.content\[0\]: str, expected a dict"),
        (user({"text": "a"}), r"type None, expected .* text, image, audio or video"),
        (user({"type": "image_url", "image_url": "a"}), "type 'image_url', expected"),
        (user({"type": ["text"], "text": "a"}), "type .*, expected"),
        (user({"type": "text"}), r"keys \['type'\] for a part of type text"),
        (user({"type": "text", "text": 3}), "text is int, expected a string"),
        (user({"type": "audio", "image": "a"}), "for a part of type audio"),
        (user({"type": "audio", "audio": "a", "use_audio": True}), "for a part of type audio"),
        (user({"type": "video", "video": "a", "fps": 2}), r"'fps'.*; add or remove keys"),
        (user({"type": "video", "video": "a", "use_audio": "yes"}), "use_audio is 'yes'"),
        (user({"type": "video", "video": "a", "use_audio": np.zeros(2)}), "use_audio is array"),
    ],
)  # fmt: skip
def test_structures_that_are_none(messages: object, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as error:
        render(messages)
    assert "\n" not in str(error.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "image", "audio", "video", "use_audio"]
            )
            | st.text(max_size=4),
            inner | st.sampled_from(["user", "system", "text", "image", "video"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_renders_or_is_refused_in_one_line(messages: object) -> None:
    try:
        segments = render(messages)
    except InputError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert segments
    assert "\n" not in refusal


# --------------------------------------------------------------------------------------------------------------- build


def test_ids_positions_and_media_stay_in_step(tokenizer: Tokenizer) -> None:
    builder = PromptBuilder(tokenizer, CONFIG)
    builder.mark("im_start")
    builder.text("user\n")
    mel, sound = torch.zeros(128, 237), torch.zeros(128, 500)
    picture, frames = torch.zeros(48, 1176), torch.zeros(5 * 16, 1176)
    builder.audio(mel)
    builder.image(picture, (1, 6, 8))
    builder.video(frames, (5, 4, 4), 1.0, mel=sound)
    builder.video(frames, (5, 4, 4), 0.5)
    prompt = builder.prompt()
    ids = prompt.token_ids
    assert prompt.positions.shape == (3, prompt.length) == (3, len(ids))
    assert [int((ids == i).sum()) for i in (IDS.audio, IDS.image, IDS.video)] == [59 + 125, 12, 40]
    assert [id(m) for m in prompt.audio] == [id(mel), id(sound)]  # in order of appearance
    assert prompt.images == [(picture, (1, 6, 8))]
    assert [(grid, seconds) for _, grid, seconds in prompt.videos] == [
        ((5, 4, 4), 1.0),
        ((5, 4, 4), 0.5),
    ]
    assert prompt.next_position == int(prompt.positions.max()) + 1 == prompt.length + prompt.delta
    before = prompt.length
    builder.text("more")
    assert prompt.length == before  # a prompt is not changed by writing on


def test_a_sound_begins_before_its_video_ends(tokenizer: Tokenizer) -> None:
    builder = PromptBuilder(tokenizer, CONFIG)
    builder.video(torch.empty(0), (5, 2, 2), 1.0, mel=torch.empty(128, 500))
    assert builder.prompt().token_ids.tolist() == [
        IDS.vision_bos, IDS.audio_bos,
        *[IDS.video] * 2, *[IDS.audio] * 50, *[IDS.video] * 2, *[IDS.audio] * 50, *[IDS.video], *[IDS.audio] * 25,
        IDS.audio_eos, IDS.vision_eos,
    ]  # fmt: skip


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_a_sound_too_short_for_a_token(tokenizer: Tokenizer, frames: int) -> None:
    builder = PromptBuilder(tokenizer, CONFIG)
    with pytest.raises(
        InputError, match=rf"click\.wav: {frames} frames of 10 ms, expected at least 3"
    ):
        builder.audio(torch.zeros(128, frames), name="click.wav")
    builder.video(torch.empty(0), (1, 2, 2), 1.0, mel=torch.zeros(128, frames))
    prompt = builder.prompt()  # as a video's sound it is none
    assert (prompt.length, len(prompt.audio)) == (3, 0)


def test_a_prompt_over_the_context(tokenizer: Tokenizer) -> None:
    text = replace(CONFIG.thinker.text, max_positions=100)
    config = replace(CONFIG, thinker=replace(CONFIG.thinker, text=text))
    builder = PromptBuilder(tokenizer, config)
    builder.audio(torch.zeros(128, 360))
    with pytest.raises(
        InputError, match=r"big\.png: the prompt has 102 tokens with it, 10 of them its own, expected at most 100"
    ):  # fmt: skip
        builder.image(torch.empty(0), (1, 4, 8), name="big.png")
    assert builder.prompt().length == 92
    builder.image(torch.empty(0), (1, 4, 6))
    assert builder.prompt().length == 100
    with pytest.raises(InputError, match="at most 100"):
        builder.mark("im_end")


def test_a_limit_below_the_context(tokenizer: Tokenizer) -> None:
    builder = PromptBuilder(tokenizer, CONFIG, max_tokens=10)
    with pytest.raises(InputError, match=f"has {audio_tokens(400) + 2} tokens.*at most 10"):
        builder.audio(torch.zeros(128, 400))
    with pytest.raises(InputError, match="at most 32768"):
        PromptBuilder(tokenizer, CONFIG, max_tokens=10**9).text("a " * 40_000)


# --------------------------------------------------------------------------------------------------------------- media


def tone(seconds: float, rate: int = 16_000) -> np.ndarray:
    return (0.3 * np.sin(np.arange(round(seconds * rate)) * 0.1)).astype(np.float32)


def counts(prompt: Prompt) -> list[int]:
    return [int((prompt.token_ids == i).sum()) for i in (IDS.audio, IDS.image, IDS.video)]


def build(tokenizer: Tokenizer, *parts: dict, **options) -> Prompt:
    return build_prompt(user(*parts), tokenizer=tokenizer, config=CONFIG, speech=False, **options)


def test_sounds_and_pictures_are_decoded(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new("RGB", (140, 112), (200, 30, 30)).save(path)
    prompt = build(
        tokenizer,
        {"type": "audio", "audio": (tone(2.0, 48_000), 48_000)},
        {"type": "image", "image": path},
        {"type": "image", "image": Image.new("RGB", (56, 84))},
        {"type": "audio", "audio": tone(0.1)},
    )
    assert counts(prompt) == [50 + 2, 5 * 4 + 2 * 3, 0]
    assert [tuple(mel.shape) for mel in prompt.audio] == [(128, 200), (128, 10)]
    assert [(tuple(p.shape), grid) for p, grid in prompt.images] == [
        ((80, 1176), (1, 8, 10)),
        ((24, 1176), (1, 6, 4)),
    ]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "audio", "audio": "/nowhere/a.wav"}, "/nowhere/a.wav: no such file"),
        ({"type": "image", "image": b"no picture"}, r"messages\[0\]\.content\[0\] \(10 bytes\): "),
        ({"type": "audio", "audio": np.zeros(3, np.float32)}, "3 samples"),
        ({"type": "audio", "audio": "http://example.org/a.wav"}, "example.org/a.wav: fetching"),
        ({"type": "video", "video": b"no video"}, r"\(8 bytes\): "),
        ({"type": "image", "image": None}, "NoneType.*: "),
        ({"type": "video", "video": 3}, "int.*: "),
        ({"type": "audio", "audio": ["a"]}, "list.*: "),
    ],
)
def test_media_that_are_none(tokenizer: Tokenizer, part: dict, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as error:
        build(tokenizer, part)
    assert "\n" not in str(error.value)


def test_a_video_in_memory_is_sampled_and_silent(tokenizer: Tokenizer) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (100, 28, 56, 3), np.uint8)
    prompt = build(tokenizer, {"type": "video", "video": (frames, 25.0)})
    ((patches, grid, seconds),) = prompt.videos
    assert grid[0] == 4  # 4 s, 2 frames a second, 2 frames a grid
    assert seconds == 1.0
    assert patches.shape == (grid[0] * grid[1] * grid[2], 1176)
    assert counts(prompt) == [0, 0, len(patches) // 4]


@pytest.mark.parametrize("in_message", [None, True, False])
@pytest.mark.parametrize("for_all", [None, True, False])
def test_who_decides_whether_a_video_is_heard(
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    in_message: bool | None,
    for_all: bool | None,
) -> None:
    """The message, else the caller, else yes; and a video without a sound track is silent all the same."""

    def load(source: str, *, want_audio: bool, **_: object) -> Video:
        sound = tone(3.0) if want_audio and source == "sounding" else None
        return Video(np.zeros((6, 28, 28, 3), np.uint8), 2.0, 3.0, sound)

    monkeypatch.setattr(prompt_module, "load_video", load)
    heard = in_message if in_message is not None else for_all is not False
    for source, tokens in (("sounding", 75 if heard else 0), ("silent", 0)):
        part = {"type": "video", "video": source}
        if in_message is not None:
            part["use_audio"] = in_message
        prompt = build(tokenizer, part, use_audio_in_video=for_all)
        assert counts(prompt) == [tokens, 0, 3]
        assert len(prompt.audio) == (tokens > 0)


def test_an_example_of_everything(tokenizer: Tokenizer) -> None:
    """The shipped files: a question, a picture, a clip with sound."""
    prompt = build(
        tokenizer,
        {"type": "audio", "audio": EXAMPLES / "question.wav"},
        {"type": "image", "image": EXAMPLES / "picture.png"},
        {"type": "video", "video": EXAMPLES / "clip.mp4"},
        {"type": "text", "text": "What is this?"},
    )
    assert [len(prompt.audio), len(prompt.images), len(prompt.videos)] == [2, 1, 1]
    merged = CONFIG.thinker.vision.merge**2
    assert counts(prompt) == [
        sum(audio_tokens(mel.shape[1]) for mel in prompt.audio),
        len(prompt.images[0][0]) // merged,
        len(prompt.videos[0][0]) // merged,
    ]
    assert prompt.positions.shape == (3, prompt.length)
    assert "What is this?" in tokenizer.decode(prompt.token_ids)
