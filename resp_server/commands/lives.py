"""How long a hold lives when the client does not say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.machine.hold_requests import DEFAULT_TTL_MS, LIFE, read_options
from resp_server.commands.command import Prepare

if TYPE_CHECKING:
    from resp_server.server import Server


def with_default_life(known: dict[bytes, bool], options_at: Callable[[list[bytes]], int]) -> Prepare:
    """The call with this node's ``lock-default-ttl`` written out: the log must not depend on a node's settings.

    ``known`` are the command's options, ``options_at`` says where they begin.
    """

    def prepare(server: Server, args: list[bytes]) -> list[bytes]:
        ttl_ms = server.settings.lock_default_ttl
        if ttl_ms == DEFAULT_TTL_MS or not LIFE.keys().isdisjoint(read_options(args, options_at(args), known)):
            return args
        return [*args, b"PX", b"%d" % ttl_ms]

    return prepare
