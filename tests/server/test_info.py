"""/v1/models, /health, /ready and /metrics say what is."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient


def test_models(client: TestClient):
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    names = [model["id"] for model in listed["data"]]
    assert "tiny" in names and len(set(names)) == len(names)
    one = client.get("/v1/models/tiny").json()
    assert one["id"] == "tiny" and one["object"] == "model" and isinstance(one["created"], int)
    missing = client.get("/v1/models/gpt-9")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "model_not_found"


def test_health_and_ready_follow_the_hub(client: TestClient):
    hub = client.app.state.hub
    assert client.get("/health").status_code == client.get("/ready").status_code == 200
    hub.draining.set()
    assert client.get("/health").status_code == 200
    refused = client.get("/ready")
    assert refused.status_code == 503 and refused.json()["status"] == "draining"
    hub.engine.do(lambda: setattr(hub.engine, "_broken", RuntimeError("planted")))
    assert client.get("/health").status_code == client.get("/ready").status_code == 503
    hub.engine._broken = None


def families(client: TestClient) -> dict[str, float]:
    text = client.get("/metrics").text
    return {
        sample.name + "".join(f",{v}" for v in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_requests_by_pattern(client: TestClient):
    client.get("/v1/models/tiny")
    client.get("/v1/models/secret-name")
    client.get("/nowhere/secret-path")
    told = families(client)
    assert told["thinktalk_requests_total,/v1/models/{name:path},200"] == 1
    assert told["thinktalk_requests_total,/v1/models/{name:path},404"] == 1
    assert told["thinktalk_requests_total,other,404"] == 1
    assert not any("secret" in name for name in told)


def test_the_log_has_no_query(client: TestClient, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", "thinktalk.access"):
        client.get("/v1/models?api_key=private")
    assert "GET /v1/models 200" in caplog.text and "private" not in caplog.text
