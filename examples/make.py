"""Makes the example files: picture.png is drawn, clip.mp4 is drawn and given sound, worlds-00000.tar has a sample of every
kind of question that data/synth asks without packages (thinktalk data show examples/worlds-00000.tar). Run: python examples/make.py

The two recordings are speech made once and kept, since their synthesiser is not among our dependencies:
    question.wav   "What can you see in this picture, and what do you hear?"     voice af_heart
    narration.ogg  "The red ball goes up, and the red ball comes down."          voice am_michael
by Kokoro-82M (Apache-2.0, onnx) with phonemes from espeak-ng, resampled to 16 kHz. Nobody's recorded voice is in them.
"""

from __future__ import annotations

import json
import math
import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

from thinktalk.data.shards import ShardWriter
from thinktalk.data.synth import omni, pictures, sounds, text, videos
from thinktalk.data.synth.world import record_of
from thinktalk.media.audio import load_audio

HERE = Path(__file__).parent
SECONDS, FPS, RATE = 6, 15, 16_000
WIDTH, HEIGHT, BALL = 320, 240, 26


def main() -> None:
    """Write picture.png and clip.mp4 beside this file."""
    scene(640, 448, ball=(320, 210)).save(HERE / "picture.png", optimize=True)
    write_clip(HERE / "clip.mp4", soundtrack())
    write_worlds(HERE / "worlds")
    for path in sorted(HERE.iterdir()):
        print(f"{path.name:<16}{path.stat().st_size:>9} bytes")


def write_worlds(prefix: Path) -> None:
    """One sample of most skills of five worlds, from seed 1."""
    for old in prefix.parent.glob(f"{prefix.name}-*.tar"):
        old.unlink()
    draw = random.Random(1)
    with ShardWriter(prefix) as shard:
        for world in (text, pictures, sounds, videos, omni):
            for skill in list(dict.fromkeys(world.SKILLS))[:5]:
                item = skill(draw)
                record = json.dumps(record_of(item, "train", draw)).encode()
                shard.write(f"{item.skill}-{shard.samples:02d}", {"json": record, **item.media()})


def scene(width: int, height: int, ball: tuple[float, float]) -> Image.Image:
    """A house, a tree, the sun, and a red ball somewhere; drawn at 4x and reduced for smooth edges."""
    zoom, unit = 4, height / 448
    picture = Image.new("RGB", (width * zoom, height * zoom), (150, 205, 240))
    draw = ImageDraw.Draw(picture)

    def box(*xy: float) -> list[float]:
        return [v * unit * zoom for v in xy]

    right = width / unit
    draw.rectangle(box(0, 320, right, 448), fill=(96, 168, 84))
    draw.ellipse(box(right - 130, 30, right - 50, 110), fill=(250, 210, 60))
    draw.rectangle(box(70, 210, 230, 340), fill=(222, 184, 135))
    draw.polygon(box(50, 210, 150, 130, 250, 210), fill=(150, 60, 50))
    draw.rectangle(box(130, 270, 170, 340), fill=(90, 60, 40))
    draw.rectangle(box(right - 200, 240, right - 176, 340), fill=(110, 75, 45))
    draw.ellipse(box(right - 250, 140, right - 126, 264), fill=(50, 120, 60))
    x, y = ball
    draw.ellipse([v * zoom for v in (x - BALL, y - BALL, x + BALL, y + BALL)], fill=(215, 35, 40))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def height_at(t: float) -> float:
    """Height of the ball, 0..1: a bounce every 1.5 s."""
    phase = (t % 1.5) / 1.5
    return 4 * phase * (1 - phase)


def soundtrack() -> np.ndarray:
    """The narration, and a thump whenever the ball touches the ground."""
    sound = np.zeros(SECONDS * RATE, np.float32)
    voice = load_audio(HERE / "narration.ogg", sample_rate=RATE)[: len(sound) - RATE // 2]
    sound[RATE // 2 : RATE // 2 + len(voice)] += 0.8 * voice
    t = np.arange(RATE // 5) / RATE
    thump = 0.5 * np.exp(-t * 25) * np.sin(2 * math.pi * 110 * t)
    for start in np.arange(0, SECONDS, 1.5):
        at = round(start * RATE)
        sound[at : at + len(thump)] += thump
    return np.clip(sound, -1, 1)


def write_clip(path: Path, sound: np.ndarray) -> None:
    """H.264 and AAC in mp4, the index in front so that players can start at once."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "26", "preset": "slow"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        audio.bit_rate = 48_000
        for i in range(SECONDS * FPS):
            y = HEIGHT * 0.82 - BALL - height_at(i / FPS) * HEIGHT * 0.6
            frame = av.VideoFrame.from_image(scene(WIDTH, HEIGHT, ball=(WIDTH / 2, y)))
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start in range(0, len(sound), 1024):
            block = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], "fltp", "mono")
            block.sample_rate, block.pts, block.time_base = RATE, start, Fraction(1, RATE)
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))


if __name__ == "__main__":
    main()
