"""thinktalk eval conformance: the laws that every implementation of Qwen2.5-Omni must keep, asked of each; 1 where one broke."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from thinktalk.errors import ConfigError

if TYPE_CHECKING:
    from thinktalk.eval.conformance import Finding, Implementation

__all__ = ["PLANTS", "add_arguments", "run"]

PLANTS = ("dit-rope", "av-ids")  # the kit's own names; spelt here so that --help needs no torch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--of and --plant, beside the options of `thinktalk eval`."""
    parser.add_argument("--of", metavar="A,B", help="conformance: whom to examine: thinktalk, transformers, or MODULE:CLASS (default: the first two, where installed)")  # fmt: skip
    parser.add_argument("--plant", choices=PLANTS, help="conformance: break each on purpose, as it once was shipped broken")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """The table, or JSON; 0 where every law is kept, 1 where one is broken."""
    from thinktalk.eval.conformance import INVARIANTS, examine

    findings: list[Finding] = []
    for implementation in _chosen(args.of):
        name = f"{implementation.name} {implementation.version}"
        print(f"== {name}{f', {args.plant} planted' if args.plant else ''}", file=sys.stderr, flush=True)  # fmt: skip
        with _planted(implementation, args.plant):
            findings += examine(implementation, INVARIANTS)
    broken = [finding for finding in findings if finding.outcome == "broken"]
    if args.json:
        told = {"planted": args.plant, "broken": len(broken), "findings": [asdict(f) for f in findings]}  # fmt: skip
        print(json.dumps(told, indent=1))
    else:
        print(_table(findings))
    return 1 if broken else 0


def _planted(
    implementation: Implementation, plant: str | None
) -> contextlib.AbstractContextManager[None]:
    if plant is None:
        return contextlib.nullcontext()
    try:
        return implementation.planted(plant)
    except NotImplementedError:
        raise ConfigError(f"--plant {plant}: {implementation.name} cannot be broken on purpose; leave --plant out, or write its `planted`") from None  # fmt: skip


def _chosen(names: str | None) -> list[Implementation]:
    """Who is examined. ConfigError for one that is named and not there."""
    from thinktalk.eval.conformance.ours import Ours
    from thinktalk.eval.conformance.upstream import Upstream

    if names is None:
        chosen: list[Implementation] = [Ours()]
        try:
            chosen.append(Upstream())
        except ConfigError as error:
            print(f"not examined: {error}", file=sys.stderr)
        return chosen
    known = {"thinktalk": Ours, "transformers": Upstream}
    return [known[name]() if name in known else _adapter(name) for name in names.split(",")]


def _adapter(name: str) -> Implementation:
    module, _, attribute = name.partition(":")
    try:
        if not attribute:
            raise ImportError(f"unknown: {name}")
        return getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"--of {name!r}: {error}; expected thinktalk, transformers or MODULE:CLASS of an Implementation") from None  # fmt: skip


def _table(findings: Sequence[Finding]) -> str:
    """A line an invariant, a column an implementation; then what broke."""
    names = list(dict.fromkeys(finding.implementation for finding in findings))
    wide = max(len(finding.key) for finding in findings) + 2
    columns = [max(len(name), len("not asked")) + 2 for name in names]
    by_key: dict[str, dict[str, Finding]] = {}
    for finding in findings:
        by_key.setdefault(finding.key, {})[finding.implementation] = finding
    lines = [" " * wide + "".join(n.ljust(w) for n, w in zip(names, columns, strict=True)).rstrip()]
    for key, found in by_key.items():
        outcomes = [found[name].outcome.ljust(w) for name, w in zip(names, columns, strict=True)]
        lines.append(key.ljust(wide) + "".join(outcomes).rstrip())
    told = [finding for finding in findings if finding.detail]
    for finding in told:
        text = f"{finding.implementation}: {finding.key} {finding.outcome}: {finding.law}. {finding.detail}"
        lines += ["", *textwrap.wrap(text, 110, subsequent_indent="  ", break_on_hyphens=False)]
    return "\n".join(lines)
