"""Training: units a second of each stage through its recipe, against plain PyTorch loops and against the matmul limit.

    python benchmarks/training.py [--size nano] [--only k1_icl]... [--precision bf16] [--write docs/training_speed.md]

Each recipe starts from random weights and reads shards made here (sums of tones that are called speech; questions from a
seed). Batches are then kept in memory: the loop of the house and a plain one train on the same ones, in turns. On a CPU,
seconds are processor time of one thread, so that what else runs on the machine hardly counts.

    plain       the stage's own loss in ten lines: loss, backward, clip_grad_norm_, torch.optim.AdamW
    textbook    padded batches through torch.nn's own layers (benchmarks/plain.py), for hearing and for language
    MFU         products of the stage (torch's FlopCounterMode) a second, over the fastest product of this machine
    loading     time to read and make a batch with no worker, over the time to learn from it
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch starts its threads

import numpy as np
import plain  # this file's folder is on the path of a script
import soundfile
import torch
from page import put
from torch.utils.flop_counter import FlopCounterMode

from thinktalk.data.packing import Packed
from thinktalk.data.shards import ShardWriter
from thinktalk.data.synth import text
from thinktalk.data.synth.world import make_world
from thinktalk.eval.provenance import processor
from thinktalk.layers.linear import linear
from thinktalk.recipes.recipe import Recipe, change, find_recipe
from thinktalk.training.loop import Trainer
from thinktalk.training.parallel import World, join
from thinktalk.training.stage import Stage

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "and",
    "then",
    "it",
    "sleeps",
    "under",
    "old",
    "trees",
]


@dataclass(frozen=True)
class Row:
    """One stage."""

    stage: str
    unit: str
    ours: float  # units a second
    plain: float
    textbook: float | None
    gflop_per_unit: float
    mfu: float  # of the limit
    loading: float  # seconds to read over seconds to learn


STAGES: dict[str, tuple[str, str, list[str]]] = {
    # recipe, unit, settings
    "i1_ears": ("i1_ears", "audio-s", ["shards={speech}", "batch_seconds=30"]),
    "c1_tokenizer": ("c1_tokenizer", "audio-s", ["shards={speech}", "batch_seconds=30"]),
    "c2_flow": ("c2_flow", "audio-s", ["shards={coded}", "batch_seconds=30"]),
    "c3_vocoder": ("c3_vocoder", "audio-s", ["shards={speech}", "batch_seconds=8"]),
    "p2_joint, text": ("p2_joint", "tokens", ["shards={text}", "learns=thinker", "tokens=4096"]),
    "p2_joint, speech": ("p2_joint", "tokens", ["shards={speech}", "tokens=2048"]),
    "s1_sft, LoRA": ("s1_sft", "tokens", ["shards={text}", "lora.rank=16", "tokens=4096"]),
    "k1_icl": ("k1_icl", "audio-s", ["shards={coded}", "batch_tokens=4000"]),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status is 0 whatever comes out: ratios are to be read."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", choices=("tiny", "nano"), default="nano")
    parser.add_argument("--only", action="append", choices=list(STAGES), metavar="STAGE", help=", ".join(STAGES))  # fmt: skip
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--batches", type=int, default=6, help="batches a stage (default 6)")
    parser.add_argument("--write", metavar="PAGE", help="put the table between the page's markers")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    device = join("auto").device
    limit = matmul_limit(device, args.precision)
    machine = f"torch {torch.__version__}, {processor() if device.type == 'cpu' else torch.cuda.get_device_name()}, one {'thread' if device.type == 'cpu' else 'GPU'}; the fastest {args.precision} product: {limit / 1e9:,.0f} GFLOP/s"  # fmt: skip
    print(machine, file=sys.stderr)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        places = prepare(Path(folder), args.size)
        for name in args.only or STAGES:
            rows.append(measure(name, places, args, device, limit))
            print(line(rows[-1]), file=sys.stderr, flush=True)
    table = "\n".join([HEAD, *map(line, rows)])
    print(f"{machine}\n\n{table}\n")
    print(json.dumps({"machine": machine, "limit": limit, "precision": args.precision, "size": args.size, "rows": [asdict(row) for row in rows]}))  # fmt: skip
    if args.write:
        command = f"python benchmarks/training.py --size {args.size} --precision {args.precision}"
        put(args.write, f"{args.size} {args.precision}", f"`{command}` printed on {machine}:\n\n{table}")  # fmt: skip
    return 0


HEAD = "| stage | unit | a second | plain loop | ratio | textbook | ratio | GFLOP a unit | MFU | loading |\n|---|---|---|---|---|---|---|---|---|---|"


def line(r: Row) -> str:
    """A row of the table."""
    book = f"{r.textbook:,.0f} | {r.ours / r.textbook:.2f}" if r.textbook else " | "
    return f"| {r.stage} | {r.unit} | {r.ours:,.0f} | {r.plain:,.0f} | {r.ours / r.plain:.2f} | {book} | {r.gflop_per_unit:.3g} | {r.mfu:.0%} | {r.loading:.0%} |"  # fmt: skip


def measure(name: str, places: dict[str, str], args: Any, device: torch.device, limit: float) -> Row:  # fmt: skip
    """All numbers of one stage."""
    recipe_name, unit, settings = STAGES[name]
    given = [f"start={places['start']}", f"out={places['out']}/{name.replace(', ', '_')}", f"device={device.type}"]  # fmt: skip
    given += [setting.format(**places) for setting in settings] + [f"precision={args.precision}", "save_seconds=0"]  # fmt: skip
    recipe = change(find_recipe(recipe_name), given)
    clock = time.process_time if device.type == "cpu" else on_gpu
    stream = iter(recipe.data(World(device=device)))
    next(stream)  # what is read once: mels of a voice, tables
    batches, reading = [], []
    for _ in range(args.batches):
        began = clock()
        batches.append(next(stream))
        reading.append(clock() - began)
    units = [amount(batch, recipe) for batch in batches]
    half = args.precision == "bf16"
    ours, simple, book = [], [], []
    textbook = textbook_of(recipe_name, recipe, batches, device)
    for _ in range(2):  # in turns; the faster round counts
        ours.append(rate(house(recipe, batches, clock), units))
        stage = recipe.stage()
        stage.modules.to(device)
        simple.append(rate(plain.loop(turns_of(stage, device), batches, clock, half=half), units))
        if textbook is not None:
            book.append(rate(plain.loop([textbook[:2]], textbook[2], clock, half=half), units))
    gflop = products(recipe, batches[0], device) / units[0] / 1e9
    best = max(ours)
    return Row(
        name, unit, best, max(simple), max(book) if book else None, gflop, gflop * 1e9 * best / limit,
        statistics.median(reading) * best / statistics.fmean(units),
    )  # fmt: skip


def rate(times: Sequence[float], units: Sequence[float]) -> float:
    """Units a second; the first step is warm-up."""
    return sum(units[1:]) / sum(times[1:])


def house(recipe: Recipe, batches: Sequence[Any], clock: Callable[[], float]) -> list[float]:
    """Seconds of each step of the loop that recipes run in."""
    with tempfile.TemporaryDirectory() as out:
        config = change(recipe, [f"out={out}", f"steps={len(batches)}"])
        times = [clock()]
        trainer = Trainer(config.stage(), Kept(batches), config, watch=lambda *_: times.append(clock()))  # fmt: skip
        times[0] = clock()
        trainer.run()
    return list(np.diff(times))


class Kept:
    """Batches in memory."""

    def __init__(self, batches: Sequence[Any]):
        self.batches = batches

    def __iter__(self):
        yield from self.batches

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def turns_of(stage: Stage, device: torch.device) -> list[Any]:
    """Parameters and loss of each optimiser of a stage."""
    generator = torch.Generator(device).manual_seed(0)
    stage.modules.train()
    words = [{"turn": turn} if len(stage.turns) > 1 else {} for turn in stage.turns]
    learning = [list(stage.trainable(**w)) for w in words]
    wanted = {id(p) for parameters in learning for p in parameters}
    for parameter in stage.modules.parameters():
        parameter.requires_grad_(id(parameter) in wanted)
    return [
        (parameters, lambda batch, w=w: stage.loss(batch, generator=generator, **w)[0])
        for parameters, w in zip(learning, words, strict=True)
    ]


def textbook_of(name: str, recipe: Any, batches: Sequence[Any], device: torch.device) -> Any:
    """Parameters, loss and batches of a textbook model for the same data, where there is one."""
    config = recipe.config()
    if isinstance(batches[0], Packed) and not any(batch.audio or batch.images for batch in batches):
        if name != "p2_joint":
            return None
        model = plain.Decoder(config.thinker.text).to(device)
        rows = [unpacked(batch, device) for batch in batches]
        return list(model.parameters()), lambda batch: plain.decoder_loss(model, batch), rows
    if name == "i1_ears":
        ears = plain.Ears(config.thinker.audio, 40).to(device)
        return list(ears.parameters()), lambda batch: plain.ears_loss(ears, batch), batches
    return None


def unpacked(batch: Packed, device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(token ids, labels) of each conversation of a batch."""
    found = []
    for ids, labels, segments in zip(batch.token_ids, batch.labels, batch.segments, strict=True):
        numbers = range(1, int(segments.max()) + 1)
        found += [(ids[segments == n].to(device), labels[segments == n].to(device)) for n in numbers]  # fmt: skip
    return found


def products(recipe: Recipe, batch: Any, device: torch.device) -> float:
    """Floating-point operations of forward and backward, all turns."""
    stage = recipe.stage()
    stage.modules.to(device)
    with FlopCounterMode(display=False) as counter:
        for _, loss_of in turns_of(stage, device):
            loss_of(batch).backward()
    return counter.get_total_flops()


def amount(batch: Any, recipe: Any) -> float:
    """Tokens, or seconds of sound, of a batch."""
    if isinstance(batch, Packed):
        return batch.tokens
    config = recipe.config()
    if hasattr(batch, "waves"):
        return sum(map(len, batch.waves)) / config.code2wav.sample_rate
    if hasattr(batch, "codes"):
        return float(sum(map(len, batch.codes)) / config.code2wav.codes_per_second)
    if hasattr(batch, "labels"):
        return sum(mel.shape[1] for mel in batch.mels) / config.mel.frames_per_second
    return float(sum(len(item.codes) for item in batch) / config.code2wav.codes_per_second)


def on_gpu() -> float:
    """Wall time once the GPU has done what it was told."""
    torch.cuda.synchronize()
    return time.perf_counter()


def matmul_limit(device: torch.device, precision: str) -> float:
    """FLOP/s of the fastest large product."""
    size = 8192 if device.type == "cuda" else 1536
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    clock = time.process_time if device.type == "cpu" else on_gpu
    best = 0.0
    with torch.no_grad():
        for product in (torch.mm, linear):  # two libraries on a CPU, see layers/linear.py
            product(a, b)
            for _ in range(4):
                began = clock()
                product(a, b)
                best = max(best, 2 * size**3 / (clock() - began))
    return best


# ---------------------------------------------------------------------------------------------------------------- data


def prepare(folder: Path, size: str) -> dict[str, str]:
    """A random checkpoint, and shards of questions, of what stands for speech, and of that with codes."""
    from thinktalk.cli.main import main as thinktalk

    start = change(find_recipe("init"), [f"size={size}"])
    assert isinstance(start.make(folder / "start"), dict)
    make_world(text.ask, folder / "text", counts={"train": 3000})
    speech(folder / "speech" / "train", count=160)
    speak = ["data", "codes", "--model", str(folder / "start"), str(folder / "speech"), "--out", str(folder / "coded"), "--json"]  # fmt: skip
    kept, sys.stdout = sys.stdout, io.StringIO()
    try:
        assert thinktalk(speak) == 0
    finally:
        sys.stdout = kept
    names = ("text", "speech", "coded")
    return {name: f"{folder}/{name}" for name in names} | {"start": f"{folder}/start", "out": str(folder)}  # fmt: skip


def speech(prefix: Path, *, count: int) -> None:
    """Sounds of 2 to 6 s by four voices, with words, phones and durations."""
    random = np.random.default_rng(0)
    with ShardWriter(prefix) as writer:
        for n in range(count):
            frames = int(random.integers(80, 240))  # of 25 ms
            seconds = frames * 0.025
            times = np.arange(round(seconds * 24_000)) / 24_000
            tones = sum(np.sin(2 * np.pi * 120 * k * (1 + n % 4 / 5) * times) / k for k in range(1, 9))  # fmt: skip
            wave = 0.1 * tones * (1 + 0.5 * np.sin(2 * np.pi * 4 * times)) + 0.01 * random.standard_normal(len(times))  # fmt: skip
            words = " ".join(random.choice(WORDS, max(2, frames // 16)))
            phones = words.replace(" ", "")[: frames // 2]
            durations = [2] + [(frames - 4) // len(phones)] * len(phones) + [2]
            durations[-1] += frames - sum(durations)
            record = {"text": words, "voice": ("af_heart", "am_michael", "bf_emma", "bm_george")[n % 4], "seconds": seconds, "phones": phones, "durations": durations}  # fmt: skip
            file = io.BytesIO()
            soundfile.write(file, wave.astype(np.float32), 24_000, format="OGG", subtype="OPUS")
            writer.write(f"{n:06d}", {"json": json.dumps(record).encode(), "opus": file.getvalue()})


if __name__ == "__main__":
    sys.exit(main())
