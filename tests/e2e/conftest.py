"""A real server in another process, on the random tiny model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving import Server, serving


@pytest.fixture(scope="session")
def server(tiny_checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`thinktalk serve` in a process of its own: server.url, server.process."""
    with serving(tiny_checkpoint, log=tmp_path_factory.mktemp("server") / "log") as server:
        yield server
