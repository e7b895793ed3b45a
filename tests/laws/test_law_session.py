"""A session forked, or saved and loaded in another process, goes on to the bit; a hostile file is refused in one line."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from session_house import assert_same_reply, engine, omni, options, reply_of, speech

from thinktalk.engine.session import Session
from thinktalk.errors import InputError

MORE = "And now?"


def drawn_life(session: Session, acts: list[int]) -> None:
    """A conversation from numbers: sound, words, pictures, replies, interruptions."""
    for n, act in enumerate(acts):
        if act == 0:
            session.hear(speech(1.3, n))
        elif act == 1:
            session.text(f"word {n} ")
        elif act == 2:
            frame = np.random.default_rng(n).integers(0, 256, (28, 56, 3), dtype=np.uint8)
            session.see(frame, float(n))
        elif act == 3:
            session.text("?")
            list(session.respond_sync(max_codes=14))
        elif act == 4:
            session.text("!")
            events = session.respond_sync()
            for _ in range(3):
                next(events, None)
            session.interrupt(heard_s=0.05)


def rest_of_life(session: Session) -> tuple:
    """What comes of it from here on, to the bit."""
    session.hear(speech(2.2, 99))
    session.text(MORE)
    first = reply_of(session.respond_sync())
    session.hear(speech(0.4, 98))
    second = reply_of(session.respond_sync(speech=False))
    memory = session._seat.memory
    keys = memory.thinker.layers[-1].k[:, :, : memory.thinker.extent].clone()
    return first, second, keys, session.history


def assert_same_life(ours: tuple, theirs: tuple) -> None:
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        assert_same_reply(mine, other)
    assert np.array_equal(ours[0].audio, theirs[0].audio)
    assert torch.equal(ours[2], theirs[2])
    assert ours[3] == theirs[3]


@settings(max_examples=6)
@given(acts=st.lists(st.integers(0, 4), max_size=6))
def test_forks_and_saved_sessions_go_on_to_the_bit(acts, tmp_path_factory):
    session = Session(engine(), options=options(greedy=False, seed=4))
    drawn_life(session, acts)
    path = tmp_path_factory.mktemp("saved") / "session.safetensors"
    session.save(path)
    fork, loaded = session.fork(), Session.load(path, engine())
    assert loaded.history == fork.history == session.history
    assert loaded.tokens == session.tokens
    theirs = rest_of_life(fork)  # first: it must not change the original
    assert_same_life(rest_of_life(session), theirs)
    assert_same_life(rest_of_life(loaded), theirs)


OTHER_PROCESS = """
import sys
sys.path[:0] = {paths!r}
import torch
torch.set_num_threads(1)
import test_law_session as law
session = law.Session.load({path!r}, law.engine())
first, second, keys, history = law.rest_of_life(session)
torch.save({{"ids": first.token_ids + second.token_ids, "codes": first.codes,
            "audio": torch.from_numpy(first.audio), "keys": keys}}, {out!r})
assert "torch._dynamo" not in sys.modules, "torch's compiler was imported: two seconds of every start"
"""


def test_resumed_in_another_process(tmp_path):
    session = Session(engine(), options=options(greedy=False, seed=4))
    drawn_life(session, [0, 1, 3, 2, 0])
    path, out = tmp_path / "session.safetensors", tmp_path / "out.pt"
    session.save(path)
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = OTHER_PROCESS.format(paths=paths, path=str(path), out=str(out))
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)
    there = torch.load(out, weights_only=True)
    first, second, keys, _ = rest_of_life(session)
    assert there["ids"] == first.token_ids + second.token_ids
    assert there["codes"] == first.codes
    assert torch.equal(there["audio"], torch.from_numpy(first.audio))
    assert torch.equal(there["keys"], keys)


def test_a_session_that_speaks_is_not_saved(tmp_path):
    session = Session(engine(), options=options())
    session.text("Hello")
    events = session.respond_sync()
    next(events)
    for what in (session.fork, lambda: session.save(tmp_path / "s")):
        with pytest.raises(InputError, match="replying"):
            what()
    session.interrupt()
    session.save(tmp_path / "s")
    with pytest.raises(InputError, match="cannot be written"):
        session.save(tmp_path / "no" / "such" / "place")


# --------------------------------------------------------------------------------------------------------- hostile files


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    session = Session(engine(), options=options())
    drawn_life(session, [1, 3, 2, 0])
    path = tmp_path_factory.mktemp("hostile") / "session.safetensors"
    session.save(path)
    return path


def parts(path: Path) -> tuple[dict, dict, bytes]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["thinktalk.session"]), data[8 + length :]


def written(path: Path, header: dict, record: dict, body: bytes) -> Path:
    header = header | {"__metadata__": {"thinktalk.session": json.dumps(record)}}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def leaves(value, place=()):
    """Every number, string and tensor of a record, with its place."""
    if isinstance(value, dict) and "tensor" not in value:
        for key, item in value.items():
            yield from leaves(item, (*place, key))
    elif isinstance(value, list):
        for n, item in enumerate(value):
            yield from leaves(item, (*place, n))
    else:
        yield place


def test_every_part_is_checked(saved, tmp_path):
    """Each leaf of the record in turn becomes what it must not be: refused, never a crash, never executed."""
    header, record, body = parts(saved)
    free = {
        "fps",
        "history",
        "voice",
        "seed",
        "peak",
        "faintest",
        "faintest_before",
    }  # any number or word will do
    wrong = ({"tensor": "session.nothing"}, -(1 << 70), float("nan"), "x" * 50, [], None)
    house, refused = engine(max_sessions=1000), 0
    for place in leaves(record):
        for value in wrong:
            changed = json.loads(json.dumps(record))
            spot = changed
            for key in place[:-1]:
                spot = spot[key]
            if type(spot[place[-1]]) is type(value):
                continue
            spot[place[-1]] = value
            path = written(tmp_path / "changed", header, changed, body)
            try:
                Session.load(path, house).close()
            except InputError as error:
                refused += "\n" not in str(error)
            else:  # absent where it may be absent
                assert value is None or place[-1] in free or isinstance(value, float), place
    assert refused > 200


def test_damaged_files(saved, tmp_path):
    data, house = saved.read_bytes(), engine(max_sessions=1000)
    rng = np.random.default_rng(0)
    cases = [b"", b"PK\x03\x04", b"\x80\x04pickle", data[:100], data[:-1], data + b"x"]
    for _ in range(40):
        spoilt = bytearray(data)
        for at in rng.integers(0, len(data) // 8, 3):
            spoilt[at] ^= int(rng.integers(1, 256))
        cases.append(bytes(spoilt))
    for case in cases:
        path = tmp_path / "damaged"
        path.write_bytes(case)
        with contextlib.suppress(
            InputError
        ):  # or the change does not matter; anything else fails here
            Session.load(path, house).close()
    for name, case in zip(("empty", "zip", "pickle", "short", "cut", "long"), cases, strict=False):
        (tmp_path / name).write_bytes(case)
        with pytest.raises(InputError):
            Session.load(tmp_path / name, house)
    with pytest.raises(InputError):
        Session.load(tmp_path / "absent", house)


def test_memory_that_is_not_finite_is_refused(saved, tmp_path):
    header, record, body = parts(saved)
    start = header["session.thinker.keys"]["data_offsets"][0]
    body = body[:start] + np.float64("nan").tobytes() + body[start + 8 :]
    with pytest.raises(InputError, match="NaN"):
        Session.load(written(tmp_path / "nan", header, record, body), engine())


def test_another_model_is_refused(saved):
    from thinktalk.engine.engine import Engine
    from thinktalk.weights.random import random_model

    model, tokenizer = omni()
    other = random_model(model.config, seed=9)
    other.voices["default"] = other.voices["Chelsie"]
    other.thinker.double(), other.talker.double()
    with pytest.raises(InputError, match="another model"):
        Session.load(saved, Engine(other, tokenizer))


def test_planted_faults_are_caught(monkeypatch, tmp_path):
    """A file that forgets what the Talker first heard, or the last 2.5 ms of sound, does not go on as the original."""
    from thinktalk.engine import session as module

    session = Session(engine(), options=options())
    drawn_life(session, [1, 3, 0])
    session.save(tmp_path / "session")
    fork = rest_of_life(session.fork())
    assert_same_life(rest_of_life(Session.load(tmp_path / "session", engine())), fork)
    read = module.load_record

    def forgets_a_token(path, house):
        record = read(path, house)
        record.talker.keys[:, :, 0] = 0
        return record

    def forgets_sound(path, house):
        record = read(path, house)
        record.state.live.mel.pcm = record.state.live.mel.pcm * 0
        return record

    for fault in (forgets_a_token, forgets_sound):
        with monkeypatch.context() as patch:
            patch.setattr(module, "load_record", fault)
            with pytest.raises(AssertionError):
                assert_same_life(rest_of_life(Session.load(tmp_path / "session", engine())), fork)
