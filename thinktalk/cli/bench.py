"""thinktalk bench: how long a listener waits (latency), how many can be talked with at once (load), every benchmark (all)."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from thinktalk.cli import options

if TYPE_CHECKING:
    from thinktalk.engine import Engine
    from thinktalk.engine.measure import Question
    from thinktalk.omni import Omni

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("latency", "load", "all"), help="latency: one listener, turn by turn; load: many at once; all: every benchmark of the checkout, into one table")  # fmt: skip
    options.add_model(parser)
    parser.add_argument("--voice", default="default", metavar="V", help="a voice of the checkpoint")
    parser.add_argument("--text", default=None, metavar="T", help="the question")
    parser.add_argument("--audio", default=None, metavar="F", help="a sound heard before the question")  # fmt: skip
    parser.add_argument("--listen", type=float, default=0.0, metavar="S", help="hear S seconds of noise before the question")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="longest answer (default 5)")  # fmt: skip
    parser.add_argument("--turns", type=options.positive, default=5, metavar="N", help="latency: answers measured (default 5)")  # fmt: skip
    parser.add_argument("--sessions", type=options.positive, default=8, metavar="N", help="load: conversations at once (default 8)")  # fmt: skip
    parser.add_argument("--spread", type=float, default=1.0, metavar="S", help="load: all ask within S seconds (default 1)")  # fmt: skip
    parser.add_argument("--points", type=options.positive, default=None, metavar="N", help="times of the flow's walk (default: the model's)")  # fmt: skip
    parser.add_argument("--method", choices=("rk4", "midpoint", "euler"), help="solver of the flow (the model's, mostly rk4, where not given)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of answers and arrivals")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="all: smaller shapes, fewer repeats")
    parser.add_argument("--only", action="append", default=[], metavar="TASK", help="all: a task, or those whose names begin so")  # fmt: skip
    parser.add_argument("--again", action="store_true", help="all: measure what is there, too")
    parser.add_argument("--out", default="out/bench", metavar="DIR", help="all: where results are kept; the same command goes on after a stop (default out/bench)")  # fmt: skip
    parser.add_argument("--write", default=None, metavar="FILE.md", help="all: write the table there, too")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    if args.what == "all":
        return _all(args)
    question = _question(args)
    omni = options.load_model(args)
    result, table = (_latency if args.what == "latency" else _load)(omni, question, args)
    result = {"bench": args.what, **_machine(omni, args), **result}
    if not args.json:
        print(table)
    print(json.dumps(result))
    return 0


def _all(args: argparse.Namespace) -> int:
    """benchmarks/board.py of the checkout, in a process of its own: an installed package has no benchmarks."""
    import subprocess
    import sys
    from pathlib import Path

    import thinktalk
    from thinktalk.errors import ConfigError

    script = Path(thinktalk.__file__).resolve().parents[1] / "benchmarks" / "board.py"
    if not script.exists():
        raise ConfigError(f"{script}: is not there, expected a checkout of the repository; clone it and install it with -e")  # fmt: skip
    words = ["--out", args.out, *(word for only in args.only for word in ("--only", only))]
    words += [f"--{name}" for name in ("quick", "again") if getattr(args, name)]
    words += ["--write", args.write] if args.write else []
    return subprocess.run([sys.executable, str(script), *words]).returncode


def _question(args: argparse.Namespace) -> Question:
    from thinktalk.engine.measure import Question, babble
    from thinktalk.errors import InputError

    for name in ("seconds", "listen", "spread"):
        value = getattr(args, name)
        if not (0 <= value <= 3600) or (name == "seconds" and not value):
            raise InputError(f"--{name} {value:g}: expected seconds, at most 3600")
    sound = babble(args.listen, seed=args.seed) if args.listen else None
    if args.audio is not None:
        from thinktalk.media.audio import load_audio

        if args.listen:
            raise InputError("--listen: given beside --audio, expected one of them")
        sound = load_audio(args.audio)
    asked = {} if args.text is None else {"text": args.text}
    return Question(
        sound=sound, seconds=args.seconds, points=args.points, method=args.method, voice=args.voice, seed=args.seed, **asked
    )  # fmt: skip


def _engine(omni: Omni, args: argparse.Namespace) -> Engine:
    from thinktalk.engine import Engine
    from thinktalk.errors import ConfigError

    if not omni.can_speak:
        raise ConfigError("bench: the model was loaded without speech, expected Talker and code2wav too")  # fmt: skip
    return Engine(omni.model, omni.tokenizer, max_sessions=max(64, args.sessions))


def _machine(omni: Omni, args: argparse.Namespace) -> dict[str, Any]:
    """What the figures belong to."""
    import torch

    weight = omni.model.thinker.norm.weight
    return {
        "model": str(args.model), "device": str(weight.device), "dtype": str(weight.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(), "flow": f"{args.method or omni.config.generation.flow_method} {args.points or omni.config.generation.flow_points}",
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- tables


def _latency(omni: Omni, question: Question, args: argparse.Namespace) -> tuple[dict, str]:
    from thinktalk.engine.measure import latency, peak_mb

    waits = latency(_engine(omni, args), question, turns=args.turns)
    told = waits.as_json() | {"peak_mb": round(peak_mb(), 1)}
    lines = [f"answers of {told['seconds']:.2f} s, {told['text_tokens']} tokens, {told['codes']} codes; "
             f"median of {told['turns']} turns", f"{'':<34}{'ms':>10}"]  # fmt: skip
    for name, text in LATENCY_ROWS:
        lines.append(f"{text:<34}{_cell(told[name], 10, 1)}")
    lines.append(f"{'real-time factor':<34}{_cell(told['real_time_factor'], 10, 3)}")
    lines.append(f"{'underruns':<34}{told['underruns']:>10}")
    lines.append(f"{'silence of underruns':<34}{_cell(told['underrun_ms'], 10, 1)}")
    lines.append(f"{'most memory at once, MB':<34}{_cell(told['peak_mb'], 10, 1)}")
    if told["listening_factor"] is not None:
        lines.append(f"{'work of listening, a second of it':<34}{_cell(1e3 * told['listening_factor'], 10, 1)}")  # fmt: skip
    return told, "\n".join(lines)


LATENCY_ROWS = (
    ("input_ms", "1 input processing"),
    ("text_to_code_ms", "2 first text to first code"),
    ("code_to_sound_ms", "3 first codes to sound"),
    ("first_sound_ms", "first sound (1 + 2 + 3)"),
    ("steps_ms", "4 of it, steps of the model"),
    ("total_ms", "last sound"),
    ("margin_ms", "least margin of playback"),
)


def _load(omni: Omni, question: Question, args: argparse.Namespace) -> tuple[dict, str]:
    from thinktalk.engine.measure import load

    runs = {}
    for count in sorted({1, args.sessions}):
        engine = _engine(omni, args)
        if not runs:  # what is slow only once is not measured
            load(engine, question, sessions=1)
        runs[count] = load(engine, question, sessions=count, spread_s=args.spread).as_json()
    many, one = runs[args.sessions], runs[1]
    gain = many["tokens_per_s"] / one["tokens_per_s"]
    lines = [f"{'sessions':<34}" + "".join(f"{run['sessions']:>10}" for run in runs.values())]
    for name, text, digits in LOAD_ROWS:
        lines.append(f"{text:<34}" + "".join(_cell(run[name], 10, digits) for run in runs.values()))
    lines.append(f"Thinker and Talker make {gain:.2f} times the tokens of one session")
    if many["refused"]:
        lines.append(f"{many['refused']} sessions were refused")
    return {**many, "one": one, "tokens_per_s_gain": round(gain, 3)}, "\n".join(lines)


LOAD_ROWS = (
    ("input_ms", "1 input processing, ms", 1),
    ("text_to_code_ms", "2 first text to first code, ms", 1),
    ("code_to_sound_ms", "3 first codes to sound, ms", 1),
    ("first_sound_ms", "first sound, ms", 1),
    ("first_sound_ms_p95", "first sound, 95th percentile, ms", 1),
    ("steps_ms", "4 of it, steps of the model, ms", 1),
    ("real_time_factor", "real-time factor", 3),
    ("real_time_factor_p95", "real-time factor, 95th percentile", 3),
    ("underruns", "underruns", 0),
    ("underrun_ms", "silence of underruns, ms", 1),
    ("tokens_per_s", "Thinker + Talker tokens a second", 1),
    ("sound_per_s", "seconds of sound a second", 2),
    ("speakers", "real-time speakers it could hold", 0),
)


def _cell(value: float | None, width: int, digits: int) -> str:
    return f"{'-' if value is None else format(value, f'.{digits}f'):>{width}}"
