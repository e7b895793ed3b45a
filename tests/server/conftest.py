"""A hub and an app in this process, on the random tiny model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving import quick_settings
from starlette.testclient import TestClient

import thinktalk
from thinktalk.omni import Omni
from thinktalk.server.app import create_app
from thinktalk.server.hub import Hub


@pytest.fixture(scope="session")
def omni(tiny_checkpoint: str) -> Omni:
    """The tiny model, loaded once."""
    return thinktalk.load(tiny_checkpoint)


@pytest.fixture
def hub(omni: Omni, tiny_checkpoint: str) -> Hub:
    """Not started: `async with hub:` inside of asyncio.run."""
    return Hub(quick_settings(tiny_checkpoint), omni=omni)


@pytest.fixture
def client(omni: Omni, tiny_checkpoint: str) -> Iterator[TestClient]:
    """The whole app in this process; client.app.state.hub is its hub."""
    app = create_app(quick_settings(tiny_checkpoint), omni=omni)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client
