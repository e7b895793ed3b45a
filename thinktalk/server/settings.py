"""Settings: what `thinktalk serve` may be told, by the command line or by THINKTALK_* in the environment.

    --max-sessions 8  |  THINKTALK_MAX_SESSIONS=8  ->  Settings(max_sessions=8)

One dataclass is the table of both: a field's name is the option's, its type says how the text is read, its metadata what it
is for. What is said on the command line wins.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Self, get_args, get_origin, get_type_hints

from thinktalk.errors import ConfigError

__all__ = ["PREFIX", "Settings", "add_arguments"]

PREFIX = "THINKTALK_"
MIB = 1 << 20


def _say(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All of a server's settings. Errors: ConfigError for values that make no sense."""

    # ------------------------------------------------------------------------------------------------------- the model
    model: str = _say("nano", "nano, a directory in the official layout, or a hub id")
    served_names: tuple[str, ...] = _say(
        (), "further names under which clients may ask for the model"
    )
    device: str = _say("cpu", "cpu, cuda, cuda:1, mps")
    dtype: str | None = _say(None, "float32, bfloat16 or int8 (as stored where not given)")
    placement: str | None = _say(
        None, "a device for each part, such as thinker=cuda:0,talker=cuda:1"
    )
    flow_points: int | None = _say(
        None, "time points of the flow's solver (fewer: faster, rougher)"
    )
    flow_method: str | None = _say(None, "the flow's solver: rk4, midpoint or euler (the model's where not given)")  # fmt: skip
    voices_dir: str | None = _say(
        None, "where enrolled voices are kept (voices in the model's directory where not given)"
    )

    # ----------------------------------------------------------------------------------------------------- the address
    host: str = _say("127.0.0.1", "address to listen on; any but loopback needs keys")
    port: int = _say(8000, "port; 0 takes a free one")
    workers: int = _say(1, "processes; each holds the model")
    tls_cert: str | None = _say(None, "certificate (PEM): pages may use a microphone over https or on loopback only")  # fmt: skip
    tls_key: str | None = _say(None, "its key (PEM)")
    drain_seconds: float = _say(30.0, "after SIGTERM, how long conversations may take to end")

    # ------------------------------------------------------------------------------------------------- several machines
    ray: bool = _say(False, "serve by Ray: replicas, on this machine or on those of a cluster")
    ray_address: str | None = _say(
        None,
        "the Ray cluster (HOST:PORT); local: one of this machine alone, which is also taken where there is none",
    )
    replicas: str = _say("1", "how many replicas; MIN-MAX: as many as there are conversations for")
    replica_load: float = _say(
        8.0, "conversations for each replica; beyond, another one is started"
    )
    replica_cpus: float = _say(
        1.0, "processors that a replica takes; it computes with so many threads"
    )
    replica_gpus: float | None = _say(
        None, "GPUs that a replica takes (as many as --device and --placement name where not given)"
    )

    # ------------------------------------------------------------------------------------------------------ who may in
    api_keys: tuple[str, ...] = _say((), "keys that clients may use")
    api_key_file: str | None = _say(None, "a file with one key a line")
    insecure: bool = _say(False, "serve any address without keys")
    hosts: tuple[str, ...] = _say((), "names by which the server may be called (Host header)")
    cors_origins: tuple[str, ...] = _say((), "origins whose pages may call the server")
    rate: float = _say(600.0, "requests a minute for each key; 0: no limit")
    concurrency: int = _say(32, "requests at a time for each key; 0: no limit")

    # --------------------------------------------------------------------------------------------------- how many at once
    max_sessions: int = _say(64, "conversations at a time")
    max_load: float | None = _say(0.9, "work per second of time beyond which no speaker is let in")
    queue_size: int = _say(64, "requests that may wait for a conversation to end")
    queue_seconds: float = _say(20.0, "how long they may wait")
    session_seconds: float = _say(3600.0, "longest live conversation")

    # -------------------------------------------------------------------------------------------------------------- turns
    turn_threshold: float | None = _say(
        None,
        "semantic_vad: probability of the model's own judgement from which a turn is over (not asked where not given)",
    )

    # ------------------------------------------------------------------------------------------------ limits of requests
    max_body_bytes: int = _say(64 * MIB, "largest request")
    max_body_seconds: float = _say(120.0, "how long a request may take to come")
    max_messages: int = _say(1024, "messages in a request")
    max_parts: int = _say(256, "media in a request")
    max_text_chars: int = _say(1_000_000, "characters of text in a request")
    max_tools: int = _say(128, "tools in a request")
    max_text_tokens: int = _say(4096, "longest answer (tokens)")
    max_codes: int = _say(15_000, "longest speech (codes; 50 are a second)")
    max_image_bytes: int = _say(20 * MIB, "largest picture file")
    max_image_pixels: int = _say(40_000_000, "largest picture")
    max_audio_bytes: int = _say(50 * MIB, "largest sound file")
    max_audio_seconds: float = _say(1800.0, "longest recording")
    max_video_bytes: int = _say(50 * MIB, "largest video file")
    max_video_seconds: float = _say(600.0, "longest video")
    max_video_pixels: int = _say(1920 * 1088, "largest picture in a video")
    max_voices: int = _say(256, "voices that may be enrolled; 0: none")
    max_voice_seconds: float = _say(60.0, "longest clip of which a voice is made")
    fit_steps: int = _say(
        200,
        "steps by which an enrolled voice is fitted, for models that cannot hear one; 0: not at all",
    )

    # ------------------------------------------------------------------------------------------------------- hostile files
    decode_workers: int = _say(2, "processes that decode media")
    decode_seconds: float = _say(30.0, "longest decoding of one medium")
    decode_mib: int = _say(2048, "memory of a decoding process (MiB)")
    allow_urls: bool = _say(False, "fetch media from public http(s) addresses")
    url_hosts: tuple[str, ...] = _say(
        (),
        "hosts that may be fetched from (*.name: those below it too; name:port: another port); without any, all public ones",
    )

    # ---------------------------------------------------------------------------------------------------------------- logs
    log_content: bool = _say(False, "write what is said into the log")
    log_level: str = _say("info", "debug, info, warning or error")

    def __post_init__(self) -> None:
        def need(name: str, ok: object, expected: str) -> None:
            if not ok:
                raise ConfigError(f"{option(name)} {getattr(self, name)}: expected {expected}")

        need("port", 0 <= self.port < 65536, "0 to 65535")
        need("log_level", self.log_level in ("debug", "info", "warning", "error"), "debug, info, warning or error")  # fmt: skip
        need(
            "tls_key",
            (self.tls_cert is None) == (self.tls_key is None),
            "both --tls-cert and --tls-key, or neither",
        )
        need("replicas", re.fullmatch(r"[1-9]\d*(-[1-9]\d*)?", self.replicas) and self.replica_range[0] <= self.replica_range[1], "N, or MIN-MAX such as 1-8")  # fmt: skip
        need("workers", self.workers == 1 or not self.ray, "1 with --ray: give --replicas")
        need("turn_threshold", self.turn_threshold is None or self.turn_threshold < 1, "between 0 and 1")  # fmt: skip
        need("flow_method", self.flow_method in (None, "rk4", "midpoint", "euler"), "rk4, midpoint or euler")  # fmt: skip
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "port" or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            least = 0 if item.name in _MAY_BE_ZERO else 1 if isinstance(value, int) else 1e-9
            what = "0 or more" if least == 0 else "1 or more" if least == 1 else "more than 0"
            need(item.name, least <= value < float("inf"), what)

    @classmethod
    def read(
        cls, given: Mapping[str, Any] | None = None, environ: Mapping[str, str] = os.environ
    ) -> Self:
        """Settings from the environment, `given` (of the command line; None: not said) before it."""
        types, values = get_type_hints(cls), {}
        for item in fields(cls):
            said = (given or {}).get(item.name)
            text = environ.get(PREFIX + item.name.upper())
            if said is not None:
                values[item.name] = said
            elif text is not None:
                values[item.name] = parse(text, types[item.name], PREFIX + item.name.upper())
        return cls(**values)

    def check_address(self) -> None:
        """ConfigError for an address that others can reach where nobody would be asked for a key."""
        if not (self.api_keys or self.api_key_file or self.insecure or is_loopback(self.host)):
            raise ConfigError(
                f"--host {self.host}: others can reach it and no key is set; give --api-key-file (or THINKTALK_API_KEYS), or say "
                "--insecure"
            )

    @property
    def parts_placement(self) -> dict[str, str] | None:
        """`placement` as a mapping."""
        if self.placement is None:
            return None
        pairs = [item.partition("=") for item in self.placement.split(",")]
        if any(not key or not value for key, _, value in pairs):
            raise ConfigError(f"--placement {self.placement}: expected PART=DEVICE,...; for example thinker=cuda:0,talker=cuda:1")  # fmt: skip
        return {key: value for key, _, value in pairs}

    @property
    def replica_range(self) -> tuple[int, int]:
        """Fewest and most replicas."""
        least, _, most = self.replicas.partition("-")
        return int(least), int(most or least)

    def to_json(self) -> str:
        """All of them, keys too: for a worker process' standard input, never for a log."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What to_json wrote."""
        given = json.loads(text)
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


_MAY_BE_ZERO = {
    "replica_gpus",
    "rate",
    "concurrency",
    "queue_size",
    "drain_seconds",
    "max_voices",
    "fit_steps",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def option(name: str) -> str:
    """A field as the command line writes it."""
    return "--" + name.replace("_", "-")


def parse(text: str, kind: Any, name: str) -> Any:
    """The value that a text says; ConfigError when it is not of that kind."""
    if get_origin(kind) is tuple:
        return tuple(word.strip() for word in text.split(",") if word.strip())
    kind = next((k for k in get_args(kind) if k is not type(None)), kind)  # of "str | None": str
    try:
        if kind is bool:
            return {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False, "": False}[text.lower()]  # fmt: skip
        if kind in (int, float):
            return kind(text)
    except (KeyError, ValueError):
        what = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ConfigError(f"{name}={text}: expected {what}") from None
    return text


def add_arguments(parser: argparse.ArgumentParser, *, leave_out: Sequence[str] = ()) -> None:
    """An option for each field; what is not given stays None (see Settings.read)."""
    types = get_type_hints(Settings)
    for item in fields(Settings):
        if item.name in leave_out:
            continue
        kind, text = types[item.name], item.metadata["help"]
        assert item.default is not MISSING
        if kind is bool:
            parser.add_argument(option(item.name), action=argparse.BooleanOptionalAction, default=None, help=text)  # fmt: skip
            continue
        several = isinstance(item.default, tuple)
        shown = "A,B,..." if several else "N" if isinstance(item.default, int | float) else "X"
        if not several and item.default is not None:
            text = f"{text} (default {item.default})"
        parser.add_argument(
            option(item.name), type=_reader(kind, option(item.name)), default=None, metavar=shown, help=text.replace("%", "%%")
        )  # fmt: skip


def _reader(kind: Any, name: str) -> Any:
    def read(text: str) -> Any:
        try:
            return parse(text, kind, name)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read
