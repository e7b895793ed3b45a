"""The app: every error leaves as OpenAI's JSON, the document describes the routes, nothing of an internal fault is told."""

from __future__ import annotations

import logging

import pytest
from fastapi import APIRouter
from pydantic import BaseModel, field_validator
from starlette.testclient import TestClient

from thinktalk.engine.admission import Busy
from thinktalk.errors import InputError, WeightsError
from thinktalk.omni import Omni
from thinktalk.server.app import create_app
from thinktalk.server.hub import Hub
from thinktalk.server.problems import Draining, Overloaded, Problem
from thinktalk.server.settings import Settings

FAULTS = {
    "input": InputError("a picture\nof no kind"),
    "busy": Busy("engine: full"),
    "overloaded": Overloaded("full", retry_after_s=2.2),
    "draining": Draining(),
    "problem": Problem(413, "too large", param="file", code="too_large"),
    "secret": RuntimeError("the secret of the house"),
}


class Body(BaseModel):
    items: list[int]

    @field_validator("items")
    @classmethod
    def few(cls, items: list[int]) -> list[int]:
        if len(items) > 2:
            raise ValueError("expected at most 2 items")
        return items


@pytest.fixture(scope="module")
def faulty():
    """An app whose routes fail; its lifespan is not run."""
    app = create_app(Settings())
    router = APIRouter()

    @router.get("/fail/{name}")
    async def fail(name: str):
        raise FAULTS[name]

    @router.post("/body")
    async def body(body: Body):
        return body

    app.include_router(router)
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("name", "status", "message", "type_"),
    [
        ("input", 400, "a picture of no kind", "invalid_request_error"),
        ("busy", 429, "engine: full", "rate_limit_error"),
        ("overloaded", 429, "full", "rate_limit_error"),
        ("draining", 503, "the server is about to end", "server_error"),
        ("problem", 413, "too large", "invalid_request_error"),
        ("secret", 500, "the server made a mistake", "server_error"),
    ],
)
def test_errors_leave_as_openai_has_them(faulty: TestClient, name: str, status: int, message: str, type_: str):  # fmt: skip
    answer = faulty.get(f"/fail/{name}")
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].startswith(message) and error["type"] == type_
    assert "secret" not in answer.text


def test_who_is_refused_for_now_is_told_when_to_ask_again(faulty: TestClient):
    assert faulty.get("/fail/overloaded").headers["Retry-After"] == "3"
    assert faulty.get("/fail/busy").headers["Retry-After"] == "1"
    assert faulty.get("/fail/draining").headers["Retry-After"] == "5"


def test_our_own_mistakes_are_logged(faulty: TestClient, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.ERROR, "thinktalk.server"):
        faulty.get("/fail/secret?key=private")
    assert "the secret of the house" in caplog.text and "/fail/secret failed" in caplog.text
    assert "private" not in caplog.text


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ({"items": [1, "x"]}, "items[1]: Input should be a valid integer", "items[1]"),
        ({"items": [1, 2, 3]}, "items: expected at most 2 items", "items"),
        ({}, "items: Field required", "items"),
    ],
)
def test_a_wrong_body_is_named_by_its_field(faulty: TestClient, body: dict, message: str, param: str):  # fmt: skip
    answer = faulty.post("/body", json=body)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["message"].startswith(message) and error["param"] == param


def test_what_is_not_json_is_told_so(faulty: TestClient):
    answer = faulty.post("/body", content=b"{nonsense", headers={"content-type": "application/json"})  # fmt: skip
    assert answer.status_code == 400 and "JSON" in answer.json()["error"]["message"]


def test_unknown_paths_and_methods(client: TestClient):
    for answer, status in (
        (client.get("/v1/nothing"), 404),
        (client.delete("/v1/models"), 405),
    ):
        assert answer.status_code == status
        assert answer.json()["error"]["type"] in ("not_found_error", "invalid_request_error")


def test_the_document_says_what_may_come(client: TestClient):
    document = client.get("/openapi.json").json()
    assert document["info"]["title"] == "thinktalk"
    answers = document["paths"]["/v1/models"]["get"]["responses"]
    assert {"200", "401", "429", "503"} <= set(answers)


def test_a_model_that_cannot_be_loaded_ends_the_start_with_its_reason(tmp_path):
    hub = Hub(Settings(model=str(tmp_path)))
    app = create_app(hub.settings, hub=hub)
    with pytest.raises(WeightsError, match="config"), TestClient(app):
        pass
    assert "config" in str(hub.error)


def test_a_hub_belongs_to_one_app(omni: Omni, tiny_checkpoint: str):
    settings = Settings(model=tiny_checkpoint)
    one, two = create_app(settings, omni=omni), create_app(settings, omni=omni)
    assert one.state.hub is not two.state.hub
    assert one.state.hub.metrics.registry is not two.state.hub.metrics.registry
