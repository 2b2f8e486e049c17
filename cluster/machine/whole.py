"""A value that is small: it has no parts and is stored in one row."""

from __future__ import annotations

from typing import ClassVar

import msgspec


class Whole(msgspec.Struct, array_like=True, gc=False):
    """The half of `cluster.machine.keyspace.Value` that is the same for all of them."""

    kind: ClassVar[bytes]
    encoding: ClassVar[bytes]

    def header(self) -> bytes:
        """All of it, for a checkpoint."""
        return msgspec.msgpack.encode(self)

    def parts(self) -> tuple[bytes, ...]:
        """It has no parts."""
        return ()

    def part(self, part: bytes) -> bytes | None:
        """It has no parts."""
        return None
