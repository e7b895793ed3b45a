"""thinktalk report: what an evaluation measured, as one page that can be mailed, and what changed since another one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("report", metavar="REPORT.json", help="what `thinktalk eval` wrote; its figures/ and sounds/ are beside it")  # fmt: skip
    parser.add_argument("--against", metavar="BEFORE.json", help="another report: what changed since, item by item")  # fmt: skip
    parser.add_argument("--html", metavar="FILE", help="the page (default: REPORT.html)")
    parser.add_argument("--markdown", metavar="FILE.md", help="the same tables in Markdown, too")
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object")


def run(args: argparse.Namespace) -> int:
    from thinktalk.eval import compare, page, report

    source = Path(args.report)
    rows, about = report.load(source)
    before = report.load(Path(args.against)) if args.against else None
    out = Path(args.html) if args.html else source.with_suffix(".html")
    page.write_page(out, rows, about, folder=source.parent, before=before)
    told = {"html": str(out)}
    if args.markdown:
        page.write_markdown(Path(args.markdown), rows, about, folder=source.parent, before=before)
        told["markdown"] = args.markdown
    if args.json:
        changes = compare.compare(rows, before[0]) if before is not None else []
        print(json.dumps({**told, "changes": {c.row.key: c.verdict for c in changes}}))
        return 0
    if before is not None:
        print(compare.table(before[0], rows))
    print("\n".join(f"{what}: {where}" for what, where in told.items()))
    return 0
