"""RowPool: whoever steps with whom, each conversation gets what it gets alone."""

from __future__ import annotations

import pytest
import torch

from thinktalk.config import DecoderConfig
from thinktalk.engine import pool as pool_file
from thinktalk.engine.pool import RowPool, SharedRows
from thinktalk.layers.kv_cache import DecoderState
from thinktalk.messages import Embedded
from thinktalk.thinker.model import Thinker

CONFIG = DecoderConfig(
    vocab_size=50, width=24, ffn_width=40, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, mrope_section=(1, 1, 2),
    max_positions=512,
)  # fmt: skip
TOLERANCE = 1e-12  # float64 rounds at 1e-16; sums over 100 slots in another order


@pytest.fixture(scope="module")
def thinker() -> Thinker:
    torch.manual_seed(0)
    return Thinker(CONFIG).eval().double()


def tokens(seed: int, count: int) -> Embedded:
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(1, count, 24, generator=generator, dtype=torch.float64)
    return Embedded(embeds, torch.randint(0, 60, (1, 3, count), generator=generator))


class Conversation:
    """One row, and its twin that never meets anybody."""

    def __init__(self, thinker: Thinker, seed: int, length: int, capacity: int = 0):
        self.thinker, self.seed, self.count = thinker, seed, 0
        state = thinker.init_state(1, dtype=torch.float64, capacity=capacity)
        thinker.step(tokens(seed, length), state)
        self.alone, self.own = state.fork(), state
        self.row = None

    def next(self) -> Embedded:
        self.count += 1
        return tokens(1000 * self.seed + self.count, 1)


def step(pool: RowPool, rows: list[Conversation]) -> None:
    """One token of each, in the pool and alone; the same hidden states."""
    given = [row.next() for row in rows]
    x = Embedded(torch.cat([g.embeds for g in given]), torch.cat([g.positions for g in given]))
    hidden = pool.step([row.row for row in rows], x)
    for row, one, got in zip(rows, given, hidden.split(1), strict=True):
        torch.testing.assert_close(got, row.thinker.step(one, row.alone), rtol=0, atol=TOLERANCE)


def live_through(thinker: Thinker, lengths: list[int], seed: int = 0) -> RowPool:
    """Conversations join, skip steps, leave, come back with less, in an order drawn from the seed."""
    draw = torch.Generator().manual_seed(seed)
    pool, talks = (
        RowPool(thinker),
        [Conversation(thinker, i + 1, n) for i, n in enumerate(lengths)],
    )
    for _ in range(60):
        who = talks[int(torch.randint(len(talks), (1,), generator=draw))]
        what = int(torch.randint(5, (1,), generator=draw))
        inside = [t for t in talks if t.row is not None]
        if what == 0 and who.row is None:
            who.row = pool.join(who.own)
        elif what == 1 and who.row is not None:
            keep = max(1, who.row.length - int(torch.randint(4, (1,), generator=draw)))
            who.own, who.row = pool.leave(who.row, keep=keep), None
            who.alone.trim(keep)
        elif inside:
            lanes = {id(t.row.lane) for t in inside}
            for lane in lanes:
                there = [t for t in inside if id(t.row.lane) == lane]
                chosen = [t for t in there if torch.rand(1, generator=draw) < 0.8] or there
                step(pool, sorted(chosen, key=lambda t: t.row.index))
    for talk in talks:
        if talk.row is not None:
            pool.leave(talk.row)
    assert len(pool) == 0 and pool.num_bytes == 0, "an empty pool holds nothing"
    return pool


@pytest.mark.parametrize("seed", range(4))
def test_rows_come_and_go_and_nobody_notices(thinker: Thinker, seed: int) -> None:
    live_through(thinker, [3, 9, 70, 1, 130], seed)


def test_equal_lengths_need_no_mask(thinker: Thinker) -> None:
    pool = RowPool(thinker)
    talks = [Conversation(thinker, i + 1, 12) for i in range(3)]
    for talk in talks:
        talk.row = pool.join(talk.own)
    for _ in range(70):  # over the edge of what was reserved
        step(pool, talks)
    assert talks[0].row.lane.state.reach(1, torch.float64).mask is None


def test_long_conversations_have_a_lane_of_their_own(
    thinker: Thinker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_file, "LANES", (16, 64, 256))
    pool = live_through(thinker, [3, 9, 12, 40, 100], seed=9)
    talks = [Conversation(thinker, i + 1, n) for i, n in enumerate([13, 14, 3])]
    for talk in talks:
        talk.row = pool.join(talk.own)
    for _ in range(5):  # the first two outgrow the others, one after the other
        for lane in {talk.row.lane for talk in talks}:
            step(pool, [t for t in sorted(talks, key=lambda t: t.row.index) if t.row.lane is lane])
    assert [talk.row.lane.limit for talk in talks] == [64, 64, 16]
    step(pool, [talks[2]])


def test_the_only_row_keeps_its_memory(thinker: Thinker) -> None:
    pool, talk = RowPool(thinker), Conversation(thinker, 1, 20, capacity=100)
    memory = talk.own.layers[0].k.data_ptr()
    talk.row = pool.join(talk.own)
    step(pool, [talk])
    assert pool.leave(talk.row).layers[0].k.data_ptr() == memory, "nothing was copied"


def test_what_is_not_finite_stays_with_its_row(thinker: Thinker) -> None:
    pool = RowPool(thinker)
    talks = [Conversation(thinker, i + 1, n) for i, n in enumerate([70, 40, 10])]
    for talk in talks:
        talk.row = pool.join(talk.own)
    poison = tokens(1, 1)
    poison.embeds.fill_(float("nan"))
    for _ in range(3):
        pool.step([talks[2].row], poison)
    step(pool, talks[:2])
    pool.leave(talks[2].row)
    late = Conversation(thinker, 8, 5)  # sits where the other one sat
    late.row = pool.join(late.own)
    step(pool, [talks[0], talks[1], late])


def test_memory_follows_the_number_of_rows(thinker: Thinker) -> None:
    pool = RowPool(thinker)
    talks = [Conversation(thinker, i + 1, 10) for i in range(16)]
    for talk in talks:
        talk.row = pool.join(talk.own)
    full = pool.num_bytes
    for talk in talks[2:]:
        pool.leave(talk.row)
    assert pool.num_bytes <= full / 4
    step(pool, talks[:2])


@pytest.mark.parametrize("fault", ["rows not cleared", "a neighbour's slot", "absent rows go on", "mask one short"])  # fmt: skip
def test_planted_faults_are_found(thinker: Thinker, fault: str, monkeypatch) -> None:
    if fault == "rows not cleared":

        def put(self, index, state, used):
            for block, source in zip(self.blocks, state.layers, strict=True):
                block.k[index, :, :used] = source.k[0, :, :used]
                block.v[index, :, :used] = source.v[0, :, :used]

        monkeypatch.setattr(SharedRows, "_put", put)
        with pytest.raises(AssertionError):
            test_what_is_not_finite_stays_with_its_row(thinker)
        return
    if fault == "a neighbour's slot":
        honest = SharedRows._use

        def use(self, rows):
            honest(self, rows)
            self._bases = self._bases.roll(1, 0)

        monkeypatch.setattr(SharedRows, "_use", use)
    elif fault == "absent rows go on":
        honest_advance = DecoderState.advance
        monkeypatch.setattr(
            DecoderState, "advance", lambda self, new, valid=None: honest_advance(self, new, None)
        )
    else:
        honest_reach = SharedRows.reach

        def reach(self, new, dtype):
            found = honest_reach(self, new, dtype)
            if found.mask is not None:
                found.mask[..., -2:] = 0
            return found

        monkeypatch.setattr(SharedRows, "reach", reach)
    with pytest.raises((AssertionError, RuntimeError)):
        live_through(thinker, [3, 9, 70, 1, 130], 0)
