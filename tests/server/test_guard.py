"""The guard: what comes out is what decoding here gives; files that hang, crash, swell or pry cost their sender an error only."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import struct
import threading
import time
import wave
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from thinktalk.config import VisualConfig
from thinktalk.errors import InputError
from thinktalk.media.video import Video
from thinktalk.server import guard as guarding
from thinktalk.server import nursery as nurseries
from thinktalk.server.decoder import pack
from thinktalk.server.decoding import Limits, decode
from thinktalk.server.guard import LENGTH, Died, ProcessGuard, _Exchange
from thinktalk.server.nursery import Nursery, _bare, nursery

EXAMPLES = Path(__file__).parents[2] / "examples"
LIMITS = Limits(1 << 22, 1_000_000, 1 << 22, 20.0, 1 << 22, 20.0, 1_000_000, VisualConfig(), 28)
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def run(main, *, seconds: float = 30.0, mib: int = 1024, workers: int = 2):
    """Run `await main(guard)`."""

    async def whole():
        guard = ProcessGuard(LIMITS, workers=workers, seconds=seconds, mib=mib)
        await guard.start()
        try:
            return await asyncio.wait_for(main(guard), 200)
        finally:
            await guard.close()

    return asyncio.run(whole())


def one(kind: str, data: bytes, **limits):
    return run(lambda guard: guard.decode(kind, data, name="messages[0]"), **limits)


def picture(kind: str, **options) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(file, kind, **options)
    return file.getvalue()


def children() -> list[psutil.Process]:
    process = nursery().process
    return psutil.Process(process.pid).children() if process else []


def gone() -> bool:
    """Whether no decoder is left, soon."""
    until = time.monotonic() + 20
    while children() and time.monotonic() < until:
        time.sleep(0.02)
    return not children()


# ------------------------------------------------------------------------------------------------------------ the same


def test_what_comes_out_is_what_decoding_here_gives():
    files = [("image", picture(k)) for k in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")]
    files.append(("image", (EXAMPLES.parent / "tests/media/corner.heic").read_bytes()))
    files.append(("audio", (EXAMPLES / "question.wav").read_bytes()))
    files.append(("video", (EXAMPLES / "clip.mp4").read_bytes()))
    files.append(("video", picture("GIF", save_all=True, append_images=[Image.new("RGB", (60, 40))], duration=500)))  # fmt: skip

    async def main(guard: ProcessGuard):
        return await asyncio.gather(*[guard.decode(kind, data) for kind, data in files])

    for (kind, data), result in zip(files, run(main), strict=True):
        here = decode(kind, data, LIMITS)
        if kind == "image":
            assert isinstance(result, Image.Image) and result.mode == "RGB"
            assert np.array_equal(np.asarray(result), np.asarray(here))
        elif kind == "audio":
            assert np.array_equal(result[0], here[0]) and result[1] == 16_000
        else:
            assert isinstance(result, Video) and np.array_equal(result.frames, here.frames)
            assert (result.fps, result.seconds) == (here.fps, here.seconds)
            assert (result.audio is None) == (here.audio is None)
            assert result.audio is None or np.array_equal(result.audio, here.audio)
    assert gone()


def test_what_is_wrong_with_a_file_is_told_in_its_own_words():
    with pytest.raises(InputError, match=r"messages\[0\]: cannot be decoded") as told:
        one("image", b"\x00junk" * 100)
    assert "0x" not in str(told.value)  # nothing of how our memory lies


# --------------------------------------------------------------------------------------------------------------- hostile


def chunk(name: bytes, data: bytes) -> bytes:
    import zlib

    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, body: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_a_picture_that_would_unfold_is_not_unfolded():
    with pytest.raises(InputError, match="pixels"):
        one("image", png(30_000, 30_000, b""))


def test_text_that_unfolds_inside_a_picture_is_stopped():
    import zlib

    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * (200 << 20), 9))
    good = png(4, 4, zlib.compress(b"\0" * 13 * 4))
    with pytest.raises(InputError):
        one("image", good[:33] + bomb + good[33:])


def wav(seconds: float, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1), out.setsampwidth(1), out.setframerate(rate)
        out.writeframes(bytes(int(seconds * rate)))
    return file.getvalue()


def test_sound_that_is_too_long():
    with pytest.raises(InputError, match="longer than 20 s"):
        one("audio", wav(30))
    with pytest.raises(InputError, match="bytes, expected at most"):
        one("audio", bytes((1 << 22) + 1))


PLAYLISTS = {
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
    "hls over http": b"#EXTM3U\n#EXTINF:5,\nhttp://127.0.0.1:%d/x.ts\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile '/etc/hostname'\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video %d RTP/AVP 96\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/hostname"/></svg>',
    "postscript": b"%!PS\n(/etc/hostname) (r) file\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_files_that_name_other_files_open_none(name: str):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        data = PLAYLISTS[name]
        data = data % listening.getsockname()[1] if b"%d" in data else data

        async def main(guard: ProcessGuard):
            for kind in ("video", "audio", "image"):
                with pytest.raises(InputError):
                    await guard.decode(kind, data)

        run(main)
        listening.settimeout(0.01)
        with pytest.raises(TimeoutError):
            listening.accept()


def planted(monkeypatch: pytest.MonkeyPatch, tmp_path, body: str) -> Nursery:
    """Decoders into which a fault was planted: `body` runs in place of decoding. Another parent of children, for this test."""
    start = f"""
import sys
from thinktalk.server import decoder
def decode(kind, data, limits, *, name):
{body}
decoder.decode = decode
decoder._warm = lambda: None
sys.exit(decoder.main())
"""
    other = Nursery()
    monkeypatch.setattr(nurseries, "START", start)
    monkeypatch.setattr(guarding, "nursery", lambda: other)
    return other


FAULTS = """
    import os, socket, time, ctypes, numpy as np
    what = data.decode()
    if what == "hang":
        time.sleep(1000)
    if what == "spin":
        while True: pass
    if what == "swell":
        kept = bytearray(600 << 20)
    if what == "crash":
        ctypes.string_at(0)
    if what == "exit":
        os._exit(0)
    if what == "open":
        open("/etc/hostname")
    if what == "connect":
        socket.socket()
    if what == "write":
        os.write(3, b"x" * 100)
        os._exit(0)
    return np.ones(4, np.float32), 16_000
"""


def test_decoders_that_hang_crash_or_pry(monkeypatch: pytest.MonkeyPatch, tmp_path):
    parent = planted(monkeypatch, tmp_path, FAULTS)
    expected = {
        "hang": "took longer than 2 s", "spin": "took longer than 2 s", "swell": "MemoryError", "crash": "ended without a result",
        "exit": "ended without a result", "open": "OSError", "connect": "OSError", "write": "ended without a result",
    }  # fmt: skip

    async def main(guard: ProcessGuard):
        for what, reason in expected.items():
            with pytest.raises(InputError, match=reason):
                await guard.decode("audio", what.encode())
            pcm, _ = await guard.decode("audio", b"fine")  # and the next one is served
            assert len(pcm) == 4
        # decoding needs no torch: it would be a second and 200 MB for each server
        assert "libtorch" not in Path(f"/proc/{parent.process.pid}/maps").read_text()
        # who is killed while idle is replaced
        os.kill(parent.process.pid, signal.SIGKILL)
        parent.process.wait()
        assert len((await guard.decode("audio", b"fine"))[0]) == 4
        # who does not want it any more leaves no child behind
        task = asyncio.create_task(guard.decode("audio", b"hang"))
        await asyncio.sleep(0.3)
        family = psutil.Process(parent.process.pid)
        assert len(family.children()) == 1
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while family.children():
            assert time.monotonic() - began < 1.5  # before its clock would have ended it
            await asyncio.sleep(0.01)

    try:
        run(main, seconds=2.0, mib=512)
    finally:
        parent.close()


# ----------------------------------------------------------------------------------------- what comes back is not trusted


def answer(kind: str, reply: bytes):
    """What the guard makes of these bytes from a decoder that was taken over."""
    guard = ProcessGuard(LIMITS, workers=1, seconds=1.0, mib=64)
    exchange = _Exchange(guard, kind, b"", "x")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer = threading.Thread(target=lambda: (theirs.sendall(reply), theirs.shutdown(socket.SHUT_WR)))  # fmt: skip
        writer.start()
        try:
            until = time.monotonic() + 5
            return exchange._result(exchange._head(ours, until), ours, until)
        finally:
            writer.join()


def reply(head: object, body: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    return LENGTH.pack(len(text)) + text + body


def described(dtype: str, *shape) -> dict:
    return {"dtype": dtype, "shape": shape}


F2 = np.ones(2, np.float32).tobytes()
BAD = {
    "nothing": ("audio", b""),
    "a long head": ("audio", LENGTH.pack(1 << 40)),
    "a pickle": ("audio", LENGTH.pack(4) + b"\x80\x04N."),
    "no object": ("audio", reply([1])),
    "no arrays": ("audio", reply({"arrays": []})),
    "objects": ("audio", reply({"arrays": [described("object", 2)]}, F2 * 2)),
    "another type": ("audio", reply({"arrays": [described("float64", 1)]}, F2)),
    "another shape": ("audio", reply({"arrays": [described("float32", 1, 2)]}, F2)),
    "a negative shape": ("audio", reply({"arrays": [described("float32", -2)]}, F2)),
    "too much": ("audio", reply({"arrays": [described("float32", 1 << 38)]})),
    "too little": ("audio", reply({"arrays": [described("float32", 3)]}, F2)),
    "not finite": ("audio", reply({"arrays": [described("float32", 2)]}, np.float32([0, np.nan]).tobytes())),
    "two colours": ("image", reply({"arrays": [described("uint8", 1, 1, 2)]}, b"ab")),
    "no pixels": ("image", reply({"arrays": [described("uint8", 0, 5, 3)]})),
    "many pixels": ("image", reply({"arrays": [described("uint8", 1100, 1000, 3)]}, bytes(3_300_000))),
    "no clock": ("video", reply({"arrays": [described("uint8", 1, 1, 1, 3)]}, b"abc")),
    "a bad clock": ("video", reply({"arrays": [described("uint8", 1, 1, 1, 3)], "fps": "2", "seconds": 1}, b"abc")),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_decoder_that_was_taken_over_gets_nothing_through(name: str):
    with pytest.raises(Died):
        answer(*BAD[name])


def test_an_honest_decoder_does():
    """Else the test above would pass for a guard that refuses everything."""
    pcm, frames = np.ones(5, np.float32), np.zeros((2, 28, 28, 3), np.uint8)
    for kind, result in (("audio", (pcm, 16_000)), ("video", Video(frames, 2.0, 1.0, pcm)), ("image", Image.new("RGB", (4, 3)))):  # fmt: skip
        head, arrays = pack(result)
        got = answer(kind, reply(head, b"".join(arrays)))
        assert type(got) is type(result)


def test_secrets_do_not_reach_the_decoders():
    bare = _bare({"THINKTALK_API_KEYS": "a", "AWS_SECRET_ACCESS": "b", "HF_TOKEN": "c", "PATH": "d"})  # fmt: skip
    assert bare == {"PATH": "d"}
