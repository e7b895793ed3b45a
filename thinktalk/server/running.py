"""Running: one process that serves: uvicorn around the app, on a socket that is open already.

SIGTERM or SIGINT drains: /ready says 503 and new work is refused at once, what is under way may end within drain_seconds, then
the process ends with status 0. A second signal ends it without waiting. An engine that has broken ends it with status 1, so
that whoever watches (--workers, systemd, Kubernetes) starts another.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from thinktalk.errors import ConfigError, ThinktalkError
from thinktalk.server.app import create_app
from thinktalk.server.hub import Hub
from thinktalk.server.settings import Settings

__all__ = ["address", "bind", "configure_logs", "run"]

log = logging.getLogger("thinktalk.server")

WATCH_S = 0.5
WS_MAX_BYTES = 16 << 20  # as OpenAI's: 15 MiB of sound an event


def bind(settings: Settings) -> socket.socket:
    """The socket to listen on. Errors: ConfigError when the address is taken or not ours."""
    sock = None
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(2048)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise ConfigError(
            f"{settings.host}:{settings.port}: cannot listen there ({error.strerror or error}); choose another --host or --port"
        ) from None
    sock.setblocking(False)
    return sock


def address(settings: Settings, where: tuple[Any, ...]) -> str:
    """Where a browser finds it; `where` as a socket's name."""
    host, port = where[:2]
    host = settings.host if settings.host == "localhost" else host
    return f"http{'s' if settings.tls_cert else ''}://{f'[{host}]' if ':' in host else host}:{port}"


def configure_logs(settings: Settings) -> None:
    """One line an event on standard error."""
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(stream=sys.stderr, level=settings.log_level.upper(), format=form)
    logging.getLogger("uvicorn").setLevel("WARNING")


def run(settings: Settings, sock: socket.socket, *, on_ready: Callable[[], None]) -> int:
    """Serve until a signal; the exit status. `on_ready` is called when requests are answered. Errors: those of Hub.start."""
    hub = Hub(settings)
    server = _Server(_config(settings, hub), hub, on_ready)
    errors = logging.getLogger("uvicorn.error")

    def wanted(_: logging.LogRecord) -> bool:
        """Not uvicorn's traceback of what is raised below, one line that says what to do."""
        return not isinstance(hub.error, ThinktalkError)

    errors.addFilter(wanted)
    try:
        server.run(sockets=[sock])
    except SystemExit:  # the app's start failed; hub.error says why
        if hub.error is not None:
            raise hub.error from None
        raise
    finally:
        errors.removeFilter(wanted)
    return 1 if server.broken else 0


def _config(settings: Settings, hub: Hub) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(settings, hub=hub),
        log_config=None,
        access_log=False,  # counting.py writes one, without queries
        lifespan="on",
        ws_max_size=WS_MAX_BYTES,
        ws_per_message_deflate=False,  # base64 of sound does not shrink, and cannot blow up either
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,  # who had not ended after drain_seconds is cut off
        proxy_headers=False,
        server_header=False,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


class _Server(uvicorn.Server):
    """uvicorn's, with a drain before its shutdown."""

    def __init__(self, config: uvicorn.Config, hub: Hub, on_ready: Callable[[], None]):
        super().__init__(config)
        self.hub, self.on_ready, self.broken = hub, on_ready, False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task] = []  # kept, or they could be collected

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            self._tasks.append(self._loop.create_task(self._watch()))
            self.on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.hub.draining.is_set() or self._loop is None or not self.started:
            super().handle_exit(sig, frame)
            self.force_exit = self.hub.draining.is_set()
        else:
            self.hub.draining.set()
            self._loop.call_soon_threadsafe(self._begin_drain)

    def _begin_drain(self) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(self._drain()))

    async def _drain(self) -> None:
        seconds = self.hub.settings.drain_seconds
        log.info("draining: %d conversations", self.hub.conversations)
        if not await self.hub.drain(seconds):
            log.warning("%d conversations had not ended after %g s", self.hub.conversations, seconds)  # fmt: skip
        self.should_exit = True

    async def _watch(self) -> None:
        while self.hub.alive:
            await asyncio.sleep(WATCH_S)
        if not self.should_exit:
            log.critical("the engine has stopped", exc_info=self.hub.engine.broken)
            self.broken = self.should_exit = True
