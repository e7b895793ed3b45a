"""thinktalk against transformers: the same weights, the same process, the two sides taking turns.

    python benchmarks/vs_transformers.py [--quick] [--only encoders]... [--threads N] [--write docs/performance.md]

Each file of benchmarks/sections/ is one section: `rows(quick) -> list[Row]`. A table and one JSON line are printed for each,
then what fell short of its target. Exit status 1 when transformers is missing or a section fails, else 0: ratios on a
shared machine are something to read, not a gate.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from page import put  # this file's folder is on the path of a script
from timing import Row, print_rows

__all__ = ["main", "markdown", "section_names"]

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch starts its threads
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests" / "parity")]  # the tiny reference


def section_names() -> list[str]:
    """Every section there is, in alphabetical order."""
    return sorted(path.stem for path in (HERE / "sections").glob("*.py") if path.stem[0] != "_")


def run_section(name: str, *, quick: bool) -> list[Row]:
    """Import benchmarks/sections/NAME.py and measure its rows."""
    return importlib.import_module(f"sections.{name}").rows(quick)


def below_target(rows: Sequence[Row]) -> list[Row]:
    """Rows slower than they should be; without a target a row must not be slower than transformers."""
    return [row for row in rows if row.ratio < (1.0 if row.target is None else row.target)]


def markdown(name: str, rows: Sequence[Row]) -> str:
    """The rows of a section as a table of a page."""
    lines = [
        f"### {name}",
        "",
        "| what | ours, ms | transformers, ms | ratio | to reach |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        what = f"{row.name} ({row.note})" if row.note else row.name
        target = "" if row.target is None else f"{row.target:g}"
        lines.append(
            f"| {what} | {row.ours_ms:.2f} | {row.theirs_ms:.2f} | {row.ratio:.2f} | {target} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections asked for; returns the exit status."""
    names = section_names()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller shapes, fewer repeats")
    parser.add_argument(
        "--only", action="append", choices=names, metavar="SECTION", help=", ".join(names)
    )
    parser.add_argument("--threads", type=int, default=None, help="threads torch may use")
    parser.add_argument("--write", metavar="PAGE", help="put the tables between the page's markers")
    args = parser.parse_args(argv)
    if importlib.util.find_spec("transformers") is None:
        print(
            "vs_transformers: transformers is not installed, expected 5.23.0; run scripts/bench,"
            " or: pip install -e '.[parity]' -c constraints.txt",
            file=sys.stderr,
        )
        return 1
    import torch
    import transformers

    from thinktalk.eval.provenance import processor

    transformers.logging.set_verbosity_error()
    if args.threads:
        torch.set_num_threads(args.threads)
    machine = (
        f"torch {torch.__version__}, transformers {transformers.__version__},"
        f" {torch.get_num_threads()} of {os.cpu_count()} cores, {processor()}"
    )
    print(machine)
    tables: list[str] = []
    slow: list[tuple[str, Row]] = []
    failed: list[str] = []
    for name in args.only or names:
        start = time.perf_counter()
        try:
            rows = run_section(name, quick=args.quick)
        except Exception:  # one broken section must not hide the others' figures
            traceback.print_exc()
            failed.append(name)
            continue
        print_rows(name, rows)
        tables.append(markdown(name, rows))
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
        slow += [(name, row) for row in below_target(rows)]
    for name, row in slow:
        print(
            f"below target: {name}: {row.name}: {row.ratio:.2f}, wanted {row.target or 1.0:.2f}",
            file=sys.stderr,
        )
    if args.write:
        command = "scripts/bench --quick" if args.quick else "scripts/bench"
        put(
            args.write,
            "benchmark tables",
            "\n\n".join([f"`{command}` printed on {machine}:", *tables]),
        )
    if failed:
        print(f"vs_transformers: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
