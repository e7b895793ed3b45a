"""Affinity: which replica gets a request: that of its session (the header x-session-id), else the less busy of two.

A session's home is the replica that scores highest for it (rendezvous hashing): every proxy finds the same one without asking
anybody, and when a replica goes only its own sessions move. A home that takes nothing more at the moment is passed by.
Loaded by Ray Serve's proxies: it must stay light.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

__all__ = ["Affinity", "home"]


def home(session: str, replicas: Iterable[str]) -> str:
    """The replica (by its name) where a session lives."""
    return max(replicas, key=lambda name: hashlib.blake2b(f"{name} {session}".encode()).digest())


class Affinity(RequestRouter):
    """For `request_router_class`."""

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Groups to try one after the other; of each, the replica with fewest requests takes it."""
        if not candidate_replicas:
            return []
        two = random.sample(candidate_replicas, min(2, len(candidate_replicas)))
        if pending_request is None:
            return [two]
        pending_request.routing_context.should_backoff = (
            True  # or a full deployment is asked without pause
        )
        session = pending_request.metadata.session_id
        if not session:
            return [two]
        names = {each.replica_id.unique_id: each for each in candidate_replicas}
        return [[names[home(session, names)]], two]
