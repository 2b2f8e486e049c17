"""A connection that does exactly as told: no retries, no reading ahead, no manners."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import hiredis

from tests.servers import Server

KIB, MIB = 2**10, 2**20
HANG_SECONDS = 60
Word = bytes | str | int


def packed(*words: Word) -> bytes:
    """One command as bytes."""
    frame: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub is invariant
    return frame


class RawClient:
    """Sends what it is given and reads only when asked to; gives up on a server that hangs."""

    def __init__(self, server: Server) -> None:
        self.socket = server.connect()
        self.socket.settimeout(HANG_SECONDS)
        self._reader = hiredis.Reader(replyError=hiredis.ReplyError)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, *words: Word) -> None:
        """Sends one command."""
        self.socket.sendall(packed(*words))

    def read(self) -> Any:
        """The next reply; `ConnectionError` when the server closed instead."""
        while (reply := self._reader.gets()) is False:
            data = self.socket.recv(1 << 20)
            if not data:
                raise ConnectionResetError("closed by the server")
            self._reader.feed(data)
        return reply

    def call(self, *words: Word) -> Any:
        """Sends one command and reads its reply."""
        self.send(*words)
        return self.read()

    def is_closed(self) -> bool:
        """Reads until the server closes; False if it does not."""
        try:
            while self.socket.recv(1 << 20):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return True

    def reset(self) -> None:
        """Closes with RST, as a machine that crashed and came back."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def resident_bytes(server: Server) -> int:
    """The memory a server's process has in use."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * 4096


def peak_bytes(server: Server) -> int:
    """The most memory it ever had in use."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@contextmanager
def neighbour(server: Server) -> Iterator[RawClient]:
    """Another client, which must be answered before, while and after."""
    with RawClient(server) as client:
        assert client.call("SET", "neighbour", "here") == b"OK"
        yield client
        assert client.call("GET", "neighbour") == b"here"
