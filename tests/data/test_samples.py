"""Samples: what a record says can be used, or the sample is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_house import RATE, record, tone

from thinktalk.data.samples import Sample, check_record, parse
from thinktalk.data.shards import ShardWriter, scan
from thinktalk.errors import InputError

CHAT = [
    {"role": "user", "content": [{"type": "audio", "audio": "wav"}, {"type": "text", "text": "?"}]},
    {"role": "assistant", "content": "Yes."},
]


def check(content: dict, members=frozenset({"wav", "json"})) -> dict:
    return check_record(json.dumps(content).encode(), set(members), where="a.tar/7")


def test_a_sample_is_what_was_written(tmp_path):
    with ShardWriter(tmp_path / "a") as shards:
        written = record(4) | {"messages": CHAT, "mood": "glad", "language": None}
        shards.write("x", {"json": json.dumps(written).encode(), "wav": tone(0.5)})
    sample = parse(scan(shards.paths[0]).entries[0])
    assert sample.text == "Sentence number 4." and sample.voice == "voice1"
    assert sample.phones == ["a", "b", "c"] and sample.durations.tolist() == [2, 3, 4, 5, 6]
    assert sample.codes is not None and sample.codes.tolist() == [4, 1, 2]
    assert sample.seconds == 0.5 and sample.frame_seconds == 0.025
    assert sample.record["mood"] == "glad"  # fields of others are kept
    assert "language" not in sample.record
    pcm = sample.pcm(RATE)
    assert len(pcm) == 0.5 * RATE
    # 16-bit sound of a 0.3 sine: half a step of rounding
    assert np.abs(pcm - 0.3 * np.sin(2 * np.pi * 220 * np.arange(len(pcm)) / RATE)).max() < 1e-4
    assert sample.resolved()[0]["content"][0]["audio"] == sample.media["wav"]
    assert sample.messages == CHAT


def test_durations_label_every_frame():
    """The corpus' law: silence, one a phone, silence; together the length of the sound."""
    assert check(record(0))["durations"] == [2, 3, 4, 5, 6]
    with pytest.raises(InputError, match=r"a.tar/7.json: 4 durations for 3 phones"):
        check(record(0) | {"durations": [1, 2, 3, 14]})
    with pytest.raises(InputError, match=r"durations sum to 0.550 s, seconds is 0.5"):
        check(record(0) | {"durations": [2, 3, 4, 5, 8]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": 3}, "text is 3, expected a string"),
        ({"seconds": "long"}, "seconds is 'long'"),
        ({"seconds": True}, "seconds is True"),
        ({"codes": [1, -1]}, "codes is"),
        ({"codes": [1, 2.5]}, "codes is"),
        ({"frame_seconds": 0}, "frame_seconds is 0"),
        ({"phones": [1]}, "phones is"),
        ({"messages": "hi"}, "messages is 'hi'"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role 'robot' is unknown"),
        ({"messages": [{"role": "user", "content": [{"type": "audio", "audio": "opus"}]}]}, "names the member 'opus', the sample has wav"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "image": "/etc/passwd"}]}]}, "names the member '/etc/passwd'"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "image": "json"}]}]}, "names the member 'json'"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_by_name(change: dict, message: str):
    check({"messages": CHAT})
    with pytest.raises(InputError) as error:
        check(change)
    assert message in str(error.value) and str(error.value).startswith("a.tar/7.json: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"seconds": NaN}']
)
def test_no_record(content: bytes):
    with pytest.raises(InputError, match=r"a.tar/7.json"):
        check_record(content, set(), where="a.tar/7")


JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "audio"]), x), max_leaves=8)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["messages", "text", "durations", "codes", "seconds"]), JSON)
)
def test_any_json_is_a_record_or_refused(content: dict):
    reason = ""
    try:
        check(content)
    except InputError as error:
        reason = str(error)
    assert not reason or reason.startswith("a.tar/7.json: ")


def test_sound_that_is_none_is_named():
    sample = Sample(where="a.tar/7", record={}, media={"wav": b"RIFF nonsense"})
    with pytest.raises(InputError, match=r"a.tar/7.wav"):
        sample.pcm(RATE)
    with pytest.raises(InputError, match="has no media, expected sound"):
        Sample(where="a.tar/7", record={}).pcm(RATE)
