"""thinktalk serve: OpenAI's protocols over HTTP and WebSocket, and a page to talk on (docs/server.md)."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from dataclasses import fields
from functools import partial

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

    say = partial(print, file=sys.stderr, flush=True)
    loading = f"thinktalk: loading {settings.model}"
    if settings.ray:
        from thinktalk.server.ray_serve import serve_by_ray

        say(loading)
        return serve_by_ray(settings, on_ready=lambda where: say(f"thinktalk: ready on {where}"))
    start = run_here if settings.workers == 1 else supervise
    with bind(settings) as sock:
        where = address(settings, sock.getsockname())
        say(loading)
        return start(settings, sock, on_ready=lambda: say(f"thinktalk: ready on {where}"))
