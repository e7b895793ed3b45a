"""What replicas on several machines share, and what Ray Serve is told of them; Ray itself is in tests/e2e/test_ray_serve.py."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from thinktalk.errors import ConfigError
from thinktalk.server.hub import Client
from thinktalk.server.metrics import Metrics, together
from thinktalk.server.ray_serve import _absolute, _reason, deployment_options, serve_by_ray
from thinktalk.server.said import Said
from thinktalk.server.settings import Settings


def test_words_said_elsewhere_are_asked_for_once():
    me, you, until = Client("me"), Client("you"), time.time() + 60
    far = Said()
    far.keep(me, "far", "hello", until)
    far.keep(you, "yours", "a secret", until)
    far.keep(me, "old", "gone", time.time() - 1)
    asked = []

    async def elsewhere(name, ids):
        asked.append(ids)
        return far.known(name, ids)

    near = Said(elsewhere)
    near.keep(me, "near", "good", until)
    asyncio.run(near.fetch(me, ["near", "far", "yours", "old"]))
    assert [near.find(me, id) for id in ("near", "far", "yours", "old")] == ["good", "hello", None, None]  # fmt: skip
    assert near.find(you, "far") is None  # whoever may ask for it anywhere may ask for it here
    asyncio.run(near.fetch(me, ["far"]))
    asyncio.run(near.fetch(me, []))
    assert asked == [["far", "yours", "old"]]  # what is known is not asked for
    asyncio.run(Said().fetch(me, ["far"]))  # nobody to ask


def test_what_is_kept_again_is_counted_once():
    kept, me, until = Said(), Client("me"), time.time() + 60
    for _ in range(10):
        kept.keep(me, "long", "x" * 1_000_000, until)
    kept.keep(me, "other", "y", until)
    assert kept.find(me, "long") and kept.find(me, "other")


def test_counters_of_all_replicas_are_one_page():
    texts = {}
    for name, count in (("a", 3), ("b", 4)):
        metrics = Metrics()
        metrics.requests.labels("/v1/models", "200").inc(count)
        metrics.first_text.observe(0.2)
        texts[name] = metrics.text().decode()
    families = {f.name: f for f in text_string_to_metric_families(together(texts).decode())}
    told = {f.name: (f.type, f.documentation) for f in families.values()}
    alone = text_string_to_metric_families(texts["a"])
    assert told == {f.name: (f.type, f.documentation) for f in alone}  # nothing is lost or renamed
    samples = [(s.labels, s.value) for s in families["thinktalk_requests"].samples]
    labels = {"route": "/v1/models", "status": "200"}
    assert samples == [(labels | {"replica": "a"}, 3.0), (labels | {"replica": "b"}, 4.0)]


def test_a_server_with_replicas_shows_and_knows_what_they_do(client):
    async def gather():
        return {"far": Metrics().text().decode()}

    async def elsewhere(name, ids):
        return {"audio_far": ("Hello there.", time.time() + 60)}

    def ask(turn: dict):
        turns = [{"role": "user", "content": "Hello."}, turn, {"role": "user", "content": "And?"}]
        return client.post("/v1/chat/completions", json={"model": "tiny", "messages": turns, "seed": 1, "temperature": 0})  # fmt: skip

    past = {"role": "assistant", "audio": {"id": "audio_far"}}
    assert ask(past).status_code == 404
    assert 'replica="far"' not in client.get("/metrics").text
    client.app.state.said = Said(elsewhere)
    client.app.state.hub.metrics.gather = gather
    assert 'replica="far"' in client.get("/metrics").text
    written = {"role": "assistant", "content": "Hello there."}
    assert ask(past).json()["choices"] == ask(written).json()["choices"]


def test_what_ray_is_told():
    fixed = deployment_options(Settings(replicas="3", drain_seconds=7, replica_cpus=2))
    assert fixed["num_replicas"] == 3 and "autoscaling_config" not in fixed
    assert fixed["ray_actor_options"] == {"num_cpus": 2, "num_gpus": 0}
    assert fixed["graceful_shutdown_timeout_s"] > 7
    # or Ray's queue would hide that the replica is full, and no client would be told when to come again
    assert fixed["max_ongoing_requests"] > Settings().max_sessions + Settings().queue_size
    scaled = deployment_options(Settings(replicas="2-8", replica_load=5))
    limits = scaled["autoscaling_config"]
    assert (limits["min_replicas"], limits["max_replicas"], limits["target_ongoing_requests"]) == (2, 8, 5)  # fmt: skip
    assert "num_replicas" not in scaled
    gpus = lambda **given: deployment_options(Settings(**given))["ray_actor_options"]["num_gpus"]  # noqa: E731
    assert gpus(device="cuda") == 1 and gpus(device="cuda", replica_gpus=0.5) == 0.5
    assert gpus(placement="thinker=cuda:0,talker=cuda:1") == 2


@pytest.mark.parametrize("text", ["0", "-1", "3-2", "two", "1-", "1.5", ""])
def test_no_such_number_of_replicas(text: str):
    with pytest.raises(ConfigError, match=r"^--replicas .*MIN-MAX"):
        Settings(replicas=text)


def test_workers_and_replicas_do_not_go_together():
    with pytest.raises(ConfigError, match=r"--workers 2: expected 1 with --ray"):
        Settings(ray=True, workers=2)


def test_paths_are_those_of_every_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    settings = _absolute(Settings(model="here", voices_dir="voices"))
    assert settings.model == os.path.join(tmp_path, "here")
    assert settings.voices_dir == os.path.join(tmp_path, "voices")  # it may be made later
    assert _absolute(Settings(model="nano")).model == "nano"  # a name, not a path


def test_our_own_error_is_found_in_what_ray_says():
    told = "Deploying application thinktalk failed: ...\nTraceback (most recent call last):\n  File x\nthinktalk.errors.WeightsError: no-such: expected a directory\n"
    assert _reason(told) == "no-such: expected a directory"
    assert _reason("Out of\nmemory") == "serve --ray: Out of memory"


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'thinktalk\[serve,ray\]'"):
        serve_by_ray(Settings(ray=True), on_ready=print)
