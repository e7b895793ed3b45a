"""Worker: one of several processes that serve one socket. Started by supervisor.py, as python -m thinktalk.server.worker.

standard input: a line of JSON (Settings), then nothing, until the supervisor ends: then so does the worker
argv: the socket's number, and that of a pipe that gets one byte when requests are answered
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

from thinktalk.errors import ThinktalkError
from thinktalk.server.settings import Settings

__all__ = ["main"]


def main() -> int:
    """Serve; the exit status is 2 for what only the user can mend: starting it again would not help."""
    socket_number, ready_number = map(int, sys.argv[1:3])
    settings = Settings.from_json(sys.stdin.readline())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor, which says SIGTERM
    threading.Thread(target=_follow, daemon=True).start()
    from thinktalk.server.running import configure_logs, run

    configure_logs(settings)
    sock = socket.socket(fileno=socket_number)
    try:
        return run(settings, sock, on_ready=lambda: _tell(ready_number))
    except ThinktalkError as error:
        print(f"thinktalk: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _tell(number: int) -> None:
    os.write(number, b".")
    os.close(number)


def _follow() -> None:
    """The supervisor's end of the pipe closes when it dies, however it dies."""
    while sys.stdin.read(1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
