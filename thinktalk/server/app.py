"""App: routes and middleware around one hub.

    app = create_app(Settings(model="checkpoints/tiny"))        any ASGI server runs it; `thinktalk serve` does it with uvicorn

Each route is a module with a `router`; it gets the hub by `Depends(hub_of)` and who asks by `Depends(client_of)` (hub.py). Middleware
(keys, hosts, limits) is installed by modules with `install(app, hub)`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import AsyncIterator

from fastapi import FastAPI

import thinktalk
from thinktalk.omni import Omni
from thinktalk.server import problems
from thinktalk.server.hub import Hub
from thinktalk.server.settings import Settings

__all__ = ["create_app"]

ROUTES = ("info", "chat", "speech", "transcriptions", "voices", "realtime", "page")
AROUND = (
    "limits",
    "auth",
    "counting",
)  # the last one is outermost: asked first, and sees who was turned away


def create_app(settings: Settings, *, omni: Omni | None = None, hub: Hub | None = None) -> FastAPI:
    """The whole server as an ASGI application; its lifespan starts and closes the hub."""
    hub = hub or Hub(settings, omni=omni)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with hub:
            yield

    app = FastAPI(
        title="thinktalk",
        version=thinktalk.__version__,
        description="Text, sound, pictures and video in; text and speech out. OpenAI's protocols.",
        lifespan=lifespan,
        docs_url=None,  # they load scripts from elsewhere; the document itself is at /openapi.json
        redoc_url=None,
    )
    app.state.hub = hub
    problems.install(app)
    for module in _present(ROUTES):
        app.include_router(module.router)
    for module in _present(AROUND):
        module.install(app, hub)
    return app


def _present(names: tuple[str, ...]):
    """Those modules of the server that are part of this version."""
    for name in names:
        if importlib.util.find_spec(f"thinktalk.server.{name}") is not None:
            yield importlib.import_module(f"thinktalk.server.{name}")
