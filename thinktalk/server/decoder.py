"""Decoder: the process in which hostile files are opened. nursery.py starts it.

    b"S" number, a socket -> a child is forked for one medium      b"K" number -> that child is killed      end -> all end

The parent imports the libraries once and never looks at a file. A child reads one medium from its socket, confines itself
(memory, processor time, a clock, no new file or socket), decodes, writes plain numbers and ends: so no file meets another
client's data, and nothing that a broken decoder leaves behind lives on. What comes back is JSON and raw arrays, never a pickle.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import math
import os
import pickle
import re
import resource
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from thinktalk.config import VisualConfig
from thinktalk.errors import InputError
from thinktalk.media.audio import load_audio
from thinktalk.media.image import load_image
from thinktalk.media.video import Video, load_video
from thinktalk.server.decoding import decode
from thinktalk.server.guard import LENGTH, Job
from thinktalk.server.nursery import ORDER

__all__ = ["main", "pack"]

AT = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")  # where something lies in memory is nobody's business
SOCKET = 3  # the child's one open file beside the null device


def main() -> int:
    """Fork children until the socket ends."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for ignored in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # they are for the server, which may drain first
        signal.signal(ignored, signal.SIG_IGN)
    _warm()
    gc.freeze()  # what is here now is shared with all children
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    with contextlib.suppress(
        BrokenPipeError
    ):  # we were not waited for; the loop below finds the end
        control.sendall(b"+")
    children: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                woken.recv(4096)
            _bury(children)
        if control in ready:
            try:
                order, given, _, _ = socket.recv_fds(control, ORDER.size, 1)
            except ConnectionResetError:  # the server was killed before it had read our "+"
                break
            if len(order) < ORDER.size:
                break
            what, number = ORDER.unpack(order)
            if what == b"S":
                pid = os.fork()
                if pid == 0:
                    _child(given[0])
                children[number] = pid
            elif number in children:  # not buried yet: the number is still that child's
                os.kill(children[number], signal.SIGKILL)
            for number_of_file in given:
                os.close(number_of_file)
    signal.set_wakeup_fd(-1)
    for pid in children.values():
        os.kill(pid, signal.SIGKILL)
    return 0


def _warm() -> None:
    """Use every library once: a child cannot open the file of a module that it lacks."""
    Image.init()
    with contextlib.suppress(ImportError):
        import pi_heif  # noqa: F401
    for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        file = io.BytesIO()
        Image.new("RGB", (32, 32)).save(file, name)
        load_image(file.getvalue())
    pcm = np.zeros(4000, np.float32)
    load_audio((pcm, 8000))  # soundfile, and the resampler
    file = io.BytesIO()
    with av.open(file, "w", "matroska") as container:
        video = container.add_stream("mpeg4", 10, width=32, height=32, pix_fmt="yuv420p")
        sound = container.add_stream("pcm_s16le", 16_000, layout="mono")
        for packet in video.encode(av.VideoFrame(32, 32, "yuv420p")):
            container.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), "s16", "mono")
        frame.rate = 16_000
        for packet in [*sound.encode(frame), *sound.encode(None), *video.encode(None)]:
            container.mux(packet)
    load_video(file.getvalue(), visual=VisualConfig())


def _bury(children: dict[int, int]) -> None:
    for number, pid in list(children.items()):
        if os.waitpid(pid, os.WNOHANG)[0]:
            del children[number]


# ----------------------------------------------------------------------------------------------------------- the child


def _child(number_of_file: int) -> None:
    """Decode one medium; never returns."""
    try:
        signal.set_wakeup_fd(-1)
        for name in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_DFL)
        _keep_only(number_of_file)
        pipe = socket.socket(fileno=SOCKET)
        job: Job = pickle.loads(_read(pipe, LENGTH.unpack(_read(pipe, LENGTH.size))[0]))
        data = bytes(_read(pipe, job.size))
        _confine(job.seconds, job.mib)
        arrays: list[memoryview] = []
        try:
            head, arrays = pack(decode(job.kind, data, job.limits, name=job.name))
        except InputError as error:
            head = {"error": AT.sub("the file", " ".join(str(error).split()))}
        except Exception as error:  # no decoder's message is worth a look
            head = {"error": f"{job.name}: cannot be decoded ({type(error).__name__})"}
        text = json.dumps(head).encode()
        for part in (LENGTH.pack(len(text)), text, *arrays):
            pipe.sendall(part)
    finally:
        os._exit(0)  # whatever happened: nothing of the parent's may run here


def _keep_only(number_of_file: int) -> None:
    """One socket, and the null device where standard streams were."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(number_of_file, SOCKET)
    for stream in range(3):
        os.dup2(null, stream)
    os.closerange(SOCKET + 1, os.sysconf("SC_OPEN_MAX"))


def _confine(seconds: float, mib: int) -> None:
    """From here on the kernel ends this process when it takes too much. Nothing can be opened any more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    signal.setitimer(signal.ITIMER_REAL, seconds)  # its signal, not handled, is the end
    whole = math.ceil(seconds) + 1
    for what, most in (
        (resource.RLIMIT_CPU, 2 * whole),  # several threads may decode a video
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, SOCKET + 1),
    ):
        resource.setrlimit(what, (most, most))
    if sys.platform == "linux":  # elsewhere the address space has no limit that holds
        most = pages * resource.getpagesize() + (mib << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def pack(result: Any) -> tuple[dict[str, Any], list[memoryview]]:
    """What decode gives as JSON and the arrays that follow it."""
    more: dict[str, Any] = {}
    match result:
        case Video():
            arrays = [result.frames] + ([] if result.audio is None else [result.audio])
            more = {"fps": result.fps, "seconds": result.seconds}
        case Image.Image():
            arrays = [np.asarray(result)]
        case pcm, _:
            arrays = [pcm]
    arrays = [np.ascontiguousarray(array) for array in arrays]
    described = [{"dtype": array.dtype.name, "shape": array.shape} for array in arrays]
    return {"arrays": described} | more, [memoryview(a).cast("B") for a in arrays if a.size]


def _read(pipe: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while len(view):
        step = pipe.recv_into(view)
        if not step:
            raise EOFError
        view = view[step:]
    return data
