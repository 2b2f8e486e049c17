"""A machine to type commands at, as the tests of the string and key commands do."""

from __future__ import annotations

from cluster.machine.machine import Commands, Machine
from cluster.machine.reply import CommandError, Reply
from resp_server.commands import keys, locks, strings

START_MS = 1_700_000_000_000

_TABLE = (*strings.COMMANDS, *keys.COMMANDS, *locks.COMMANDS)
_COMMANDS = Commands({command.name.encode(): command.run for command in _TABLE if command.run is not None}, {})
_SUBCOMMANDS = {one.name.encode(): one.run for command in _TABLE for one in command.subcommands}


class Shard:
    """``shard("GET", "key")`` is a command. Text is sent as Latin-1, an error comes back as its line."""

    def __init__(self) -> None:
        self.machine = Machine(_COMMANDS)
        self.machine.begin(START_MS)

    def __call__(self, *words: str | bytes) -> Reply:
        args = [word if isinstance(word, bytes) else word.encode("latin-1") for word in words]
        handler = _SUBCOMMANDS.get(b" ".join(args[:2])) or self.machine.handler(args[0])
        reply = self.machine.run(handler, args)
        return reply.line if isinstance(reply, CommandError) else reply

    def pass_ms(self, ms: int) -> None:
        """Lets time go on."""
        self.machine.begin(self.machine.now_ms + ms)

    def walk(self, *options: str) -> list[bytes]:
        """Every key a full SCAN meets, as often as it does."""
        met: list[bytes] = []
        cursor = b"0"
        while True:
            reply = self("SCAN", cursor, *options)
            assert isinstance(reply, list)
            cursor, found = reply
            met += found
            if cursor == b"0":
                return met
