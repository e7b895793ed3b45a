"""Replica: the app with its hub in one process of a Ray Serve deployment (ray_serve.py starts as many as are wanted).

Ray's proxy --ASGI messages--> Replica: create_app(settings), as in one process
GET /metrics                   every replica is asked (count), whichever was called
audio.id of another replica    every replica is asked (words)
Ray begins to end it           it drains: nothing new is taken, live conversations end with the reply under way
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray._private.worker import global_worker
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Receive, Scope, Send

from thinktalk.server.app import create_app
from thinktalk.server.hub import Hub
from thinktalk.server.running import configure_logs
from thinktalk.server.said import Said
from thinktalk.server.settings import Settings

__all__ = ["Replica"]

log = logging.getLogger("thinktalk.server")

LOOK_S = 0.2
LINGER_S = 1.0
ASK_S = 5.0  # how long the other replicas may take to answer


class Replica:
    """What serve.ingress() makes a deployment of. `settings`: as JSON. Errors: those of Hub.start, which Ray passes on."""

    async def __init__(self, settings: str):
        self.settings = Settings.from_json(settings)
        configure_logs(self.settings)
        context = serve.get_replica_context()
        self.name, self._deployment = context.replica_tag, (context.deployment, context.app_name)
        self._handle: DeploymentHandle | None = None
        self.hub = Hub(self.settings)
        self.hub.metrics.gather = self._gather
        self.said = Said(self._elsewhere)
        await self.hub.start()
        self._watch = asyncio.create_task(self._drain_when_stopped())

    def __serve_build_asgi_app__(self) -> FastAPI:
        app = create_app(self.settings, hub=self.hub)
        app.state.said = self.said
        app.add_middleware(Lingering)
        return app

    async def check_health(self) -> None:
        """Ray replaces a replica of which this fails."""
        if not self.hub.alive:
            raise RuntimeError("the engine has stopped") from self.hub.engine.broken

    # ------------------------------------------------------------------------------------- what other replicas and the command ask

    async def drain(self, seconds: float) -> bool:
        """See Hub.drain."""
        return await self.hub.drain(seconds)

    async def count(self) -> tuple[str, str]:
        """Its name and its counters."""
        return self.name, self.hub.metrics.text().decode()

    async def words(self, client: str, ids: Sequence[str]) -> dict[str, tuple[str, float]]:
        """What this replica said to that client."""
        return self.said.known(client, ids)

    async def _ask(self, method: str, *given: Any) -> list[Any]:
        """What every replica answers, this one among them; those that do not answer are left out."""
        if self._handle is None:
            self._handle = serve.get_deployment_handle(*self._deployment)
        answers = self._handle.broadcast(method, *given)
        try:
            told = await answers.results_async(timeout_s=ASK_S, return_exceptions=True)
        except Exception as error:  # one that hangs: its health check will tell
            log.warning("not all replicas answered: %r", error)
            return []
        return [each for each in told if not isinstance(each, BaseException)]

    async def _gather(self) -> Mapping[str, str]:
        return dict([await self.count(), *await self._ask("count")])

    async def _elsewhere(self, client: str, ids: Sequence[str]) -> Mapping[str, tuple[str, float]]:
        found: dict[str, tuple[str, float]] = {}
        for each in await self._ask("words", client, list(ids)):
            found |= each
        return found

    # ---------------------------------------------------------------------------------------------------------------- its end

    async def _drain_when_stopped(self) -> None:
        """Ray waits for requests to end before it tells a deployment, so a live conversation would keep it until it is killed."""
        while not _stopping():
            await asyncio.sleep(LOOK_S)
        log.info("draining: %d conversations", self.hub.conversations)
        self.hub.draining.set()


class Lingering:
    """ASGI middleware. Ray ends a replica when nothing is under way, and what was sent last would be lost between two processes."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)
        if scope["type"] in ("http", "websocket") and _stopping():
            await asyncio.sleep(LINGER_S)


def _stopping() -> bool:
    """Whether Ray has begun to end this process' replica. It has no public word for it; test_ray_serve.py holds it to this one."""
    parts = (getattr(actor, "_replica_impl", None) for actor in global_worker.actors.values())
    return any(getattr(part, "_shutting_down", False) for part in parts)
