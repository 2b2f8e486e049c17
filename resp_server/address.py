"""Where a node is reached: ``host:port``, with brackets around an IPv6 host, as in ``[::1]:6379``."""

from __future__ import annotations

import re
from typing import NamedTuple

_TEXT = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([A-Za-z0-9_.-]{1,253})):([0-9]{1,5})", re.ASCII)
_EVERYWHERE = ("0.0.0.0", "::")
_LOOPBACK = ("127.0.0.1", "localhost")


class Address(NamedTuple):
    """A host, by name or number, and its TCP port; as text it is what `parse` reads."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def reachable(self) -> bool:
        """Whether somebody can connect to it: one can listen on every address, but not be reached at it."""
        return self.host not in _EVERYWHERE

    @property
    def loopback(self) -> bool:
        """Whether it is the usual loopback address, which a server listens on anyway."""
        return self.host in _LOOPBACK


def parse(text: str) -> Address:
    """The address ``text`` stands for; `ValueError`, in words for a person, when it is none."""
    matched = _TEXT.fullmatch(text)
    if not matched:
        raise ValueError(f"{text!r} is not HOST:PORT")
    port = int(matched[3])
    if not 1 <= port <= 65535:
        raise ValueError(f"{text!r} has a port outside 1 to 65535")
    return Address(matched[1] or matched[2], port)
