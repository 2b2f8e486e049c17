"""A machine to talk to: commands as lines of words, with a hand on its clock."""

from __future__ import annotations

from cluster.machine.machine import END_SESSION, Machine
from cluster.machine.reply import CommandError, Reply
from cluster.storage.contract import Row
from resp_server.commands.table import Table

START_MS = 1_700_000_000_000
COMMANDS = Table().machine_commands()


class Talk:
    """``talk("s1", "LOCK.INFO k")`` is a command of session ``s1``."""

    def __init__(self) -> None:
        self.machine = Machine(COMMANDS)
        self.machine.begin(START_MS)

    def __call__(self, session: str, line: str | list[bytes]) -> Reply:
        self.machine.origin = session.encode()
        args = line if isinstance(line, list) else line.encode().split()
        return self.machine.run(self.machine.handler(args[0]), args)

    def pass_ms(self, ms: int) -> None:
        self.machine.begin(self.machine.now_ms + ms)

    def end(self, session: str) -> None:
        self.machine.run(self.machine.handler(END_SESSION), [END_SESSION, session.encode()])

    def woken(self) -> list[tuple[str, Reply]]:
        """Who was served since the last look, and with what."""
        woken = [(origin.decode(), reply) for origin, _, reply in self.machine.woken]
        self.machine.woken.clear()
        return woken

    def map(self, line: str) -> dict[bytes, object]:
        """A map that somebody else reads."""
        reply = self("reader", line)
        assert isinstance(reply, dict), reply
        return reply

    def owners(self, line: str, of: bytes = b"holders") -> list[object]:
        """The owners among the holders or waiters of an INFO."""
        shown = self.map(line)[of]
        assert isinstance(shown, list)
        return [one[b"owner"] for one in shown]

    def restored(self) -> Talk:
        """Another machine, from a checkpoint of this one."""
        other = Talk()
        checkpoint, ledger = self.machine.begin_checkpoint()
        rows: list[Row] = []
        while more := checkpoint.slice(10):
            rows += more
        self.machine.keyspace.end_checkpoint(durable=False)
        other.machine.restore(ledger, rows)
        return other


def error(reply: Reply) -> str:
    """The text of an error."""
    assert isinstance(reply, CommandError), reply
    return reply.line.decode()
