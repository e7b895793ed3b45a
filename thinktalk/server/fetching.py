"""Fetching: media by web address, for servers that were started with --allow-urls.

    url -> --url-hosts, port -> public address, looked up once and connected to -> redirect? the same again -> bytes

media/fetch.py does the fetching: it connects to the very address that it has checked, so that a name that answers differently
the second time gains nothing. Here is what a server adds: which hosts and ports, how large by the kind of medium, how long,
how many at a time. Threads of its own: hosts that never answer keep no thread that the engine needs.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from thinktalk.errors import InputError
from thinktalk.media.fetch import fetch_url
from thinktalk.server.settings import Settings

__all__ = ["Fetcher", "allowed"]

SECONDS = 20.0
THREADS = 8
PORTS = {80, 443}


class Fetcher:
    """The fetcher of one hub."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="thinktalk-fetch")

    async def fetch(self, kind: str, url: str, *, name: str) -> bytes:
        """The file at a web address, no larger than its kind may be. Errors: InputError, which names no address inside."""
        settings = self.settings
        most = {"audio": settings.max_audio_bytes, "image": settings.max_image_bytes, "video": settings.max_video_bytes}  # fmt: skip

        def work() -> bytes:
            return fetch_url(
                url, name=name, max_bytes=most[kind], seconds=SECONDS,
                allowed=lambda host, port: allowed(host, port, settings.url_hosts),
            )  # fmt: skip

        try:
            async with asyncio.timeout(2 * SECONDS):  # looking up a name has no clock of its own
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError:
            raise InputError(f"{name}: took too long to fetch; send the {kind} as a data: URL") from None  # fmt: skip

    def close(self) -> None:
        """Nothing new is fetched."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def allowed(host: str, port: int, hosts: tuple[str, ...]) -> bool:
    """Whether a host may be asked at all; what its name resolves to is looked at later.

    >>> allowed("pictures.example.com", 443, ("*.example.com",))
    True
    """
    host = host.lower().rstrip(".")
    if not hosts:
        return port in PORTS
    for pattern in hosts:
        name, colon, number = pattern.lower().rpartition(":")
        if not colon or not number.isdigit():
            name, number = pattern.lower(), ""
        if port != int(number) if number else port not in PORTS:
            continue
        if host == name or (name.startswith("*.") and host.endswith(name[1:])):
            return True
    return False
