"""The streaming law as one function: step over any chunking == forward over the whole, and all memory in the State.

    check_law(module, make_input, max_length=...)      make_input(batch, length, generator) -> Tensor or message, float64

What it checks, on a float64 copy of the module, each with its own message:
    sensitivity  another input moves the output by at least 100 tolerances (else the comparison proves nothing)
    law          outputs of step over drawn chunkings, empty chunks included, joined == forward
    promptness   after n inputs at least floor((n - lookahead) * ratio) outputs are out
    ownership    a chunk's memory may be reused after the step; the step leaves its input as it was
    constancy    no attribute, buffer or parameter changes; nothing is kept outside the State
    fork         stepping a fork leaves the original alone, and the fork continues as the original would
    rows         a row of a batch equals the same row alone; stack and unstack in mid-stream change nothing
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from thinktalk.stream import (
    StreamModule,
    batch_of,
    concat,
    fork,
    length_of,
    narrow,
    stack,
    tensors,
    unstack,
)  # fmt: skip

__all__ = ["MakeInput", "check_law", "chunkings", "run_chunks", "snapshot"]

MakeInput = Callable[[int, int, torch.Generator], Any]
"""(batch, length, generator) -> a Tensor or message of `length` time steps, floats in float64."""


def check_law(
    module: StreamModule,
    make_input: MakeInput,
    *,
    max_length: int,
    min_length: int = 0,
    batch: int = 2,
    atol: float = 1e-10,
    examples: int = 15,
    sensitive: bool = True,
) -> None:
    """Raise AssertionError unless `module` keeps the streaming law.

    Lengths are drawn from min_length..max_length time steps, so give a max_length that spans several blocks or windows.
    atol is relative to the largest output, at least 1: float64 rounds at 1e-16 and sums of a few thousand terms in
    another order differ by 1e-13, so 1e-10 is far above rounding and far below any real fault.
    """
    module = copy.deepcopy(module).double().eval()
    with torch.no_grad():
        if sensitive:
            _check_sensitive(module, _draw(make_input, batch, max_length, 0), make_input, atol)
        edges = {max(min_length, min(max_length, n)) for n in (min_length, 1, max_length)}
        for length in sorted(edges):
            _check_all(module, _draw(make_input, batch, length, 1), _fixed_chunkings(length), atol)

    @settings(
        max_examples=examples, deadline=None, database=None, report_multiple_bugs=False,
        phases=(Phase.generate,), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(sizes=chunkings(min_length, max_length), seed=st.integers(0, 2**16))
    def drawn(sizes: list[int], seed: int) -> None:
        with torch.no_grad():
            _check_all(module, _draw(make_input, batch, sum(sizes), seed), [sizes], atol)

    if examples:
        drawn()


@st.composite
def chunkings(draw: st.DrawFn, min_length: int, max_length: int) -> list[int]:
    """Chunk sizes, zeros among them, that add up to a length in min_length..max_length."""
    length = draw(st.integers(min_length, max_length))
    cuts = sorted(draw(st.lists(st.integers(0, length), max_size=8)))
    return [b - a for a, b in zip([0, *cuts], [*cuts, length], strict=True)]


def run_chunks(module: StreamModule, x: Any, sizes: Sequence[int], state: Any = None) -> Any:
    """Outputs of step over chunks of these sizes, joined; `last` comes with the last chunk."""
    state = _fresh(module, x) if state is None else state
    return concat(list(_steps(module, x, sizes, state, last=True)), module.out_time_dim)


# -------------------------------------------------------------------------------------------------------------- checks


def _check_all(
    module: StreamModule, x: Any, chunkings: Iterable[Sequence[int]], atol: float
) -> None:
    before = snapshot(module)
    whole = module.forward(x)
    for n, sizes in enumerate(chunkings):
        joined = concat(list(_prompt_steps(module, x, sizes)), module.out_time_dim)
        what = f"chunks {list(sizes)} of {length_of(x, module.time_dim)}"
        _assert_close(joined, whole, atol, f"law: {what} differ from the whole")
        _check_fork(module, x, sizes, whole, atol)
        if n == 0:
            _check_rows_alone(module, x, whole, atol)
        _check_stacking(module, x, sizes, whole, atol)
        changed = sorted(set(before.items()) ^ set(snapshot(module).items()))
        assert not changed, f"constancy: the module changed while it streamed: {changed[0][0]}"


def _prompt_steps(module: StreamModule, x: Any, sizes: Sequence[int]) -> Iterator[Any]:
    """Steps from a fresh state that watch promptness."""
    consumed = emitted = 0
    for size, y in zip(sizes, _steps(module, x, sizes, _fresh(module, x), last=True), strict=True):
        consumed, emitted = consumed + size, emitted + length_of(y, module.out_time_dim)
        due = math.floor((consumed - module.lookahead) * module.ratio)
        assert emitted >= due, (
            f"promptness: {emitted} outputs after {consumed} inputs, but lookahead {module.lookahead} "
            f"and ratio {module.ratio} promise {due}"
        )
        yield y


def _check_fork(
    module: StreamModule, x: Any, sizes: Sequence[int], whole: Any, atol: float
) -> None:
    half = len(sizes) // 2
    seen, dim = sum(sizes[:half]), module.time_dim
    state = _fresh(module, x)
    head = list(_steps(module, x, sizes[:half], state, last=False))
    kept = fork(state)
    rest = narrow(x, dim, seen, length_of(x, dim) - seen)
    # the other future is played to its end before the original goes on
    run_chunks(module, _changed(rest), [length_of(rest, dim)], fork(state))
    for name, branch in (("the original", state), ("the fork", kept)):
        tail = list(_steps(module, rest, sizes[half:], branch, last=True))
        joined = concat(head + tail, module.out_time_dim)
        _assert_close(joined, whole, atol, f"fork: {name} does not go on as if alone")


def _check_rows_alone(module: StreamModule, x: Any, whole: Any, atol: float) -> None:
    for b in range(batch_of(x)):
        alone = module.forward(_row(x, b))
        _assert_close(alone, _row(whole, b), atol, f"rows: row {b} alone differs from the batch")


def _check_stacking(
    module: StreamModule, x: Any, sizes: Sequence[int], whole: Any, atol: float
) -> None:
    rows = [_row(x, b) for b in range(batch_of(x))]
    half = len(sizes) // 2
    seen, dim = sum(sizes[:half]), module.time_dim
    states = [_fresh(module, row) for row in rows]
    heads = [
        list(_steps(module, row, sizes[:half], state, last=False))
        for row, state in zip(rows, states, strict=True)
    ]
    joint = stack(states)  # parted, joined, stepped together, parted again
    middle = sizes[half : len(sizes) - 1]
    rest = narrow(x, dim, seen, length_of(x, dim) - seen)
    bodies = list(_steps(module, rest, middle, joint, last=False))
    tail = narrow(rest, dim, sum(middle), sizes[-1])
    for b, state in enumerate(unstack(joint)):
        parts = heads[b] + [_row(body, b) for body in bodies]
        parts += list(_steps(module, _row(tail, b), sizes[-1:], state, last=True))
        joined = concat(parts, module.out_time_dim)
        _assert_close(joined, _row(whole, b), atol, f"rows: row {b} changes by stack or unstack")


def _check_sensitive(module: StreamModule, x: Any, make_input: MakeInput, atol: float) -> None:
    """Every tensor of the input that another draw changes must move the output."""
    whole, other = (
        module.forward(x),
        _draw(make_input, batch_of(x), length_of(x, module.time_dim), 9),
    )
    assert all(t.isfinite().all() for t in tensors(whole)), "sensitivity: the output is not finite"
    names = [""] if isinstance(x, Tensor) else [field.name for field in dataclasses.fields(x)]
    for name in names:
        if name and not isinstance(getattr(x, name), Tensor):
            continue
        if name and torch.equal(getattr(x, name), getattr(other, name)):
            continue  # make_input draws it the same each time: nothing to compare
        moved = module.forward(
            dataclasses.replace(x, **{name: getattr(other, name)}) if name else other
        )
        pairs = list(zip(tensors(moved), tensors(whole), strict=True))
        shift = max(((a - b).abs().max().item() for a, b in pairs if a.numel()), default=0.0)
        assert shift >= 100 * atol * _scale(whole), (
            f"sensitivity: another input {name} moves the output by only {shift}"
        )


# --------------------------------------------------------------------------------------------------------------- tools


def _steps(
    module: StreamModule, x: Any, sizes: Sequence[int], state: Any, *, last: bool
) -> Iterator[Any]:
    """One output a chunk; each chunk is a copy whose memory is spoilt after the step, as a ring buffer would."""
    start = 0
    for n, size in enumerate(sizes):
        chunk = _map(torch.clone, narrow(x, module.time_dim, start, size))
        given_chunk = _map(torch.clone, chunk)
        y = _map(torch.clone, module.step(chunk, state, last=last and n == len(sizes) - 1))
        _assert_close(chunk, given_chunk, 0.0, "ownership: the step wrote into its input")
        for tensor in tensors(chunk):
            tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
        start += size
        yield y


def _fixed_chunkings(length: int) -> Iterator[list[int]]:
    """The cases that break most: all at once, empty chunks around, singles, an empty last chunk."""
    yield [length]
    yield [0, length, 0]
    if length > 1:
        yield [1, 0, 1, *([length - 2] if length > 2 else [])]
        yield [length // 2, length - length // 2, 0]
        yield [length - 1, 1]


def _fresh(module: StreamModule, x: Any) -> Any:
    lead = next(tensors(x))
    return module.init_state(batch_of(x), device=lead.device, dtype=torch.float64)


def _draw(make_input: MakeInput, batch: int, length: int, seed: int) -> Any:
    return make_input(batch, length, torch.Generator().manual_seed(seed))


def _map(fn: Callable[[Tensor], Tensor], x: Any) -> Any:
    if isinstance(x, Tensor):
        return fn(x)
    values = {field.name: getattr(x, field.name) for field in dataclasses.fields(x)}
    return dataclasses.replace(
        x, **{n: fn(v) if isinstance(v, Tensor) else v for n, v in values.items()}
    )


def _row(x: Any, b: int) -> Any:
    return _map(lambda t: t[b : b + 1], x)


def _changed(x: Any) -> Any:
    """Another future: floats turned over, integers (ids, positions) the same."""
    return _map(lambda t: 1 - 2 * t if t.is_floating_point() else t, x)


def _scale(y: Any) -> float:
    sizes = [t.abs().max().item() for t in tensors(y) if t.numel()]
    return max([1.0, *(s for s in sizes if math.isfinite(s))])


def _assert_close(a: Any, b: Any, atol: float, message: str) -> None:
    for left, right in zip(tensors(a), tensors(b), strict=True):
        assert left.shape == right.shape, f"{message}: {tuple(left.shape)}, {tuple(right.shape)}"
        if left.numel():
            gap = (left.double() - right.double()).abs().max().item()
            assert gap <= atol * _scale(right), f"{message}: max difference {gap}"


def snapshot(module: nn.Module) -> dict[str, str]:
    """Every attribute of every submodule as text that changes when the attribute does."""
    return {
        f"{name or 'self'}.{key}": _print_of(value)
        for name, part in module.named_modules()
        for key, value in vars(part).items()
        if key != "_modules"
    }


def _print_of(value: Any) -> str:
    if isinstance(value, Tensor):
        content = "" if value.is_meta else hash(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())  # fmt: skip
        return f"tensor {id(value)} {tuple(value.shape)} {value.dtype} {content}"
    if isinstance(value, dict):
        return str({str(k): _print_of(v) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return str([_print_of(v) for v in value])
    if isinstance(value, (set, frozenset)):
        return str(sorted(map(repr, value)))
    if isinstance(value, (int, float, str, bool, type(None))):
        return repr(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return str([_print_of(getattr(value, f.name)) for f in dataclasses.fields(value)])
    inside = getattr(value, "__dict__", None)
    inside = _print_of(inside) if inside and not callable(value) else ""
    return f"{type(value).__name__} {id(value)} {inside}"
