"""Worker: one thread does all the work; what other threads wish is done between two units of it.

worker.start(), stop()       a thread that calls tick() as long as there is work, and else waits
worker.do(wish)              the wish's result, from whichever thread does the work now
worker.post(wish)            the same, not waited for
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self, TypeVar

import torch

__all__ = ["Worker"]

T = TypeVar("T")


class Worker:
    """Without a thread of its own, whoever calls tick() or do() is the one thread."""

    def __init__(self) -> None:
        self._wishes: deque[tuple[Callable[[], Any], Future]] = deque()
        self._gate, self._wake = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._broken: Exception | None = None

    def tick(self) -> bool:
        """Do one unit of work, after the wishes; False when there is none."""
        raise NotImplementedError(f"{type(self).__name__} must say what its work is")

    def abandon(self, error: Exception) -> None:
        """The work itself has failed: tell whoever waits."""

    @property
    def running(self) -> bool:
        """Whether a thread of its own works."""
        return self._thread is not None

    @property
    def broken(self) -> Exception | None:
        """What ended the thread before its time; nothing can be asked of it any more."""
        return self._broken

    def start(self) -> Self:
        """Work in a thread of its own."""
        assert self._thread is None, "a thread is at work already"
        self._stopping = False
        self._thread = threading.Thread(target=self._labour, name="thinktalk-engine", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """The thread ends after its unit of work; everything stays as it is."""
        thread = self._thread
        if thread is None:
            return
        self._stopping = True
        self._wake.set()
        thread.join()
        with self._gate:
            self._thread = None
        with torch.inference_mode():
            self.grant()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def do(self, wish: Callable[[], T]) -> T:
        """Have the working thread do something between two units of work, and wait for it."""
        return self.post(wish).result()

    def post(self, wish: Callable[[], T]) -> Future[T]:
        """The same without waiting: it is done after all that was wished before. Its errors are the future's, or ours
        where no other thread works.
        """
        future: Future[T] = Future()
        with self._gate:
            if self._broken is not None:
                raise RuntimeError(f"the engine has stopped: {self._broken!r}") from self._broken
            away = self._thread is not None and self._thread is not threading.current_thread()
            if away:
                self._wishes.append((wish, future))
                self._wake.set()
        if not away:
            with torch.inference_mode():
                future.set_result(wish())
        return future

    def grant(self) -> None:
        """Do what was wished."""
        while self._wishes:
            wish, future = self._wishes.popleft()
            try:
                future.set_result(wish())
            except Exception as error:
                future.set_exception(error)

    def _labour(self) -> None:
        try:
            while not self._stopping:
                self._wake.clear()
                if not self.tick():
                    self._wake.wait()
        except BaseException as error:
            failure = error if isinstance(error, Exception) else RuntimeError(repr(error))
            with self._gate:
                self._broken = failure
                left = list(self._wishes)
                self._wishes.clear()
            for _, future in left:
                future.set_exception(failure)
            self.abandon(failure)
