"""Every setting, once. Flags, variables, the file, CONFIG and the documentation are all read off `FIELDS`.

A setting has one text form everywhere, Redis's own where Redis has the
setting: ``--tcp-backlog 511``, ``SEPAKAT_TCP_BACKLOG=511``, ``tcp-backlog =
511`` in the file and ``CONFIG SET`` all go through the same `Field.parse`. To
add a setting, add a field to `Settings`.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from cluster.raft.membership import VOTERS_MAX
from cluster.ring.slots import SHARDS_MAX
from cluster.storage.contract import SyncPolicy
from resp_server import setting_rules
from resp_server.address import Address
from resp_server.logs import LogFormat, LogLevel
from resp_server.setting_kinds import (
    ADDRESSES,
    BUFFER_LIMIT,
    MEMBERS,
    OPTIONAL_ADDRESS,
    OPTIONAL_PATH,
    OPTIONAL_WORD,
    PATH,
    PERMISSIONS,
    SECRET,
    YES_OR_NO,
    BufferLimit,
    FlawError,
    Kind,
    choice,
    integer,
    size,
)  # fmt: skip

T = TypeVar("T")


class SettingError(Exception):
    """A setting is not allowed.

    ``str(error)`` is one line for a person: where it came from, what is
    allowed, what was given. ``reason`` is what Redis's CONFIG SET says of it.
    """

    def __init__(self, line: str, reason: str = "") -> None:
        super().__init__(line)
        self.reason = reason


def setting(kind: Kind[T], default: str, group: str, summary: str, *, live: bool = False) -> T:
    """Declares a field of `Settings`: ``default`` as text, ``group`` a heading of the help, ``live`` for CONFIG SET."""
    about = {"kind": kind, "default": default, "group": group, "summary": summary, "live": live}
    field: T = dataclasses.field(default=kind.parse(default), repr=kind is not SECRET, metadata=about)
    return field


class Routing(Enum):
    """What a node does with a command about keys of which another node has the shard."""

    PROXY = "proxy"
    REDIRECT = "redirect"


class ReadMode(Enum):
    """How a leader makes sure that it still is one before it answers a read."""

    LEASE = "lease"
    QUORUM = "quorum"


NETWORK, DATA, CLUSTER, SHARDS, LIMITS = "Network", "Data folder", "Cluster", "Shards", "Limits"
FEATURES, LOGGING = "Locks, queues and caches", "Logs"


@dataclass(frozen=True, slots=True)
class Settings:
    """How this process is to run; names are Redis's where Redis has the setting. `load` makes one from all sources."""

    bind: tuple[str, ...] = setting(
        ADDRESSES, "127.0.0.1", NETWORK, "Addresses to listen on, with blanks between them."
    )
    port: int = setting(integer(0, 65535), "6379", NETWORK, "TCP port; 0 opens none.")
    unixsocket: str = setting(OPTIONAL_PATH, "", NETWORK, "Path of a Unix socket to listen on as well.")
    unixsocketperm: int = setting(PERMISSIONS, "0", NETWORK, "Its permissions in octal; 0 leaves them to the umask.")
    tcp_backlog: int = setting(integer(1, 2**31 - 1), "511", NETWORK, "Connections the system holds until accepted.")
    tcp_keepalive: int = setting(
        integer(0, 2**31 - 1), "300", NETWORK, "Seconds of silence before a TCP peer is probed; 0 never.", live=True
    )
    timeout: int = setting(
        integer(0, 2**31 - 1), "0", NETWORK, "Seconds after which an idle client is closed; 0 never.", live=True
    )
    requirepass: str = setting(
        SECRET, "", NETWORK, "Password clients must give with AUTH; empty asks for none.", live=True
    )

    dir: str = setting(PATH, "./sepakat-data", DATA, "Folder for all data; one server at a time may use it.")
    appendfsync: SyncPolicy = setting(
        choice(SyncPolicy), "always", DATA, "When writes reach the disk; only always is before the reply.", live=True
    )
    checkpoint_log_bytes: int = setting(size("64kb"), "64mb", DATA, "Log size that starts a checkpoint.", live=True)

    node_id: str = setting(
        OPTIONAL_WORD,
        "",
        CLUSTER,
        "Name of this node, for the life of its folder; empty: what the folder says, else n1, or with join what the"
        " cluster gives.",
    )
    cluster: tuple[tuple[str, str], ...] = setting(
        MEMBERS,
        "",
        CLUSTER,
        "All nodes of a new cluster, the same list on each: n1=host:port,n2=host:port,n3=host:port. Where this node"
        " listens follows from it, unless port or bind are given.",
    )
    join: str = setting(OPTIONAL_ADDRESS, "", CLUSTER, "Address of any node of the cluster this one is to enter.")
    announce: str = setting(
        OPTIONAL_ADDRESS,
        "",
        CLUSTER,
        "Address at which other nodes reach this one; empty: its own in cluster, else the first bind address and the"
        " port.",
    )
    cluster_secret: str = setting(
        SECRET,
        "",
        CLUSTER,
        "What nodes of one cluster prove to each other that they know; requirepass takes its place while it is not set,"
        " and without either no proof is asked for.",
    )
    election_timeout: int = setting(
        integer(50, 60_000), "300", CLUSTER, "Milliseconds without a leader after which another is elected."
    )
    heartbeat_interval: int = setting(
        integer(5, 20_000),
        "50",
        CLUSTER,
        "Milliseconds between a leader's signs of life, at most a third of election-timeout.",
    )
    read_mode: ReadMode = setting(
        choice(ReadMode),
        "lease",
        CLUSTER,
        "How reads are kept from being stale: lease relies on clocks that run at one pace, quorum asks a majority.",
    )
    session_timeout: int = setting(
        integer(250, 3_600_000),
        "10000",
        CLUSTER,
        "Milliseconds after which the sessions of clients end whose node is gone or cut off, and what they hold with"
        " them; the node closes them before. At least five election timeouts; the same on all nodes.",
    )

    shards: int = setting(
        integer(1, SHARDS_MAX),
        "1",
        SHARDS,
        "Shards the keys of a new cluster are cut into, for good; the same on every node of its list.",
    )
    replicas: int = setting(
        integer(1, VOTERS_MAX),
        "3",
        SHARDS,
        "Nodes that have each shard of a new cluster, as far as there are so many; the same on every node of its list.",
    )
    zone: str = setting(
        OPTIONAL_WORD,
        "",
        SHARDS,
        "What this node shares its fate with, such as a rack: replicas of a shard are put into different zones as far"
        " as there are enough.",
    )
    routing: Routing = setting(
        choice(Routing),
        "proxy",
        SHARDS,
        "What becomes of a command whose keys are led elsewhere: proxy forwards it, redirect answers -MOVED.",
        live=True,
    )
    node_timeout: int = setting(
        integer(1000),
        "300000",
        SHARDS,
        "Milliseconds of silence after which a node is taken for lost, and its shards are given to others that are"
        " there to spare; at least ten election timeouts.",
    )
    rebalance_bandwidth: int = setting(
        size("64kb"), "32mb", SHARDS, "Bytes a second this node may send to bring new replicas up to date.", live=True
    )

    maxmemory: int = setting(
        size("0"),
        "0",
        LIMITS,
        "Memory of the process past which writes that may take more get -OOM; 0 is no limit.",
        live=True,
    )
    maxclients: int = setting(integer(1, 2**32 - 1), "10000", LIMITS, "Clients connected at once.", live=True)
    proto_max_bulk_len: int = setting(size("1mb"), "512mb", LIMITS, "Longest argument or value.", live=True)
    client_query_buffer_limit: int = setting(
        size("1mb"), "1gb", LIMITS, "Longest request not yet complete; past it the client is closed.", live=True
    )
    client_output_buffer_limit: BufferLimit = setting(
        BUFFER_LIMIT,
        "normal 1gb 256mb 60",
        LIMITS,
        "Replies a client may leave unread: closed past the first size, or past the second for so many seconds; 0 is"
        " no limit.",
        live=True,
    )

    lock_default_ttl: int = setting(
        integer(1), "30000", FEATURES, "Milliseconds a lock is held when PX is not given.", live=True
    )
    queue_warn_payload_bytes: int = setting(
        size("0"), "1mb", FEATURES, "Size past which a message pushed here is told in the log; 0 tells none.", live=True
    )
    cache_max_bytes: int = setting(size("0"), "256mb", FEATURES, "Size past which cache lines are evicted.", live=True)
    cache_writeback_ms: int = setting(
        integer(0), "100", FEATURES, "Milliseconds after which CACHE.SET without SYNC is made durable.", live=True
    )
    cache_propagation: bool = setting(
        YES_OR_NO,
        "yes",
        FEATURES,
        "Whether lines that several nodes read stay with them when they are written, with the new value.",
        live=True,
    )
    cache_lease_ms: int = setting(
        integer(50),
        "500",
        FEATURES,
        "Milliseconds a node may use cached lines without hearing from the shard's leader; "
        "so long a write may have to wait for a node that died.",
    )

    loglevel: LogLevel = setting(choice(LogLevel), "warning", LOGGING, "How much is logged.", live=True)
    logfile: str = setting(OPTIONAL_PATH, "", LOGGING, "File to log to; empty is standard error.")
    log_format: LogFormat = setting(choice(LogFormat), "text", LOGGING, "How a line is written.")
    slowlog_log_slower_than: int = setting(
        integer(-1), "10000", LOGGING, "Microseconds from which a command is in SLOWLOG; -1 keeps none.", live=True
    )
    slowlog_max_len: int = setting(integer(0), "128", LOGGING, "Commands SLOWLOG keeps.", live=True)

    @property
    def address(self) -> str:
        """Where other nodes reach this one, ``host:port``; empty when it listens everywhere and nothing tells."""
        listed = dict(self.cluster).get(self.node_id)
        own = Address(self.bind[0], self.port)
        return listed or self.announce or (str(own) if own.reachable else "")

    def changed(self, name: str, text: str) -> Settings:
        """These settings with one of them different, as CONFIG SET gives it; raises `SettingError`."""
        field = named(name.lower())
        if not field.live:
            raise SettingError(f"{field.name} is fixed while the server runs", "can't set immutable config")
        return dataclasses.replace(self, **{field.attribute: field.parse(text, field.name)})


@dataclass(frozen=True, slots=True)
class Field:
    """One setting as everything outside sees it; ``default`` is text, ``summary`` one sentence."""

    attribute: str
    kind: Kind[Any]
    default: str
    group: str
    summary: str
    live: bool

    @property
    def name(self) -> str:
        """As CONFIG, the file and, after two dashes, the flag have it."""
        return self.attribute.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"SEPAKAT_{self.attribute.upper()}"

    def parse(self, text: str, source: str) -> Any:
        """The value of ``text``; `SettingError` names ``source``, such as the flag it came from."""
        try:
            return self.kind.parse(text)
        except ValueError as error:
            flaw = f": {error}" if isinstance(error, FlawError) else ""
            raise SettingError(f"{source} must be {self.kind.allowed}, not {text!r}{flaw}", str(error)) from None

    def text(self, settings: Settings) -> str:
        """The value in force, as CONFIG GET answers it."""
        return self.kind.render(getattr(settings, self.attribute))


FIELDS: tuple[Field, ...] = tuple(Field(field.name, **field.metadata) for field in dataclasses.fields(Settings))
_BY_NAME = {field.name: field for field in FIELDS}


def named(name: str, source: str = "") -> Field:
    """The field of that name; `SettingError` says which name is near it."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    near = difflib.get_close_matches(name, _BY_NAME, 1)
    hint = f", did you mean {near[0]}?" if near else ""
    raise SettingError(f"{source}unknown setting {name!r}{hint}", "unknown setting")


def load(flags: Mapping[str, str], variables: Mapping[str, str], file: Path | None = None) -> Settings:
    """The settings in force: ``flags`` (by attribute) over ``variables`` (the environment) over ``file``.

    Raises `SettingError`. Variables that name no setting are let be: the
    environment is shared, and Kubernetes adds ``SEPAKAT_…`` ones of its own.
    """
    values: dict[str, Any] = {}
    for name, text in (_read_file(file) if file else {}).items():
        field = named(name, f"{file}: ")
        values[field.attribute] = field.parse(text, f"{field.name} in {file}")
    for field in FIELDS:
        for source, given in (
            (field.variable, variables.get(field.variable)),
            (f"--{field.name}", flags.get(field.attribute)),
        ):
            if given is not None:
                values[field.attribute] = field.parse(given, source)
    setting_rules.follow_the_list(values)
    settings = Settings(**values)
    for line in setting_rules.contradictions(settings):
        raise SettingError(line)
    return settings


def _read_file(file: Path) -> dict[str, str]:
    """Setting names and texts of a TOML file; numbers need no quotes there."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"cannot read the settings in {file}: {error}") from None
    for name, value in table.items():
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise SettingError(f"{name} in {file} must be a text or a whole number, not {value!r}")
    return {name: str(value) for name, value in table.items()}


def example() -> str:
    """Every setting at its default, explained: a file for ``set -a; . ./.env`` or for Docker Compose."""
    return "\n".join(f"# {field.summary}\n{_example_line(field)}\n" for field in FIELDS)


def _example_line(field: Field) -> str:
    quoted = f'"{field.default}"' if " " in field.default else field.default
    return f"{field.variable}={quoted}"
