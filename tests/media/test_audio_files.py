"""load_audio and write_wav: every format, every kind of source, every way of being no sound."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import torch
from media_files import (
    SOUND_FORMATS,
    noise_picture,
    picture_bytes,
    pitch,
    sound_file,
    tone,
    video_file,
)

from thinktalk.errors import InputError
from thinktalk.media import container
from thinktalk.media.audio import WaveWriter, load_audio, write_wav


def wav(samples: np.ndarray, rate: int = 16_000, subtype: str = "FLOAT") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize(("fmt", "codec"), SOUND_FORMATS)
def test_every_format_decodes_to_the_same_tone(fmt, codec):
    pcm = load_audio(sound_file(fmt, codec))
    assert pcm.dtype == np.float32
    assert pcm.ndim == 1
    assert (
        abs(len(pcm) - 16_000) <= 512
    )  # a codec may append up to a frame of 1024 samples at 48 kHz
    assert abs(pitch(pcm[2000:14000], 16_000) - 440) < 0.5
    # lossy coding and channel means leave a tone of amplitude 0.5 within 10 %
    assert abs(np.abs(pcm[2000:14000]).max() - 0.5) < 0.05


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_become_their_mean(channels):
    parts = np.stack([(c + 1) / 10 * tone(0.2, 16_000) for c in range(channels)], 1)
    pcm = load_audio(wav(parts))
    assert np.abs(pcm - parts.mean(1)).max() < 1e-6  # float32 mean in another order


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 96_000])
def test_any_rate_becomes_the_wanted_one(rate):
    pcm = load_audio((tone(0.5, rate), rate))
    assert abs(len(pcm) - 8000) <= 1
    assert abs(pitch(pcm[800:7200], 16_000) - 440) < 0.5
    assert abs(len(load_audio((tone(0.5, rate), rate), sample_rate=24_000)) - 12_000) <= 1


def test_resampling_in_blocks_is_resampling_at_once():
    import soxr

    x = np.random.default_rng(0).standard_normal(3_000_000).astype(np.float32) * 0.1
    # both run the same filter; blocks only change where float32 sums are cut
    assert np.abs(load_audio((x, 48_000)) - soxr.resample(x, 48_000, 16_000)).max() < 1e-5


def test_sources_of_every_kind(tmp_path):
    data = wav(tone(0.1, 16_000))
    path = tmp_path / "tone.wav"
    path.write_bytes(data)
    want = tone(0.1, 16_000)
    with path.open("rb") as file:
        sources = [
            path, str(path), data, bytearray(data), file, io.BytesIO(data), want, torch.from_numpy(want),
            (want, 16_000), (torch.from_numpy(want), 16_000), (want[:, None], 16_000),
            (np.stack([want, want]), 16_000), (want.astype(np.float64), 16_000),
        ]  # fmt: skip
        for source in sources:
            assert np.abs(load_audio(source) - want).max() < 1e-6, type(source)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, np.int8])
def test_integers_are_scaled_by_their_type(dtype):
    info = np.iinfo(dtype)
    middle = 0 if info.min else 128
    x = (tone(0.1, 16_000) * (info.max - middle) + middle).astype(dtype)
    # one step of an 8-bit sample is 1 / 128
    assert np.abs(load_audio((x, 16_000)) - tone(0.1, 16_000)).max() < 1.6 / 128


def test_the_name_does_not_matter(tmp_path):
    path = tmp_path / "really_a_webm.wav"
    path.write_bytes(sound_file("webm", "libopus"))
    assert abs(pitch(load_audio(path)[2000:14000], 16_000) - 440) < 0.5


def test_a_hole_in_the_time_stamps_is_silence():
    """A recorder that was muted leaves a hole; closing it would shift all that follows against the picture."""
    whole = sound_file("matroska", "flac", seconds=1.0)
    buffer = io.BytesIO()
    import av

    with av.open(io.BytesIO(whole)) as source, av.open(buffer, "w", format="matroska") as out:
        stream = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            at_s = float((packet.pts or 0) * packet.time_base)
            if packet.size and not 0.3 < at_s < 0.7:
                packet.stream = stream
                out.mux(packet)
    pcm = load_audio(buffer.getvalue())
    assert abs(len(pcm) - 16_000) < 500
    assert np.abs(pcm[7000:10_000]).max() < 1e-3
    assert np.abs(pcm[13_000:15_000]).max() > 0.4


BAD = {
    "nothing": b"",
    "text": b"This is not sound at all, it is a sentence.\n" * 20,
    "zeros": bytes(5000),
    "picture": picture_bytes(noise_picture(30, 30), "PNG"),
    "playlist": b"#EXTM3U\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile /etc/hostname\n",
    "silent video": video_file("mp4", "libx264", None, frames=5),
    "no samples": wav(np.zeros(0, np.float32)),
    "one sample": wav(np.zeros(1, np.float32)),
    "three samples": wav(np.zeros(3, np.float32)),
    "20 ms": wav(np.zeros(320, np.float32)),
    "nan": wav(np.full(1000, np.nan, np.float32)),
    "infinite": wav(np.full(1000, np.inf, np.float32)),
    "both infinities": wav(np.tile(np.array([[np.inf, -np.inf]], np.float32), (1000, 1))),
    "too loud": wav(np.full(1000, 1e30, np.float32)),
    "rate 1 Hz": wav(np.zeros(1000, np.float32), rate=1),
    "header only": wav(tone(1, 16_000))[:44],
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_sound_is_one_line(name, tmp_path, capfd):
    path = tmp_path / f"{name}.wav"
    path.write_bytes(BAD[name])
    with pytest.raises(InputError) as caught:
        load_audio(path)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{name}.wav: " in message
    assert capfd.readouterr().err == ""  # the libraries below said nothing either


CUT = [f for f in SOUND_FORMATS if f[0] not in ("adts", "aiff")]  # these two declare no length


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.8])
@pytest.mark.parametrize(("fmt", "codec"), CUT)
def test_a_truncated_file_is_refused(fmt, codec, kept):
    data = sound_file(fmt, codec)
    load_audio(data)
    with pytest.raises(InputError):
        load_audio(data[: int(len(data) * kept)])


def test_a_stream_of_unknown_length_is_no_truncated_file():
    """Programs that write wav to a pipe leave the sizes open; such files are whole."""
    data = bytearray(wav(tone(0.1, 16_000), subtype="PCM_16"))
    for size in (0xFFFF_FFFF, 0x7FFF_FFFF):
        at = data.index(b"data") + 4
        data[at : at + 4] = size.to_bytes(4, "little")
        assert len(load_audio(bytes(data))) == 1600


@pytest.mark.parametrize(
    "source",
    [
        (np.zeros(1000), 16_000.5), (np.zeros(1000), "fast"), (np.zeros(1000), -5), (np.zeros(1000), None),
        (np.zeros(1000),), (np.zeros((2, 3, 4)), 16_000), (np.array(["a"]), 16_000), (None, 16_000),
        (np.full(1000, np.nan), 16_000), (np.zeros(0), 16_000), (np.zeros((0, 2)), 16_000), (np.zeros(3), 16_000),
        (np.full(1000, 1e300), 16_000), (np.zeros((1000, 0)), 16_000), (np.full(1000, 12_000.0), 16_000),
        (np.zeros(1000, np.complex64), 16_000), 17, None, ["a"], pytest.param(object(), id="object"), "", "\0", "x" * 5000,
    ],
    ids=lambda s: str(s)[:30].replace("\0", "0"),
)  # fmt: skip
def test_bad_arrays_and_strangers(source):
    with pytest.raises(InputError) as caught:
        load_audio(source)
    assert "\n" not in str(caught.value)


def test_places_that_cannot_be_read(tmp_path):
    for path, word in ((tmp_path / "gone.wav", "no such file"), (tmp_path, "directory")):
        with pytest.raises(InputError, match=word):
            load_audio(path)
    with pytest.raises(InputError, match="regular file"):
        load_audio("/dev/zero")


def test_too_long_is_refused_before_it_is_decoded_whole():
    with pytest.raises(InputError, match="longer than 1 s"):
        load_audio((np.zeros(10**8, np.int8), 48_000), max_seconds=1)


def test_a_leap_in_the_time_stamps_does_not_fill_memory(monkeypatch):
    """A hostile time stamp years ahead asks for years of silence; the limit on length stops it."""
    sink = container.SoundSink(16_000, 16_000, 2.0, "x")
    with pytest.raises(InputError, match="longer than 2 s"):
        sink.silence(1e9)


# ------------------------------------------------------------------------------------------------------------- writing


def test_wav_round_trip(tmp_path):
    x = tone(0.3, 24_000)
    write_wav(tmp_path / "a.wav", torch.from_numpy(x), 24_000)
    back, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert rate == 24_000
    assert np.abs(back - x).max() <= 1 / 32_000  # one step of 16 bits
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_loud_sound_is_clipped_not_wrapped(tmp_path):
    write_wav(tmp_path / "a.wav", np.array([2.0, -2.0], np.float32), 24_000)
    assert soundfile.read(tmp_path / "a.wav")[0].round(2).tolist() == [1.0, -1.0]


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")

    write = soundfile.SoundFile.write

    def fails(self, data):
        write(self, data[: len(data) // 2])
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(soundfile.SoundFile, "write", fails)
        with pytest.raises(InputError, match="disk full"):
            write_wav(path, np.zeros(10, np.float32), 24_000)

    def interrupted():
        with WaveWriter(path, 24_000) as wave:
            wave.write(np.zeros(10, np.float32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_pieces_make_the_same_file_as_the_whole(tmp_path):
    samples = np.sin(np.arange(1000) * 0.1).astype(np.float32)
    write_wav(tmp_path / "whole.wav", samples, 24_000)
    with WaveWriter(tmp_path / "pieces.wav", 24_000) as wave:
        for piece in np.split(samples, [0, 3, 500]):
            wave.write(piece)
        assert not (tmp_path / "pieces.wav").exists()
    assert (tmp_path / "pieces.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()


def test_places_that_cannot_be_written(tmp_path):
    for path in (tmp_path / "no" / "a.wav", tmp_path):
        with pytest.raises(InputError, match="cannot be written"):
            write_wav(path, np.zeros(10, np.float32), 24_000)
