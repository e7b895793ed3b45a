"""Problems: whatever goes wrong -> OpenAI's error JSON, with the status a client can act on.

{"error": {"message": "...", "type": "invalid_request_error", "param": "messages[0]", "code": null}}

InputError, ConfigError        400   the request can be mended; the message says how
Overloaded, Busy               429   with Retry-After
Draining                       503   the server is about to end
anything else                  500   our own mistake: the log has it, the client gets no detail
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from thinktalk.engine.admission import Busy
from thinktalk.errors import ThinktalkError

__all__ = ["ERRORS", "Draining", "Overloaded", "Problem", "install", "problem_of"]

log = logging.getLogger("thinktalk.server")

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}  # fmt: skip

ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


class Problem(Exception):  # noqa: N818  (what the client is told, whoever is to blame)
    """An answer that is an error. `type` follows from the status where it is not given."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        default = "server_error" if status >= 500 else "invalid_request_error"
        self.type = type or KINDS.get(status, default)
        self.headers = dict(headers or {})

    @property
    def error(self) -> dict[str, Any]:
        """The object under "error"; Realtime's error events have the same one."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}

    def response(self) -> JSONResponse:
        """As an HTTP answer."""
        return JSONResponse({"error": self.error}, self.status, headers=self.headers)


class Overloaded(Problem):
    """There is no room for it now."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0):
        self.retry_after_s = max(1, math.ceil(retry_after_s))
        headers = {"Retry-After": str(self.retry_after_s)}
        super().__init__(429, message, code="overloaded", headers=headers)


class Draining(Problem):
    """The server ends soon and takes nothing new."""

    def __init__(self) -> None:
        message = "the server is about to end and takes nothing new; ask again in a moment"
        super().__init__(503, message, code="draining", headers={"Retry-After": "5", "Connection": "close"})  # fmt: skip


def problem_of(error: BaseException) -> Problem:
    """What a client is told of an exception."""
    match error:
        case Problem():
            return error
        case Busy():
            return Overloaded(one_line(error))
        case ThinktalkError():
            return Problem(400, one_line(error))
        case RequestValidationError():
            return _invalid(error)
        case HTTPException():
            return Problem(error.status_code, str(error.detail), headers=error.headers)
        case _:
            return Problem(500, "the server made a mistake; its log says which", code="internal_error")  # fmt: skip


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())


def _invalid(error: RequestValidationError) -> Problem:
    """The first thing that is wrong with a request, and where."""
    first = error.errors()[0]
    where = ""
    for step in first["loc"][1:]:  # the first step is "body", "query" or "path"
        where += f"[{step}]" if isinstance(step, int) else f".{step}" if where else str(step)
    message = first["msg"].removeprefix("Value error, ")
    return Problem(400, f"{where}: {message}" if where else message, param=where or None)


def install(app: FastAPI) -> None:
    """Every error of every route leaves as a Problem."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        problem = problem_of(error)
        if problem.status == 500:
            log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem.response()

    for kind in (Problem, ThinktalkError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def _documented(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": ERROR_SCHEMA}}}


ERRORS: dict[int | str, dict[str, Any]] = {
    400: _documented("The request cannot be served as it is; the message says why"),
    401: _documented("No key, or one that is not known"),
    403: _documented("Not allowed from there"),
    404: _documented("There is no such thing"),
    413: _documented("Larger than this server takes"),
    422: _documented("The request cannot be read"),
    429: _documented("Too much at once; ask again after Retry-After seconds"),
    503: _documented("The server is about to end"),
}
"""For `responses=` of every route: what may come instead of an answer."""
