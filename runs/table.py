"""The stages of a run as a Markdown table: runs/table.py RUN... prints name, steps, loss before and after, skipped steps, seconds.

RUN is the directory of a stage (it holds metrics.jsonl); before and after are means over its first and last tenth.
"""

from __future__ import annotations

import sys
from pathlib import Path

from thinktalk.training.journal import summary

__all__ = ["table"]


def table(runs: list[str]) -> str:
    """The table of those runs that have trained, in the order given."""
    journals = [Path(run) / "metrics.jsonl" for run in runs]
    rows = [summary(path, path.parent.name) for path in journals if path.exists()]
    head = "| stage | steps | loss before | after | skipped | seconds |\n|---|---|---|---|---|---|"
    return "\n".join([head, *rows])


if __name__ == "__main__":
    print(table(sys.argv[1:]))
