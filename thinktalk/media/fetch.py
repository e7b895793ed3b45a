"""Where media come from: a path, bytes, an open file, a data: URL, or (where allowed) the web -> Path or bytes.

`describe` names a source in error messages; `open_source` opens it and fails with InputError only. Web addresses are
refused unless `allow_urls`; then http and https, public addresses only, checked on the very connection that is used
(so neither a redirect nor a second DNS answer reaches the inside of a network), with limits on size and time.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import http.client
import io
import ipaddress
import os
import socket
import ssl
import stat
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeGuard

from thinktalk.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "describe",
    "is_tensor",
    "is_url",
    "fetch_url",
    "one_line",
    "open_source",
    "open_stream",
    "read_source",
]

MAX_FETCH_BYTES = 256 << 20
"""Largest download, data: URL or in-memory file read from an open file."""
FETCH_SECONDS = 60.0
"""Longest download, redirects included."""
MAX_REDIRECTS = 5


def describe(source: Any, *, name: str | None = None) -> str:
    """A short name of a media source, one line without control characters, for error messages."""
    if name:
        return one_line(name)
    if isinstance(source, str) and source[:5].lower() == "data:":
        return one_line(source[:40].split(",")[0] + ",...")
    if isinstance(source, (str, os.PathLike)):
        return one_line(os.fsdecode(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"{len(source)} bytes"
    if isinstance(source, tuple) and len(source) == 2 and hasattr(source[0], "shape"):
        return f"array {tuple(source[0].shape)} at {one_line(str(source[1]))}"
    if hasattr(source, "shape"):
        return f"array {tuple(source.shape)}"
    if hasattr(source, "size") and hasattr(source, "mode"):
        return f"picture {'x'.join(map(str, source.size))}"
    if isinstance(label := getattr(source, "name", None), str):
        return one_line(label)
    return type(source).__name__


def one_line(text: str, limit: int = 200) -> str:
    """Text without line breaks or control characters, cut in the middle when long."""
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= limit else f"{clean[: limit // 2]}...{clean[-limit // 2 :]}"


def is_tensor(source: Any) -> TypeGuard[Tensor]:
    """Whether a source is one of torch's. It is not imported for that (a second, 200 MB): who never did holds none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def is_url(source: Any) -> bool:
    """Whether a source is a web address (http or https)."""
    return isinstance(source, str) and source[:8].lower().startswith(("http://", "https://"))


def open_source(source: Any, *, allow_urls: bool = False, what: str = "audio") -> bytes | Path:
    """The bytes of a source, or the path of a readable regular file that is not empty.

    `what` says in errors which medium was expected. Raises InputError.
    """
    name = describe(source)
    expected = f"expected {what}: a path, bytes, an open file, a data: URL"
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif isinstance(source, str) and source[:5].lower() == "data:":
        data = _decode_data_url(source, name)
    elif is_url(source):
        if not allow_urls:
            raise InputError(f"{name}: fetching from the web is off here, expected a file; download it first")  # fmt: skip
        data = fetch_url(source, name=name)
    elif isinstance(source, (str, os.PathLike)):
        return _checked_path(source, name, what)
    elif hasattr(source, "read"):
        data = _read_file_object(source, name)
    else:
        raise InputError(f"{name}: cannot be opened, {expected}")
    if not data:
        raise InputError(f"{name}: is empty, {expected}")
    return data


def open_stream(opened: bytes | Path) -> BinaryIO:
    """A seekable binary stream over what open_source gave; the caller closes it."""
    return io.BytesIO(opened) if isinstance(opened, bytes) else opened.open("rb")


def read_source(source: Any, *, allow_urls: bool = False, what: str = "audio") -> bytes:
    """All bytes of a source, at most MAX_FETCH_BYTES."""
    opened = open_source(source, allow_urls=allow_urls, what=what)
    if isinstance(opened, bytes):
        return opened
    with opened.open("rb") as file:
        return _read_file_object(file, describe(source))


# --------------------------------------------------------------------------------------------------------------- files


def _checked_path(source: str | os.PathLike[str], name: str, what: str) -> Path:
    try:
        path = Path(source)
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{name}: is a directory, expected a file with {what}")
        if not stat.S_ISREG(status.st_mode):  # a pipe or device may never end
            raise InputError(f"{name}: is not a regular file, expected a file with {what}")
        if not status.st_size:
            raise InputError(f"{name}: is empty, expected a file with {what}")
        with path.open("rb"):
            return path
    except FileNotFoundError:
        raise InputError(f"{name}: no such file; check the path") from None
    except PermissionError:
        raise InputError(f"{name}: may not be read; check its permissions") from None
    except (OSError, ValueError) as error:  # a name too long, a null byte, a loop of links
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name}: cannot be opened ({one_line(reason)})") from None


def _read_file_object(file: Any, name: str) -> bytes:
    try:
        data = file.read(MAX_FETCH_BYTES + 1)
    except Exception as error:
        raise InputError(f"{name}: cannot be read ({one_line(str(error))})") from None
    if not isinstance(data, bytes):
        raise InputError(f"{name}: gave {type(data).__name__}, expected bytes; open the file in mode 'rb'")  # fmt: skip
    if len(data) > MAX_FETCH_BYTES:
        raise _too_large(name)
    return data


def _too_large(name: str, max_bytes: int | None = None) -> InputError:
    most = MAX_FETCH_BYTES if max_bytes is None else max_bytes
    return InputError(f"{name}: is larger than {most / (1 << 20):.4g} MiB, expected a shorter or smaller file")  # fmt: skip


def _decode_data_url(url: str, name: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise InputError(f"{name}: has no comma, expected data:[type][;base64],CONTENT")
    if len(body) > MAX_FETCH_BYTES * 4 // 3 + 4:
        raise _too_large(name)
    if not head.lower().endswith(";base64"):
        return urllib.parse.unquote_to_bytes(body)
    try:
        text = urllib.parse.unquote(body) if "%" in body else body
        text = "".join(text.split())
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"{name}: is not base64, expected data:TYPE;base64,CONTENT") from None


# ----------------------------------------------------------------------------------------------------------------- web


def fetch_url(
    url: str,
    *,
    name: str,
    max_bytes: int | None = None,
    seconds: float | None = None,
    allowed: Callable[[str, int], bool] | None = None,
) -> bytes:
    """What a web address answers, at most so many bytes within so many seconds. Raises InputError.

    `allowed(host, port)` is asked for the first address and after every redirect; addresses inside of a network and those of
    this machine are refused whatever it says.
    """
    max_bytes = MAX_FETCH_BYTES if max_bytes is None else max_bytes
    deadline = time.monotonic() + (FETCH_SECONDS if seconds is None else seconds)
    try:
        for _ in range(MAX_REDIRECTS + 1):
            data, url = _get(url, name, deadline, max_bytes, allowed)
            if data is not None:
                return data
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InputError(f"{name}: could not be fetched ({one_line(str(error) or type(error).__name__)})") from None  # fmt: skip
    raise InputError(f"{name}: was redirected more than {MAX_REDIRECTS} times")


def _get(
    url: str,
    name: str,
    deadline: float,
    max_bytes: int,
    allowed: Callable[[str, int], bool] | None,
) -> tuple[bytes | None, str]:
    """The body, or None and the address to go on with."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise InputError(f"{name}: leads to {one_line(url, 80)}, expected http or https")
    if parts.username or parts.password:
        raise InputError(f"{name}: holds a user name or password, expected a plain address")
    https = parts.scheme.lower() == "https"
    if allowed is not None and not allowed(parts.hostname, parts.port or (443 if https else 80)):
        raise InputError(f"{name}: {one_line(parts.netloc, 80)} is not among the hosts that may be fetched from")  # fmt: skip
    make = _PublicHTTPS if https else _PublicHTTP
    connection = make(parts.hostname, parts.port, timeout=max(0.1, min(10.0, deadline - time.monotonic())))  # fmt: skip
    # each read has its own timeout, so a server that drips bytes would hold us: this ends it at the deadline
    watchdog = threading.Timer(max(0.1, deadline - time.monotonic()), _hang_up, (connection,))
    watchdog.daemon = True
    watchdog.start()
    try:
        target = urllib.parse.quote(urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, "")), safe="/%?&=:+,;@!$'()*~-._[]")  # fmt: skip
        headers = {"User-Agent": "thinktalk", "Accept": "*/*", "Accept-Encoding": "identity"}
        connection.request("GET", target, headers=headers)
        with connection.getresponse() as response:
            if response.status in (301, 302, 303, 307, 308):
                return None, urllib.parse.urljoin(url, response.headers.get("Location", ""))
            if response.status != 200:
                raise InputError(f"{name}: the server answered {response.status} {one_line(response.reason, 60)}")  # fmt: skip
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise InputError(
                    f"{name}: came compressed although asked not to; download it first"
                )
            return _read_body(response, name, deadline, max_bytes), url
    finally:
        watchdog.cancel()
        connection.close()


def _hang_up(connection: http.client.HTTPConnection) -> None:
    if connection.sock is not None:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)


def _read_body(
    response: http.client.HTTPResponse, name: str, deadline: float, max_bytes: int
) -> bytes:
    if (response.length or 0) > max_bytes:
        raise _too_large(name, max_bytes)
    body = bytearray()
    while chunk := response.read1(1 << 16):
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(name, max_bytes)
        if time.monotonic() > deadline:
            raise InputError(f"{name}: took too long to fetch; download it first")
    if response.length:  # what Content-Length promised and did not come
        raise InputError(f"{name}: the connection ended {response.length} bytes early; try again")
    return bytes(body)


def _is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, also when wrapped in IPv6."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in ipaddress.ip_network("64:ff9b:1::/48") or ip in ipaddress.ip_network("::/96"):
            return (
                False  # a network's own NAT64; addresses of IPv4 in a form that is no longer used
            )
        if ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64
            return _is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            return _is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def _is_ours(address: str, family: int) -> bool:
    """Whether a public address is one of this machine: only those can be bound."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _connect_public(host: str, port: int, timeout: float) -> socket.socket:
    """A connection to `host`, to an address that was checked itself: a name looked up twice could answer twice."""
    refused = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):  # fmt: skip
        if not _is_public(str(address[0])):
            raise InputError(f"{one_line(host, 80)}: is an address inside a private network, expected a public one")  # fmt: skip
        if _is_ours(str(address[0]), family):
            raise InputError(
                f"{one_line(host, 80)}: is this machine itself, expected a public address"
            )
        try:
            sock = socket.socket(family, kind, protocol)
            sock.settimeout(timeout)
            sock.connect(address)
            return sock
        except OSError as error:
            refused = error
            sock.close()
    raise refused or OSError("the name has no address")


class _PublicHTTP(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = _connect_public(self.host, self.port, float(self.timeout or FETCH_SECONDS))


class _PublicHTTPS(http.client.HTTPSConnection):
    def connect(self) -> None:
        sock = _connect_public(self.host, self.port, float(self.timeout or FETCH_SECONDS))
        self.sock = ssl.create_default_context().wrap_socket(sock, server_hostname=self.host)
