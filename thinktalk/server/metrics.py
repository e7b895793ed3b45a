"""Metrics: what a server did, for Prometheus at /metrics.

Counted per process; with --workers the processes' files in PROMETHEUS_MULTIPROC_DIR are added up, whoever is asked. Replicas on
several machines are asked for their texts (gather), and each sample is labelled with the replica it is from.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from thinktalk.events import Latency

__all__ = ["Metrics", "together"]

SECONDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 60)
FACTORS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0, 1.2, 1.5, 2, 3, 5, 10)


class Metrics:
    """All counters of one hub."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.gather: Callable[[], Awaitable[Mapping[str, str]]] | None = None
        """Where there are replicas: the text of each by its name."""

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"thinktalk_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"thinktalk_{name}", text, registry=self.registry, multiprocess_mode="livesum")  # fmt: skip

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"thinktalk_{name}", text, registry=self.registry, buckets=buckets)

        self.requests = counter("requests", "HTTP requests and WebSockets", "route", "status")
        self.request_seconds = histogram("request_seconds", "From request to the last byte", SECONDS)  # fmt: skip
        self.sessions = gauge("sessions", "Conversations now")
        self.waiting = gauge("waiting", "Requests that wait for a conversation to end")
        self.speakers = gauge("speakers", "How many may speak at once in real time, as measured")
        self.wait_seconds = histogram("wait_seconds", "Waiting for room", SECONDS)
        self.refused = counter("refused", "Requests turned away", "reason")
        self.replies = counter("replies", "Answers begun", "ended")
        self.first_text = histogram("first_text_seconds", "From the request to the first text", SECONDS)  # fmt: skip
        self.first_audio = histogram("first_audio_seconds", "From the request to the first sound", SECONDS)  # fmt: skip
        self.real_time = histogram("real_time_factor", "Time to the last sound over its length", FACTORS)  # fmt: skip
        self.text_tokens = counter("text_tokens", "Tokens written")
        self.prompt_tokens = counter("prompt_tokens", "Tokens read")
        self.audio_seconds = counter("audio_seconds", "Sound made")
        self.underruns = counter("underruns", "How often a listener waited for more sound")
        self.decoded = counter("decoded", "Media decoded", "kind", "result")
        self.judged = counter("judged", "Turns whose words the model judged", "result")

    def latency(self, latency: Latency) -> None:
        """What the listener of one finished reply waited for."""
        if latency.real_time_factor is not None:
            self.real_time.observe(latency.real_time_factor)
        self.underruns.inc(latency.underruns)

    def judgement(self, likely: float | None) -> None:
        """The model was asked whether somebody has finished; None: it could not say."""
        self.judged.labels("unknown" if likely is None else "told").inc()

    def text(self) -> bytes:
        """As Prometheus reads it."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)
        return generate_latest(together)

    async def page(self) -> bytes:
        """What a server shows: its own text, or that of all replicas."""
        return self.text() if self.gather is None else together(await self.gather())


class _All:
    """What a registry collects from."""

    def __init__(self) -> None:
        self.families: dict[str, Metric] = {}

    def collect(self) -> list[Metric]:
        return list(self.families.values())


def together(texts: Mapping[str, str]) -> bytes:
    """One text of several, each sample with the label `replica`."""
    whole = _All()
    for replica, text in texts.items():
        for one in text_string_to_metric_families(text):
            family = whole.families.setdefault(one.name, Metric(one.name, one.documentation, one.type))  # fmt: skip
            for sample in one.samples:
                family.add_sample(sample.name, sample.labels | {"replica": replica}, sample.value)
    registry = CollectorRegistry()
    registry.register(whole)
    return generate_latest(registry)
