"""thinktalk serve: OpenAI's protocols over HTTP and WebSocket, and a page to talk on (docs/server.md)."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from dataclasses import fields

from thinktalk.errors import ConfigError
from thinktalk.server.settings import Settings
from thinktalk.server.settings import add_arguments as add_settings

__all__ = ["add_arguments", "run"]

NEEDED = ("fastapi", "uvicorn", "prometheus_client", "multipart")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"serve: {missing[0]} is not installed; install the extra: pip install 'thinktalk[serve]'"
        )
    settings = Settings.read({f.name: getattr(args, f.name) for f in fields(Settings)})
    settings.check_address()
    from thinktalk.server.running import address, bind, configure_logs
    from thinktalk.server.running import run as run_here
    from thinktalk.server.supervisor import supervise

    configure_logs(settings)
    start = run_here if settings.workers == 1 else supervise
    with bind(settings) as sock:
        where = address(settings, sock)
        print(f"thinktalk: loading {settings.model}", file=sys.stderr, flush=True)

        def ready() -> None:
            print(f"thinktalk: ready on {where}", file=sys.stderr, flush=True)

        return start(settings, sock, on_ready=ready)
