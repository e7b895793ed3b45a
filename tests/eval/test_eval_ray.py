"""A job of Ray: each share asks its own part, and the report has them all."""

from __future__ import annotations

import json
import sys

import pytest
from published_sets import MAKERS

from thinktalk.errors import ConfigError
from thinktalk.eval import ray_job


def test_what_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="0 shares"):
        ray_job.run(["librispeech"], 0)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(ConfigError, match=r"thinktalk\[ray\]"):
        ray_job.run(["librispeech"], 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_two_shares_and_a_report(tiny_checkpoint, tmp_path):
    ray = pytest.importorskip("ray")
    MAKERS["librispeech"](tmp_path / "sets")
    words = ["librispeech", "--model", tiny_checkpoint, "--data", str(tmp_path / "sets"), "--out", str(tmp_path / "out")]  # fmt: skip
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        assert ray_job.run(words, 2) == 0
    finally:
        ray.shutdown()
    parts = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "out/items").iterdir())
    assert parts == [f"librispeech_test-clean.part{n}of2" for n in range(2)]
    rows = json.loads((tmp_path / "out/librispeech.json").read_text())["rows"]
    assert [len(row["tops"]) for row in rows if not row["missing"]] == [2]
