"""The ledger of a reply: its parts add up, the playback clock sees every late stretch, a planted late one included."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinktalk.engine.ledger import Ledger

EXACT = 1e-9  # float64 sums of a few dozen times of some seconds


def told(late_s: float = 0.0) -> Ledger:
    """A reply asked for at 100 s: two steps, a wait of 0.1 s, then two stretches of 0.5 s of sound, the second `late_s` late."""
    ledger = Ledger(100.0)
    ledger.enter("BEGIN", 100.1)
    ledger.note("first_token", 100.2)
    ledger.leave(100.25)
    ledger.enter("OPEN", 100.25, company=4)
    ledger.note("first_code", 100.3)
    ledger.leave(100.3)
    ledger.enter("SOUND", 100.4, company=2)
    ledger.sound(0.5, 100.6)
    ledger.leave(100.6)
    ledger.enter("SOUND", 100.7)
    ledger.sound(0.5, 101.1 + late_s)
    ledger.leave(101.1 + late_s)
    ledger.note("done", 101.2 + late_s)
    return ledger


def check_plays_through(ledger: Ledger) -> None:
    assert ledger.underruns == 0
    assert ledger.underrun_s == 0.0


def test_parts_add_up_to_the_first_sound():
    latency = told().latency(102.0)
    assert latency.input_ms == pytest.approx(200)
    assert latency.text_to_code_ms == pytest.approx(100)
    assert latency.code_to_sound_ms == pytest.approx(300)
    assert latency.first_sound_ms == pytest.approx(600)
    assert latency.steps_ms == pytest.approx(150 + 50 + 200)  # it waited 0.1 s before and between
    assert latency.total_ms == pytest.approx(1200)
    assert latency.real_time_factor == pytest.approx(1.1)
    # alone 0.15 and 0.4 s, with three others 0.05 s, with one other 0.2 s; over 1 s of sound
    assert latency.work_factor == pytest.approx(0.15 + 0.05 / 4 + 0.2 / 2 + 0.4)


def test_what_comes_just_in_time_is_no_underrun():
    ledger = told()
    check_plays_through(ledger)
    assert ledger.margin_s == pytest.approx(0.0, abs=EXACT)
    assert ledger.dry_at == pytest.approx(101.6)


def test_planted_late_sound_is_found():
    ledger = told(late_s=0.05)
    with pytest.raises(AssertionError):
        check_plays_through(ledger)
    latency = ledger.latency(102.0)
    assert (latency.underruns, latency.margin_ms) == (1, 0.0)
    assert latency.underrun_ms == pytest.approx(50)
    assert ledger.dry_at == pytest.approx(101.65)  # he hears what came late from then on


@given(
    st.lists(
        st.tuples(st.floats(0.01, 2), st.floats(0, 2)), min_size=1, max_size=12
    )  # length, time since the one before
)
def test_playback_clock_against_the_plain_definition(stretches):
    """Play time = sound + silences; each silence is what a stretch came after the end of the one before."""
    ledger, now, over, silence, late = Ledger(0.0), 0.0, None, 0.0, 0
    for seconds, after in stretches:
        now += after
        ledger.sound(seconds, now)
        gap = 0.0 if over is None else max(0.0, now - over)
        late, silence = late + (gap > 0), silence + gap
        over = (now if over is None else over + gap) + seconds
    assert ledger.underruns == late
    assert ledger.underrun_s == pytest.approx(silence, abs=EXACT)
    first_s, total_s = stretches[0][1], sum(seconds for seconds, _ in stretches)
    assert ledger.dry_at == pytest.approx(first_s + total_s + silence, abs=EXACT)
    assert not late or ledger.margin_s == 0.0


def test_a_reply_without_speech_has_no_sound_to_tell_of():
    ledger = Ledger(1.0)
    ledger.note("first_token", 1.5)
    latency = ledger.latency(3.0)
    assert (latency.input_ms, latency.total_ms, latency.underruns) == (500.0, 2000.0, 0)
    for name in ("text_to_code", "code_to_sound", "steps", "first_sound", "margin"):
        assert getattr(latency, f"{name}_ms") is None
    assert latency.real_time_factor is latency.work_factor is None


def test_only_the_first_time_counts_and_a_step_under_way_counts_so_far():
    ledger = Ledger(0.0)
    ledger.note("first_token", 1.0)
    ledger.note("first_token", 9.0)
    ledger.leave(9.0)  # nothing was under way
    ledger.enter("SOUND", 2.0, company=2)
    ledger.sound(1.0, 3.0)
    assert ledger.moments["first_token"] == 1.0
    assert ledger.latency(4.0).work_factor == 1.0  # (4 - 2) / 2 of a second of sound
    assert ledger.latency(4.0).steps_ms == 1000.0
