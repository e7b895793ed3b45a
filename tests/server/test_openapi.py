"""The OpenAPI document is true: schemathesis makes requests of it, in and out of its bounds, and checks every answer."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis")

from schemathesis import checks  # noqa: E402
from schemathesis.generation import GenerationMode  # noqa: E402
from schemathesis.specs.openapi import checks as openapi  # noqa: E402

CHECKS = [
    checks.not_a_server_error,
    openapi.status_code_conformance,
    openapi.content_type_conformance,
    openapi.response_schema_conformance,
]
ROUTES = ["/v1/chat/completions", "/v1/audio/speech", "/v1/audio/transcriptions", "/v1/voices", "/v1/audio/voices", "/v1/models"]  # fmt: skip
HOST = {"Host": "127.0.0.1"}  # others are turned away


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("route", ROUTES)
def test_every_answer_is_as_the_document_says(client, route: str, mode: GenerationMode) -> None:
    document = schemathesis.openapi.from_asgi("/openapi.json", client.app, headers=HOST)
    operation = document[route]["GET" if route == "/v1/models" else "POST"]
    if route == "/v1/models" and mode is GenerationMode.NEGATIVE:
        return  # it takes nothing that could be wrong
    seen = []

    @settings(
        max_examples=5 if route.endswith("/voices") else 10,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case) -> None:
        response = case.call(headers=HOST)
        seen.append(response.status_code)
        case.validate_response(response, checks=CHECKS)

    ask()
    # requests that are turned away at the door check nothing
    assert seen and set(seen) <= {200, 400, 404, 413, 422}
    if mode is GenerationMode.POSITIVE and route in ("/v1/audio/speech", "/v1/models"):
        assert 200 in seen
