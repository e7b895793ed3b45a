"""Conformance: every law is kept by ours and by transformers, and each breaks when its fault is planted."""

from __future__ import annotations

import ast
import inspect
import json

import pytest
import torch

from thinktalk.cli import conformance as command
from thinktalk.cli.main import main
from thinktalk.code2wav import blocks as dit_blocks
from thinktalk.encoders.audio import AudioEncoder
from thinktalk.eval.conformance import (
    INVARIANTS,
    PLANTS,
    Implementation,
    examine,
    load_layouts,
    upstream,
)
from thinktalk.eval.conformance import positions as laws_of_ids
from thinktalk.eval.conformance import speaking as laws_of_speech
from thinktalk.eval.conformance.layouts import audio_counts, read_table
from thinktalk.eval.conformance.making import make_table, written
from thinktalk.eval.conformance.ours import Ours
from thinktalk.eval.conformance.rotating import DIT_TURNS
from thinktalk.eval.conformance.upstream import Upstream
from thinktalk.layers import rope
from thinktalk.media.timeline import Timeline
from thinktalk.talker.prepare import TalkerFeed


@pytest.fixture(scope="module")
def ours() -> Ours:
    return Ours()


@pytest.fixture(scope="module")
def theirs() -> Upstream:
    return Upstream()


def broken(implementation, keys: tuple[str, ...] = ()) -> dict[str, str]:
    """What broke, and how."""
    asked = [law for law in INVARIANTS if not keys or law.key in keys]
    return {f.key: f.detail for f in examine(implementation, asked) if f.outcome == "broken"}


def test_every_law_is_kept(ours: Ours, theirs: Upstream) -> None:
    assert broken(ours) == {}
    found = {f.key: f for f in examine(theirs, INVARIANTS)}
    outcomes = {key: f.outcome for key, f in found.items() if f.outcome != "kept"}
    assert outcomes == dict.fromkeys(("ids.mixed", "order.rates", "talker.inputs-alone"), "known")
    assert "codec pad" in found["talker.inputs-alone"].detail


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_shipped_faults_are_named(side: str, request: pytest.FixtureRequest) -> None:
    implementation = request.getfixturevalue(side)
    with implementation.planted("dit-rope"):
        found = broken(implementation)
        assert list(found) == ["dit.rope"] and "October 2025 to July 2026" in found["dit.rope"]
    with implementation.planted("av-ids"):
        found = broken(implementation)
        assert list(found) == ["ids.audio-in-video", "ids.turns", "ids.marks"]
        assert "all by +1; as with the sound one id too late" in found["ids.audio-in-video"]
    assert broken(implementation, ("dit.rope", "ids.turns")) == {}, "a plant is taken out again"


# ------------------------------------------------------------------------------------------------------ a fault for each law


def _shift(name):
    """Ids of a kind of span one too high."""

    def plant(patch):
        place = Timeline.place
        patch.setattr(Timeline, "place", lambda self, span: place(self, span) + (type(span).__name__ == name))  # fmt: skip

    return plant


def _untrimmed(patch):
    patch.setattr("thinktalk.eval.conformance.ours.audio_token_count", lambda n: n // 4)


def _no_restart(patch):
    """Positions of the sound go on from block to block: here, every block knows its number."""
    encode = AudioEncoder.encode
    patch.setattr(AudioEncoder, "encode", lambda self, mels: [t + torch.arange(len(t))[:, None] // 50 for t in encode(self, mels)])  # fmt: skip


def _pictures_know_their_time(patch):
    see = Ours.see
    patch.setattr(Ours, "see", lambda self, x, grid: see(self, x, grid) + torch.arange(len(x) // 4)[:, None] // 10)  # fmt: skip


def _flat_positions(patch):
    turns = rope.rotary
    patch.setattr("thinktalk.eval.conformance.ours.rotary", lambda p, **more: turns(p[:, :1].expand_as(p), **more))  # fmt: skip


def _blind_blocks(patch):
    """No layer hears its neighbours."""
    lay_out = dit_blocks.lay_out

    def alone(*args, **more):
        laid = lay_out(*args, **more)
        size = laid.size
        for mask, own in ((laid.back, slice(size, None)), (laid.ahead, slice(size)), (laid.around, slice(size, 2 * size))):  # fmt: skip
            hidden = torch.ones(mask.shape[-1], dtype=torch.bool)
            hidden[own] = False
            mask &= ~hidden
        return laid

    patch.setattr("thinktalk.code2wav.dit.lay_out", alone)


def _embedded_media(patch):
    patch.setattr("thinktalk.pipeline.merge_media", lambda e, ids, media: (e, e))


def _early_words(patch):
    opening = TalkerFeed.opening

    def skip(feed):
        feed.waiting.pop(0)
        return opening(feed)

    patch.setattr(TalkerFeed, "opening", skip)


def _late_talker(patch):
    opening = TalkerFeed.opening

    def late(feed):
        feed.latest = feed.latest + 1
        return opening(feed)

    patch.setattr(TalkerFeed, "opening", late)


def _sampled(order):
    def plant(patch):
        steps = laws_of_speech.ORDERS[order]
        patch.setattr(Ours, "probabilities", lambda self, *case: laws_of_speech.drawn_from(steps, *case))  # fmt: skip

    return plant


def _even_flow(patch):
    from thinktalk.code2wav.flow import plan

    patch.setattr("thinktalk.eval.conformance.ours.plan", lambda dit: plan(dit, sway=None))


def _backwards(patch):
    patch.setattr(Ours, "order", lambda self, video, order=Ours.order: order(self, video)[::-1])


def _one_flag(patch):
    """Videos are silent where the first one is."""
    place = Timeline.place

    def flagged(self, span):
        positions = place(self, span)
        self.silent = getattr(self, "silent", False) or getattr(span, "audio_tokens", 1) == 0
        return positions + (self.silent and getattr(span, "audio_tokens", 0) > 0)

    patch.setattr("thinktalk.media.timeline.Timeline", type("Flagged", (Timeline,), {"place": flagged}))  # fmt: skip


def _double_times(patch):
    def precise(grids, seconds, *, positions_per_second=25):
        return torch.arange(grids, dtype=torch.float64) * seconds * positions_per_second

    patch.setattr("thinktalk.media.timeline.grid_times", precise)


def _far_generation(patch):
    patch.setattr(Timeline, "delta", property(lambda self: self.following - self.tokens))


FAULTS = {
    "ids.text": (_shift("Text"), "one-token"),
    "ids.audio": (_shift("Audio"), "all by +1"),
    "ids.image": (_shift("Image"), "all by +1"),
    "ids.video": (_shift("Video"), "all by +1"),
    "ids.mixed": (_one_flag, "stand elsewhere"),
    "order.rates": (_double_times, "1.3 frames a second"),
    "ids.generation": (_far_generation, "heard-taller"),
    "order.audio-in-video": (_backwards, "heard"),
    "audio.count": (_untrimmed, "3 mel frames: 0 tokens, expected 1"),
    "audio.blocks": (_no_restart, "do not begin anew"),
    "vision.frames": (_pictures_know_their_time, "pair 1"),
    "rope.sections": (_flat_positions, "no TMRoPE"),
    "dit.window": (_blind_blocks, "the one before"),
    "talker.inputs": (_early_words, "first word"),
    "talker.inputs-alone": (_embedded_media, "its embedding must be zero"),
    "talker.ids": (_late_talker, "stands at"),
    "flow.times": (_even_flow, "evaluation 1 is at"),
} | {f"sampler.order, {order}": (_sampled(order), order) for order in laws_of_speech.ORDERS}


@pytest.mark.parametrize("key", FAULTS)
def test_planted_fault_is_found(key: str, ours: Ours, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, hint = FAULTS[key]
    law = key.partition(",")[0]
    plant(monkeypatch)
    found = broken(ours, (law,))
    assert law in found and hint in found[law]


def test_every_law_has_its_fault() -> None:
    planted = {key.partition(",")[0] for key in FAULTS} | {"dit.rope", "ids.audio-in-video", "ids.turns", "ids.marks"}  # fmt: skip
    assert planted == {law.key for law in INVARIANTS}
    assert len({law.key for law in INVARIANTS}) == len(INVARIANTS)


def test_other_shipped_faults_have_names(ours: Ours, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ids of all pictures, then of all sound, on tokens that are interleaved: transformers 4.51."""
    by_name = {layout.name: layout for layout in load_layouts()}
    ids = laws_of_ids._unchunked(by_name["heard"])
    monkeypatch.setattr(Ours, "positions", lambda self, layout: (ids, layout.delta))
    assert "37631" in broken(ours, ("ids.audio-in-video",))["ids.audio-in-video"]
    turns = [turn(torch.randn(30, 16, dtype=torch.float64)) for turn in DIT_TURNS.values()]
    assert len({t.sum().item() for t in turns}) == len(turns)


# ----------------------------------------------------------------------------------------------------------------- the table


def test_the_table_is_what_it_was_made_by(ours: Ours, theirs: Upstream) -> None:
    table = read_table()
    assert make_table(theirs) == table
    assert make_table(ours) == table | {"source": f"thinktalk {ours.version}"}
    assert json.loads(written(table)) == table


def test_the_table_serves_without_thinktalk() -> None:
    """Only plain numbers: runs sum up, every row has an id a token, media fit their placeholders."""
    table, groups = read_table(), set()
    token = table["token_ids"]
    for layout in table["layouts"]:
        counts = {kind: sum(n for i, n in layout["input_id_runs"] if i == token[kind]) for kind in token}  # fmt: skip
        length = sum(n for _, n in layout["input_id_runs"])
        assert [len(axis) for axis in layout["position_ids"]] == [length] * 3
        assert counts["image"] == sum(t * h * w // 4 for t, h, w in layout["image_grid_thw"])
        assert counts["video"] == sum(t * h * w // 4 for t, h, w in layout["video_grid_thw"])
        assert len(layout["second_per_grids"]) == len(layout["video_grid_thw"])
        assert counts["audio"] == sum((n + 1) // 2 // 2 for n in layout["audio_seqlens"])
        assert layout["rope_delta"] == max(map(max, layout["position_ids"])) + 1 - length
        groups.add(layout["group"])
    assert groups == {"text", "audio", "image", "video", "audio-in-video", "turns"}
    assert audio_counts()[30000] == 7500


# --------------------------------------------------------------------------------------------------------------- the command


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["eval", "conformance", "--of", "thinktalk"]) == 0
    assert "dit.rope" in capsys.readouterr().out
    assert main(["eval", "conformance", "--of", "thinktalk", "--plant", "av-ids"]) == 1
    told = capsys.readouterr()
    assert "ids.marks" in told.out and "broken" in told.out and "av-ids planted" in told.err
    assert main(["eval", "conformance", "--of", "thinktalk", "--plant", "dit-rope", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["broken"], said["planted"]) == (1, "dit-rope")
    assert main(["eval", "conformance", "nano"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["eval", "conformance", "--of", "nobody:Nothing"]) == 2
    assert "MODULE:CLASS" in capsys.readouterr().err
    monkeypatch.setattr(upstream, "version", lambda name: (_ for _ in ()).throw(upstream.PackageNotFoundError(name)))  # fmt: skip
    assert main(["eval", "conformance"]) == 0
    assert "not examined: transformers" in capsys.readouterr().err
    assert set(command.PLANTS) == set(PLANTS)


class Other(Implementation):
    """Somebody else's, of which little is asked, and less is well."""

    name = "other"

    def audio_tokens(self, mel_frames: int) -> int:
        return (mel_frames + 1) // 2 // 2

    def see(self, patches: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
        raise RuntimeError("no eyes\nat all")


def test_another_implementation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "conformance", "--of", f"{__name__}:Other", "--json"]) == 1
    found = {f["key"]: (f["outcome"], f["detail"]) for f in json.loads(capsys.readouterr().out)["findings"]}  # fmt: skip
    assert found.pop("audio.count") == ("kept", "")
    assert found.pop("vision.frames") == ("broken", "raised RuntimeError: no eyes at all")
    assert {outcome for outcome, _ in found.values()} == {"not asked"}
    assert main(["eval", "conformance", "--of", f"{__name__}:Other", "--plant", "av-ids"]) == 2
    assert "cannot be broken on purpose" in capsys.readouterr().err


def test_transformers_is_imported_only_when_asked() -> None:
    tree = ast.parse(inspect.getsource(upstream))
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any("transformers" in ast.dump(node) for node in at_once)
