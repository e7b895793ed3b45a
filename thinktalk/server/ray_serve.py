"""Several machines: the app as a Ray Serve deployment. A proxy on each machine, replicas where there is room for them.

    clients --> proxy (each machine, --port) --Affinity--> Replica, Replica, ...       each with its model and its engine
                                                              ^
                     thinktalk serve --ray: deploys, waits for a signal, drains, takes the deployment away again

Ray Serve starts replicas, replaces those that die or whose engine has stopped, and with --replicas MIN-MAX keeps as many as there
are conversations for. What a client of a replica that died gets is an error or a broken connection, never a false end.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from thinktalk.errors import ConfigError
from thinktalk.server.problems import one_line
from thinktalk.server.running import address, bind
from thinktalk.server.settings import Settings

__all__ = ["deployment_options", "serve_by_ray"]

log = logging.getLogger("thinktalk.server")

NAME = "thinktalk"
LOOK_S = 2.0
GRACE_S = 10.0  # beyond drain_seconds, until Ray kills a replica
SMALL = 32  # requests at a time that need no conversation: models, voices, files of the page
FILES = ("model", "voices_dir", "api_key_file", "tls_cert", "tls_key")


class _Told(BaseException):
    """A signal came."""


def serve_by_ray(settings: Settings, *, on_ready: Callable[[str], None]) -> int:
    """Serve until a signal; the exit status. `on_ready` gets the address. Errors: ConfigError for what the user can mend."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told that it runs
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    try:
        ray: Any = importlib.import_module("ray")
        serve: Any = importlib.import_module("ray.serve")
    except ImportError as error:
        raise ConfigError(f"serve --ray: Ray Serve cannot be imported ({error}); install it: pip install 'thinktalk[serve,ray]'") from None  # fmt: skip
    settings = _absolute(settings)
    handle = None
    with _cluster(ray, serve, settings), _signals():
        try:
            where = _listen(serve, settings)
            handle = _deploy(serve, settings)
            on_ready(where)
            _watch(serve)
            return 1
        except _Told:
            if handle is not None:
                with contextlib.suppress(_Told):  # told again: it does not wait
                    _drain(handle, settings)
            return 0


def deployment_options(settings: Settings) -> dict[str, Any]:
    """What Ray Serve is told of the deployment."""
    options = {
        "name": NAME,
        # the replica's own line is what refuses (429 and when to come again); Ray's is for the time in which there is no replica
        "max_ongoing_requests": settings.max_sessions + settings.queue_size + SMALL,
        "max_queued_requests": max(1, settings.queue_size),
        "backpressure_config": {"status_code": 429, "retry_after_s": 1.0},
        "graceful_shutdown_timeout_s": settings.drain_seconds + GRACE_S,
        "graceful_shutdown_wait_loop_s": 1.0,  # what was sent last arrives meanwhile
        "health_check_period_s": 2.0,
        "max_constructor_retry_count": 3,
        "ray_actor_options": {"num_cpus": settings.replica_cpus, "num_gpus": _gpus(settings)},
        "request_router_config": {"request_router_class": "thinktalk.server.affinity.Affinity"},
        "logging_config": {"enable_access_log": False, "log_level": settings.log_level.upper()},
    }
    least, most = settings.replica_range
    if least == most:
        return options | {"num_replicas": least}
    scaling = {
        "min_replicas": least,
        "max_replicas": most,
        "target_ongoing_requests": settings.replica_load,
        "look_back_period_s": 10.0,
        "upscale_delay_s": 10.0,
        "downscale_delay_s": 300.0,  # one that goes ends its live conversations: not for every lull
    }
    return options | {"autoscaling_config": scaling}


def _gpus(settings: Settings) -> float:
    if settings.replica_gpus is not None:
        return settings.replica_gpus
    devices = {settings.device, *(settings.parts_placement or {}).values()}
    return float(sum(device.startswith("cuda") for device in devices))


def _absolute(settings: Settings) -> Settings:
    """Paths as a process elsewhere finds them; a model that is no path here is one that each machine knows by this name."""
    paths = {name: path for name in FILES if (path := getattr(settings, name)) is not None}
    if not os.path.exists(settings.model):
        del paths["model"]
    return replace(settings, **{name: os.path.abspath(path) for name, path in paths.items()})


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGINT are raised as _Told, twice at most."""
    left = 2

    def tell(*_: object) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise _Told

    before = {sig: signal.signal(sig, tell) for sig in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        left = 0
        for sig, handler in before.items():
            signal.signal(sig, handler)


@contextlib.contextmanager
def _cluster(ray: Any, serve: Any, settings: Settings) -> Iterator[None]:
    """Part of a cluster, whose other work stays as it is; or one of this machine alone, which ends with us."""
    where = settings.ray_address or os.environ.get("RAY_ADDRESS") or "auto"
    quiet = {"logging_level": "warning", "configure_logging": False}
    ours = where == "local"
    if not ours:
        try:
            ray.init(address=where, **quiet)
        except ConnectionError as error:
            if where != "auto":
                raise ConfigError(f"--ray-address {where}: {one_line(error)}") from None
            ours = True
        except RuntimeError as error:  # another version of Ray or Python there
            raise ConfigError(f"--ray-address {where}: {one_line(error)[:500]}") from None
    if ours:
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "10")  # where a signal ended all of it at once  # fmt: skip
        ray.init(address="local", include_dashboard=False, **quiet)
    try:
        needed, have = settings.replica_range[0] * settings.replica_cpus, ray.cluster_resources().get("CPU", 0)  # fmt: skip
        if ours and needed > have:
            raise ConfigError(f"--replicas {settings.replicas} of --replica-cpus {settings.replica_cpus:g}: take {needed:g} processors, this machine has {have:g}; lower one")  # fmt: skip
        yield
    finally:
        with _logged("the deployment could not be taken away"):
            if ours:
                serve.shutdown()
            elif NAME in serve.status().applications:
                serve.delete(NAME)
        ray.shutdown()


def _listen(serve: Any, settings: Settings) -> str:
    """Start Ray Serve's proxies; their address."""
    if serve.status().proxies:
        log.warning("Ray Serve runs in this cluster already: its address stays as it is")
        return "the address of the Ray Serve that ran already"
    with bind(settings) as sock:  # or Ray would try for ever to get an address that is taken
        where = sock.getsockname()
    http = {"host": settings.host, "port": where[1], "keep_alive_timeout_s": 30}
    if settings.tls_cert:
        http |= {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}
    serve.start(proxy_location="EveryNode", http_options=http, logging_config={"enable_access_log": False})  # fmt: skip
    return address(settings, where)


def _deploy(serve: Any, settings: Settings) -> Any:
    """All replicas answer; the handle of the deployment."""
    from thinktalk.server.replica import Replica

    deployment = serve.deployment(serve.ingress()(Replica), **deployment_options(settings))
    try:
        return serve.run(deployment.bind(settings.to_json()), name=NAME, route_prefix="/")
    except RuntimeError as error:
        application = serve.status().applications.get(NAME)
        parts = [] if application is None else application.deployments.values()
        raise ConfigError(_reason("\n".join([str(error), *(part.message for part in parts)]))) from None  # fmt: skip


def _reason(told: str) -> str:
    """Of what Ray says of a replica that did not start: our own error, where it was one."""
    ours = re.findall(r"thinktalk\.errors\.\w+: (.+)$", told, re.MULTILINE)
    return ours[-1] if ours else f"serve --ray: {' '.join(told.split())[-1000:]}"


def _watch(serve: Any) -> None:
    """Until the deployment is gone, or the cluster."""
    try:
        while NAME in serve.status().applications:
            time.sleep(LOOK_S)
        log.error("somebody has taken the deployment away")
    except Exception:
        log.exception("the cluster does not answer")


def _drain(handle: Any, settings: Settings) -> None:
    """Every replica takes nothing new, and what is under way ends."""
    with _logged("not all replicas have drained"):
        handle.broadcast("drain", settings.drain_seconds).results(
            timeout_s=settings.drain_seconds + GRACE_S, return_exceptions=True
        )


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    """At the end: go on whatever happens."""
    try:
        yield
    except Exception as error:
        log.warning("%s: %s", what, one_line(error))
