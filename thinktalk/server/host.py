"""Host: the model of a process, its engine in a thread of its own, and the names under which things may be asked for.

await host.call(function)        whatever blocks, in a thread: the event loop never waits for the model
host.check_model(name), host.voice(name), host.options(...)        what a client says -> what the engine takes
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any, Self, TypeVar

from thinktalk.config import GenerationConfig
from thinktalk.engine.engine import Engine
from thinktalk.errors import InputError
from thinktalk.omni import Omni
from thinktalk.pipeline import Options
from thinktalk.server.cast import Cast
from thinktalk.server.problems import Problem
from thinktalk.server.settings import Settings

__all__ = ["OPENAI_VOICES", "Host"]

T = TypeVar("T")

OPENAI_VOICES = frozenset(
    [
        "alloy",
        "ash",
        "ballad",
        "cedar",
        "coral",
        "echo",
        "fable",
        "marin",
        "nova",
        "onyx",
        "sage",
        "shimmer",
        "verse",
    ]
)
"""Names that OpenAI's clients send by default; where the model has no such voice they mean the default one."""


class Host:
    """One per process. `omni` None: settings.model is loaded by start()."""

    def __init__(self, settings: Settings, omni: Omni | None = None):
        self.settings, self._omni = settings, omni
        self.draining = asyncio.Event()
        """Set when the server is about to end: take nothing new, end when the reply under way has ended."""
        self.created = int(time.time())
        self.error: Exception | None = None
        """Why start() failed."""
        self._engine: Engine | None = None
        self._cast: Cast | None = None
        self._calls = ThreadPoolExecutor(settings.max_sessions + 16, thread_name_prefix="thinktalk-call")  # fmt: skip

    # ------------------------------------------------------------------------------------------------- life of a process

    async def start(self) -> Self:
        """Load the model where it is not there yet, and begin to work; once. Errors: WeightsError, ConfigError."""
        try:
            if self._engine is None:
                await self._start()
        except Exception as error:
            self.error = error
            raise
        return self

    async def _start(self) -> None:
        settings = self.settings
        if self._omni is None:
            self._omni = await self.call(lambda: _load(settings))
        self._cast = Cast(self._omni, settings, self.call)
        await self._cast.start()
        self._engine = Engine(
            self._omni.model, self._omni.tokenizer, max_sessions=settings.max_sessions, max_load=settings.max_load
        )  # fmt: skip
        self._engine.start()

    async def close(self) -> None:
        """End the engine's thread."""
        self.draining.set()
        if self._engine is not None and self._engine.running:
            await self.call(self._engine.stop)
        if self._cast is not None:
            self._cast.close()
        self._calls.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def omni(self) -> Omni:
        """The model."""
        assert self._omni is not None, "start() comes first"
        return self._omni

    @property
    def engine(self) -> Engine:
        """Its engine."""
        assert self._engine is not None, "start() comes first"
        return self._engine

    @property
    def cast(self) -> Cast:
        """Who may speak."""
        assert self._cast is not None, "start() comes first"
        return self._cast

    @property
    def alive(self) -> bool:
        """Whether the engine works."""
        return self._engine is not None and self._engine.running and self._engine.broken is None

    # ------------------------------------------------------------------------------------------------------------- names

    @property
    def names(self) -> list[str]:
        """Names under which the model may be asked for; the first is its own."""
        own = self.settings.model.rstrip("/").rpartition("/")[2] or "thinktalk"
        return list(dict.fromkeys([own, *self.settings.served_names, "thinktalk"]))

    def check_model(self, name: str | None) -> str:
        """The name to answer with; Problem 404 for a model that is not served here."""
        if name is None:
            return self.names[0]
        if name not in self.names:
            have = ", ".join(self.names)
            raise Problem(404, f"model {name!r} is not served here; have {have}", param="model", code="model_not_found")  # fmt: skip
        return name

    def voice(self, name: str | None) -> str:
        """A voice's own name; Problem 400 for one that does not exist. OpenAI's names mean the default voice."""
        try:
            return self.cast.find(name or "default")
        except InputError as error:
            if name in OPENAI_VOICES:
                return self.cast.find("default")
            have = ", ".join(self.omni.voices)
            raise Problem(400, f"voice {name!r} is unknown; have {have}", param="voice", code="voice_not_found") from error  # fmt: skip

    def options(
        self, *, speech: bool = True, greedy: bool = False, seed: int | None = None, **changes: Any
    ) -> Options:
        """How an answer is made: the server's settings, then `changes` (fields of GenerationConfig; None: not said).

        Without a seed one is drawn. Limits of the settings hold: max_text_tokens and max_codes are lowered to them.
        """
        settings = self.settings
        known = {f.name for f in fields(GenerationConfig)}
        assert set(changes) <= known, f"not options of generation: {sorted(set(changes) - known)}"
        given = {name: value for name, value in changes.items() if value is not None}
        own = {name: value for name in ("flow_points", "flow_method") if (value := getattr(settings, name)) is not None}  # fmt: skip
        generation = replace(self.omni.config.generation, **{**own, **given})
        generation = replace(
            generation,
            max_text_tokens=min(generation.max_text_tokens, settings.max_text_tokens),
            max_codes=min(generation.max_codes, settings.max_codes),
        )
        seed = secrets.randbits(31) if seed is None else seed
        return Options(generation=generation, greedy=greedy, seed=seed, speech=speech)

    # ----------------------------------------------------------------------------------------------------------- threads

    async def call(self, function: Callable[[], T]) -> T:
        """What a function that blocks returns, from a thread. When the caller is cancelled the function still ends first."""
        future = asyncio.get_running_loop().run_in_executor(self._calls, function)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # seen; the caller does not want it any more
            raise


def _load(settings: Settings) -> Omni:
    import thinktalk

    return thinktalk.load(
        settings.model, device=settings.device, dtype=settings.dtype, placement=settings.parts_placement
    )  # fmt: skip
