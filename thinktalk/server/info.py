"""Info: what is served, and how it is: /v1/models, /health, /ready, /metrics."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from thinktalk.server.hub import Hub, hub_of
from thinktalk.server.problems import ERRORS

__all__ = ["router"]

router = APIRouter()

TheHub = Annotated[Hub, Depends(hub_of)]


@router.get("/v1/models", tags=["models"], responses=ERRORS)
async def models(hub: TheHub) -> dict[str, Any]:
    """The names under which the model may be asked for."""
    return {"object": "list", "data": [_model(hub, name) for name in hub.names]}


@router.get("/v1/models/{name:path}", tags=["models"], responses=ERRORS)
async def model(name: str, hub: TheHub) -> dict[str, Any]:
    """One of them."""
    return _model(hub, hub.check_model(name))


def _model(hub: Hub, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": hub.created, "owned_by": "thinktalk"}


@router.get("/health", tags=["operation"], responses={503: {"description": "The engine has stopped"}})  # fmt: skip
async def health(hub: TheHub) -> JSONResponse:
    """Whether the process is sound; restart it when this is not 200."""
    return JSONResponse({"status": "ok" if hub.alive else "failed"}, 200 if hub.alive else 503)


@router.get("/ready", tags=["operation"], responses={503: {"description": "Takes nothing new"}})
async def ready(hub: TheHub) -> JSONResponse:
    """Whether new work is taken; send none when this is not 200."""
    status = "ready" if hub.ready else "draining" if hub.alive else "failed"
    return JSONResponse({"status": status, "sessions": hub.conversations}, 200 if hub.ready else 503)  # fmt: skip


@router.get("/metrics", tags=["operation"], response_class=Response)
async def metrics(hub: TheHub) -> Response:
    """Counters for Prometheus."""
    return Response(await hub.metrics.page(), media_type=CONTENT_TYPE_LATEST)
