"""What goes wrong around a server: a worker killed, a client that stops reading. It stays up, and the next user is served."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import time
from pathlib import Path

import pytest
from crowd import Told, alone, crowd, same
from serving import Server, serving
from test_hostile import next_user
from test_load import settled, states
from test_serve import children
from websockets.sync.client import connect

MANY_S = 10  # of sound: 430 kB each time it is shown


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_that_is_killed_under_load_costs_its_own_clients_one_answer(tiny_checkpoint: str, tmp_path: Path) -> None:  # fmt: skip
    kinds = {"chatter": 6, "talker": 4, "leaver": 2}
    with serving(tiny_checkpoint, "--workers", "2", log=tmp_path / "log") as server:
        expected = asyncio.run(alone(server))
        first, other = children(server.process.pid)

        async def main() -> Told:
            ended = asyncio.Event()
            load = asyncio.create_task(crowd(server, expected, kinds, lambda _: not ended.is_set()))
            await asyncio.sleep(5)
            os.kill(first, signal.SIGKILL)
            until = time.monotonic() + 300  # a worker reads its model on a busy machine
            while len(now := children(server.process.pid)) < 2 or first in now:
                assert time.monotonic() < until
                await asyncio.sleep(0.2)
            await asyncio.sleep(5)
            ended.set()
            return await load

        told = asyncio.run(main())
        print(dict(told.counts))
        assert other in children(server.process.pid)
        again = asyncio.run(alone(server))
    assert not told.wrong, told.wrong[:5]
    # whoever was with it then, told by a broken connection; nobody else, and nobody twice
    assert told.of("cut") <= sum(kinds.values())
    assert told.counts["chatter", "done"] > 6 and told.counts["talker", "done"] > 4
    for name, answers in expected.items():
        assert all(same(a, b) for a, b in zip(answers, again[name], strict=True))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_client_that_stops_reading_is_let_go_and_nobody_waits_for_him(server: Server) -> None:
    """A real socket whose buffers are full: far more is asked for than they hold, and nothing of it is taken."""
    before = next_user(server)
    path = f"{server.websocket_base_url}/realtime"
    with connect(path, max_queue=1, max_size=None, close_timeout=1, ping_interval=None) as stalled:
        sound = base64.b64encode(bytes(48_000 * MANY_S)).decode()
        item = {"type": "message", "id": "long", "role": "user", "content": [{"type": "input_audio", "audio": sound}]}  # fmt: skip
        stalled.send(json.dumps({"type": "conversation.item.create", "item": item}))
        while json.loads(stalled.recv(60))["type"] != "conversation.item.done":
            pass
        for _ in range(60):
            stalled.send(json.dumps({"type": "conversation.item.retrieve", "item_id": "long"}))
        time.sleep(2)
        assert states(server)["thinktalk_sessions"] == 1, "it did not stall"
        assert next_user(server) == before
        settled(server)  # though it is connected still
    assert next_user(server) == before
