"""All commands in one table, and what dispatch needs of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cluster.machine import transactions as machine_transactions
from cluster.machine.machine import Commands, Handler, Machine
from cluster.machine.reply import CommandError, Reply
from resp_server.commands import (
    acl,
    cache,
    client,
    cluster,
    config,
    connection,
    elections,
    info,
    introspection,
    keys,
    latches,
    locks,
    peer,
    queues,
    raft,
    semaphores,
    server,
    slowlog,
    strings,
    transactions,
)
from resp_server.commands.command import ONE_KEY, Command, wrong_arity

FAMILIES = (
    strings.COMMANDS,
    keys.COMMANDS,
    transactions.COMMANDS,
    locks.COMMANDS,
    semaphores.COMMANDS,
    latches.COMMANDS,
    elections.COMMANDS,
    queues.COMMANDS,
    cache.COMMANDS,
    connection.COMMANDS,
    client.COMMANDS,
    introspection.COMMANDS,
    info.COMMANDS,
    config.COMMANDS,
    slowlog.COMMANDS,
    acl.COMMANDS,
    server.COMMANDS,
    cluster.COMMANDS,
    raft.COMMANDS,
    peer.COMMANDS,
)


class Route:
    """A command as dispatch uses it, with its statistics.

    ``quick`` says that its time does not depend on anything a client chooses,
    so it needs no slow log. ``run`` of a local command is never called.
    """

    __slots__ = (
        "arguments_max",
        "arguments_min",
        "blocking",
        "calls",
        "command",
        "local",
        "logged",
        "name",
        "of_session",
        "quick",
        "rejected_calls",
        "run",
    )

    def __init__(self, command: Command) -> None:
        self.command = command
        self.name = command.full_name
        self.blocking = "blocking" in command.flags
        self.of_session = "session" in command.flags
        self.arguments_min = command.arguments_min
        self.arguments_max = command.arguments_max
        self.local = command.local
        self.logged = command.logged
        self.quick = command.complexity == "O(1)"
        self.run: Handler = command.run or _local
        self.reset()

    def reset(self) -> None:
        """Forgets the statistics (CONFIG RESETSTAT)."""
        self.calls = self.rejected_calls = 0

    def takes(self, count: int) -> bool:
        """Whether it may be called with so many arguments, the name included."""
        return self.arguments_min <= count <= self.arguments_max

    def check_arity(self, args: list[bytes]) -> None:
        """Raises Redis's error unless the number of arguments fits."""
        if not self.takes(len(args)):
            self.rejected_calls += 1
            raise wrong_arity(self.name)

    @property
    def fast(self) -> bool:
        """Whether dispatch may take it without a closer look: nothing but a handler and its arity."""
        command = self.command
        return (
            command.run is not None
            and command.serve is None
            and command.through is None
            and self.quick
            and command.prepare is None
            and not (self.blocking or self.of_session)
        )


class Table:
    """Looks commands up by name, in any case, subcommands included.

    ``fast`` maps the usual spellings of those names that need no closer look,
    ``fast_by_key`` those of them whose only key is their first argument.
    """

    def __init__(self, families: Iterable[Iterable[Command]] = FAMILIES) -> None:
        self._routes: dict[bytes, Route] = {}
        self._subroutes: dict[bytes, dict[bytes, Route]] = {}
        self.fast: dict[bytes, Route] = {}
        self.fast_by_key: dict[bytes, Route] = {}
        for command in (command for family in families for command in family):
            name = command.name.encode()
            if name in self._routes:
                raise ValueError(f"command {command.name} is defined twice")
            route = self._routes[name] = Route(command)
            if route.fast:
                self.fast[name] = self.fast[name.lower()] = route
                if command.keys == ONE_KEY and not command.careful:
                    self.fast_by_key[name] = self.fast_by_key[name.lower()] = route
            if command.subcommands:
                self._subroutes[name] = {one.name.split(" ")[1].encode(): Route(one) for one in command.subcommands}

    def find(self, args: list[bytes]) -> Route:
        """The route of a call; Redis's error for a command or subcommand that does not exist."""
        name = args[0].upper()
        route = self._routes.get(name)
        if route is None:
            raise _unknown(args)
        subroutes = self._subroutes.get(name)
        if subroutes is None or len(args) < 2:
            return route
        found = subroutes.get(args[1].upper())
        if found is not None:
            return found
        text = args[1][:128].decode("utf-8", "surrogateescape")
        raise CommandError(f"unknown subcommand '{text}'. Try {route.command.name} HELP.")

    def get(self, name: bytes) -> Route | None:
        """The route of a command by its name, or of ``container|subcommand``."""
        container, _, subcommand = name.upper().partition(b"|")
        return self._subroutes.get(container, {}).get(subcommand) if subcommand else self._routes.get(container)

    def __iter__(self) -> Iterator[Route]:
        """Every command, without subcommands."""
        return iter(self._routes.values())

    def everything(self) -> Iterator[Route]:
        """Every command and every subcommand."""
        for name, route in self._routes.items():
            yield route
            yield from self._subroutes.get(name, {}).values()

    def subroutes(self, command: Command) -> list[Route]:
        """The subcommands of a container."""
        return list(self._subroutes.get(command.name.encode(), {}).values())

    def keys_of(self, route: Route, args: list[bytes]) -> list[bytes]:
        """The keys of a call, those of a command within it included."""
        command = route.command
        keys = [args[position] for position in command.keys.positions(args)]
        if command.inner_at:
            inner = args[command.inner_at :]
            keys += self.keys_of(self.find(inner), inner)
        return keys

    def machine_commands(self) -> Commands:
        """What the replicated machine must be able to carry out."""
        routes = list(self._routes.items())
        handlers: dict[bytes, Handler] = {machine_transactions.LOOK: machine_transactions.looked}
        for name, route in routes:
            if route.command.run is not None:
                handlers[name] = route.run
            elif any(one.command.run is not None for one in self.subroutes(route.command)):
                handlers[name] = self._container
        retries = {name: route.command.retry for name, route in routes if route.command.retry is not None}
        return Commands(handlers, retries)

    def _container(self, machine: Machine, args: list[bytes]) -> Reply:
        """A subcommand that another node, or the log, asks for."""
        return self.find(args).run(machine, args)


def _local(machine: object, args: list[bytes]) -> None:
    raise AssertionError(f"{args[0]!r} is no command of the machine")


def _unknown(args: list[bytes]) -> CommandError:
    """Redis's text: the name and the beginning of the arguments, cut to 128 bytes each."""
    name = args[0][:128].decode("utf-8", "surrogateescape")
    shown = ""
    for arg in args[1:]:
        if len(shown) >= 128:
            break
        shown += "'{}' ".format(arg[: 128 - len(shown)].decode("utf-8", "surrogateescape"))
    return CommandError(f"unknown command '{name}', with args beginning with: {shown}")
