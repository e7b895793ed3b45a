"""load_video: formats, true time stamps, turns, budgets, sound beside the picture, and every way of being no video."""

from __future__ import annotations

import io
import math

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from media_files import (
    VIDEO_FORMATS,
    animation,
    brightness_frame,
    noise_picture,
    number_of,
    picture_bytes,
    pitch,
    sound_file,
    turned,
    video_file,
)
from PIL import Image

from thinktalk.config import VisualConfig
from thinktalk.errors import InputError
from thinktalk.media import video as video_module
from thinktalk.media.video import choose_frames, load_video, video_size

VISUAL = VisualConfig(video_min_tokens=4, video_max_tokens=16)  # small frames keep the tests short
LOSSY = 4  # grey levels a codec may be off on flat frames; neighbours in these videos differ by 4 a frame


def load(source, **options):
    return load_video(source, visual=VISUAL, **options)


# ------------------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(("fmt", "codec", "sound"), VIDEO_FORMATS)
def test_every_format(fmt, codec, sound):
    video = load(video_file(fmt, codec, sound))
    assert video.frames.dtype == np.uint8
    assert video.frames.shape[0] == 4
    assert video.seconds == pytest.approx(2.0, abs=0.002)  # time stamps in ms
    assert video.fps == pytest.approx(2.0, abs=0.002)
    # frames 0, 16, 33, 49 of 50, each told by its grey
    found = [number_of(frame) for frame in video.frames]
    assert found == pytest.approx([20 + 4 * i for i in (0, 16, 33, 49)], abs=LOSSY)
    assert (video.audio is None) == (sound is None)
    if video.audio is not None:
        assert abs(len(video.audio) / 16_000 - 2.0) < 0.06
        assert abs(pitch(video.audio[4000:28000], 16_000) - 440) < 0.5


def test_colours_are_right():
    frame = load(video_file(sound=None)).frames[0]
    assert np.abs(frame[8:16, 8:16].mean((0, 1)) - (255, 0, 0)).max() < 12


def test_sound_only_when_wanted():
    assert load(video_file(), want_audio=False).audio is None


def test_sources_of_every_kind(tmp_path):
    data = video_file(sound=None)
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    frames = load(data).frames
    for source in (path, str(path), io.BytesIO(data)):
        assert np.array_equal(load(source).frames, frames)


def test_a_turned_phone_video_stands_upright():
    """The red corner of the file is top left; turned clockwise by 90 degrees it is top right."""
    data = video_file(sound=None)
    corners = {90: (0, -1), 180: (-1, -1), 270: (-1, 0)}
    for degrees, (y, x) in corners.items():
        frame = load(turned(data, degrees)).frames[0]
        assert (frame.shape[0] > frame.shape[1]) == (degrees != 180)
        picked = frame[8:16] if y == 0 else frame[-16:-8]
        picked = picked[:, 8:16] if x == 0 else picked[:, -16:-8]
        assert picked[..., 0].mean() > 200, degrees
        assert picked[..., 1].mean() < 60, degrees


# ---------------------------------------------------------------------------------------------------------------- time


def test_varying_frame_rate_is_sampled_by_true_time():
    """2 s at 2 frames/s, then 2 s at 20: taking every n-th frame would hear twice as much of the second half."""
    times = [0.0, 0.5, 1.0, 1.5, *np.arange(2.0, 4.0, 0.05).round(3)]
    video = load(video_file("matroska", "libx264", None, times_s=tuple(times)))
    assert video.seconds == pytest.approx(4.0, abs=0.01)
    assert len(video.frames) == 8
    shown = [max(i for i, t in enumerate(times) if t <= at + 1e-3) for at in np.linspace(0, times[-1], 8)]  # fmt: skip
    assert [number_of(f) for f in video.frames] == pytest.approx([20 + 4 * i for i in shown], abs=LOSSY)  # fmt: skip


def test_a_slide_stays_until_the_next_comes():
    """A screen recording with three pictures in 9 s: what is on the screen counts, not the nearest time stamp."""
    times = np.array([0.0, 8.0, 9.0, 10.0, 11.0])
    index, fps, seconds = choose_frames(times, VISUAL)
    assert (len(index), fps, seconds) == (24, 2.0, 12.0)
    targets = np.linspace(0, 11.0, 24)
    assert index.tolist() == [int((times <= t + 1e-6).sum()) - 1 for t in targets]
    assert (
        index == 0
    ).sum() == 17  # all that lie before 8 s, though frame 1 is nearer to many of them


def reference_choice(total: int, fps: float) -> tuple[list[int], float]:
    """qwen-omni-utils 0.0.9: smart_nframes, then linspace over the indices."""
    low = math.ceil(4 / 2) * 2
    high = math.floor(min(768, total) / 2) * 2
    n = min(min(max(total / fps * 2.0, low), high), total)
    n = math.floor(n / 2) * 2
    return torch.linspace(0, total - 1, n).round().long().tolist(), n / total * fps


@given(st.integers(2, 3000), st.sampled_from([1.0, 5.0, 12.0, 15.0, 24.0, 25.0, 30.0, 50.0, 60.0]))
def test_constant_rate_is_chosen_as_the_reference_does(total, fps):
    expected, rate = reference_choice(total, fps)
    index, ours, seconds = choose_frames(np.arange(total) / fps, VisualConfig())
    assert seconds == pytest.approx(total / fps)
    assert ours == pytest.approx(rate)
    # float32 linspace of the reference may fall on the other side of a half
    assert len(index) == len(expected)
    assert np.abs(index - np.array(expected)).max() <= 1
    assert (index != np.array(expected)).mean() <= 0.01 or len(index) < 100


def test_time_stamps_in_ms_lose_no_frames():
    index, _, seconds = choose_frames((np.arange(300) / 30).round(3), VisualConfig())
    assert len(index) == 20
    assert seconds == pytest.approx(10, abs=1e-3)


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (2, 2), (3, 2), (4, 4), (7, 4)])
def test_few_frames(count, expected):
    assert len(load(video_file(sound=None, frames=count)).frames) == expected


def test_long_videos_stop_at_the_largest_number():
    index, fps, _ = choose_frames(np.arange(100_000) / 25, VisualConfig())
    assert len(index) == 768
    assert fps == pytest.approx(768 / 4000)


# -------------------------------------------------------------------------------------------------------------- budget


def test_video_size_is_qwen_omni_utils():
    visual = VisualConfig()
    # 1080p: 768 tokens of 28 x 28 a pair until 115200 / n * 2 gets less, never below 128 x 1.05
    assert video_size(8, 1080, 1920, visual) == (560, 1008)
    assert video_size(768, 1080, 1920, visual) == (336, 644)
    assert video_size(8, 64, 64, visual) == (336, 336)
    for n in (4, 100, 300, 500, 768):
        h, w = video_size(n, 1080, 1920, visual)
        assert h * w / 784 * n / 2 <= 115_200 * 1.001
        assert h * w / 784 >= 128


# --------------------------------------------------------------------------------------------------------------- sound


def test_sound_that_starts_late_is_put_behind_silence():
    """Only so a word stays beside the picture that it belongs to."""
    video = load(video_file("matroska", "libx264", "flac", sound_start_s=0.8))
    assert video.audio is not None
    assert np.abs(video.audio[:12_000]).max() < 0.02
    assert np.abs(video.audio[14_000:20_000]).max() > 0.4
    assert abs(len(video.audio) / 16_000 - 2.0) < 0.06


# ------------------------------------------------------------------------------------------------ animations, in memory


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG", "AVIF"])
def test_animations_are_videos(fmt):
    video = load(animation(fmt, (1000, 1000, 500, 500)))
    assert video.seconds == pytest.approx(3.0, abs=0.01)
    assert len(video.frames) == 6
    found = [number_of(frame) for frame in video.frames]
    # on the screen at 0, 0.5, 1, 1.5, 2, 2.5 s
    assert found == pytest.approx([20, 20, 60, 60, 100, 140], abs=LOSSY)
    assert video.audio is None


def test_frames_in_memory_with_a_rate():
    frames = np.stack([brightness_frame(20 + 4 * i) for i in range(50)])
    video = load((frames, 25))
    assert [round(number_of(f)) for f in video.frames] == [20, 84, 152, 216]
    pictures = load(([Image.fromarray(f) for f in frames], 25))
    assert np.array_equal(pictures.frames, video.frames)
    assert np.array_equal(load((torch.from_numpy(frames), 25.0)).frames, video.frames)


def test_frames_in_memory_without_a_rate_are_all_taken():
    frames = [Image.fromarray(brightness_frame(20 * i)) for i in range(5)]
    video = load(frames)
    assert len(video.frames) == 5
    assert (video.fps, video.seconds) == (2.0, 2.5)
    assert video.seconds_per_grid() == 1.0


# ----------------------------------------------------------------------------------------------------------- bad input

BAD = {
    "nothing": b"",
    "text": b"not a video",
    "sound": sound_file("wav", "pcm_s16le", seconds=0.1),
    "sound in mp4": sound_file("mp4", "aac", seconds=0.1),
    "png": picture_bytes(noise_picture(40, 40), "PNG"),
    "jpeg": picture_bytes(noise_picture(40, 40), "JPEG"),
    "gif of one frame": picture_bytes(noise_picture(40, 40), "GIF"),
    "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile /etc/hostname\n",
    "half mp4": video_file()[:8000],
    "half webm": video_file("webm", "libvpx-vp9", "libopus")[:8000],
    "half gif": animation("GIF")[:200],
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_video_is_one_line(name, tmp_path, capfd):
    path = tmp_path / f"{name}.mp4"
    path.write_bytes(BAD[name])
    with pytest.raises(InputError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert f"{name}.mp4: " in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_video_without_frames():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        sound = container.add_stream("aac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 48_000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with pytest.raises(InputError):
        load(buffer.getvalue())


def test_limits(monkeypatch):
    data = video_file(sound=None)
    for name, value, word in (
        ("MAX_SECONDS", 1.0, "2 s long"), ("MAX_FRAMES", 10, "over 10 frames"), ("MAX_FRAME_PIXELS", 5000, "96 x 64"),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(video_module, name, value)
            with pytest.raises(InputError, match=word):
                load(data)
    monkeypatch.setattr(video_module, "MAX_SECONDS", 0.5)
    with pytest.raises(InputError, match="1 s long"):
        load(animation("GIF"))


def test_thin_frames_are_refused():
    with pytest.raises(InputError, match="aspect ratio"):
        load((np.zeros((4, 2, 500, 3), np.uint8), 25))


@pytest.mark.parametrize(
    "source",
    [
        [], (np.zeros((4, 28, 28, 3), np.uint8),), (np.zeros((4, 28, 28, 3), np.uint8), 0), ([1, 2], 3),
        (np.zeros((4, 28, 28, 3), np.uint8), "x"), np.zeros((4, 28, 28, 3), np.float32), np.zeros((4, 28, 28), np.uint8),
        (np.zeros((0, 28, 28, 3), np.uint8), 25), [np.zeros((28, 28), np.uint8)], 5, None, {"a": 1},
        [Image.new("RGB", (28, 28))] * 800, (np.zeros((4, 0, 28, 3), np.uint8), 5),
        (np.zeros((4, 28, 28, 3), np.uint8), float("nan")),
    ],
    ids=lambda s: str(s)[:20],
)  # fmt: skip
def test_bad_arrays_and_strangers(source):
    with pytest.raises(InputError) as caught:
        load(source)
    assert "\n" not in str(caught.value)


def test_memory_holds_the_chosen_frames_only():
    """While decoding no full-size pictures pile up: of 600 frames of 1.2 MB the peak stays far below the 700 MB of all."""
    import resource

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=50)
        stream.width, stream.height, stream.pix_fmt = 768, 512, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.full((512, 768, 3), 99, np.uint8), "rgb24")
        for i in range(600):
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    video = load(buffer.getvalue())
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert len(video.frames) == 24
    assert grown_mb < 150  # decoder threads and a few pictures
