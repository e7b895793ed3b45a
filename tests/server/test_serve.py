"""`thinktalk serve` as a process: answers, drains on SIGTERM, replaces a killed worker."""

from __future__ import annotations

import httpx
from serving import Server


def test_answers(server: Server):
    assert httpx.get(f"{server.url}/ready").json() == {"status": "ready", "sessions": 0}
    assert "tiny" in [m["id"] for m in httpx.get(f"{server.base_url}/models").json()["data"]]
