"""thinktalk inspect: what a checkpoint holds, read from its headers; no weights are loaded.

A damaged checkpoint is shown as far as it can be read; the exit status is then 2 and standard error names the fault.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from thinktalk.errors import WeightsError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        default="nano",
        metavar="M",
        help="nano (default), a directory, or a hub id",
    )
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object")


def run(args: argparse.Namespace) -> int:
    from thinktalk.omni import resolve
    from thinktalk.weights.report import inspect_report

    report = inspect_report(resolve(args.model))
    if report["parts"]:
        print(json.dumps(report) if args.json else "\n".join(_lines(report)))
    if faults := report["faults"]:
        more = f" (and {len(faults) - 1} more of {len(faults)})" if len(faults) > 1 else ""
        raise WeightsError(f"{faults[0]}{more}")
    return 0


def _lines(report: dict[str, Any]) -> list[str]:
    lines = [f"{report['path']}  ({report['model']})", ""]
    lines.append(f"{'part':<12}{'parameters':>16}{'bytes':>18}  dtypes, stages")
    for name, part in report["parts"].items():
        dtypes = ", ".join(part["bytes_by_dtype"])
        stages = ", ".join(f"{stage} {count:,}" for stage, count in part["stages"].items())
        lines.append(f"{name:<12}{part['parameters']:>16,}{part['bytes']:>18,}  {dtypes}; {stages}")
    total = f"{'all':<12}{report['parameters']:>16,}{report['bytes']:>18,}"
    lines.append(f"{total}  in {report['files']} file{'s' if report['files'] != 1 else ''}")
    for title in ("rates", "windows", "context"):
        unit = " (a second)" if title == "rates" else ""
        lines += ["", f"{title}{unit}"]
        lines += [
            f"  {key.replace('_', ' '):<28}{value:>12}" for key, value in report[title].items()
        ]
    lines += ["", "voices"]
    lines += [
        f"  {name:<28}{voice['ref_mel_frames']:>12} mel frames, token {voice['bos_token']}"
        for name, voice in report["voices"].items()
    ] or ["  none"]
    if report["faults"]:
        lines += ["", "faults", *(f"  {fault}" for fault in report["faults"])]
    return lines
