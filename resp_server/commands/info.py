"""INFO: the node's state as text, in Redis's sections and one of our own.

Only what is known is said: fields of Redis that mean nothing here are left
out. To add a section, add a function that gives its fields to `SECTIONS`.
"""

from __future__ import annotations

import os
import platform
import resource
import struct
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from cluster.machine.machine import Machine
from cluster.machine.reply import WAITING, Reply, Verbatim
from cluster.status import PeerStatus, ShardStatus, ring_of, status_of
from resp_server import REDIS_VERSION, __version__, memory
from resp_server.commands.command import Command
from resp_server.commands.raft import await_answers
from resp_server.commands.topology import clustered
from resp_server.places import Share
from resp_server.session import Session

if TYPE_CHECKING:
    from resp_server.server import Server

Fields: TypeAlias = "dict[str, str | int | float]"
Section: TypeAlias = "Callable[[Server], Fields]"


def _server(server: Server) -> Fields:
    up_s = int(time.monotonic() - server.started_monotonic_s)
    system = platform.uname()
    return {
        "redis_version": REDIS_VERSION,
        "sepakat_version": __version__,
        "redis_mode": "cluster" if clustered(server) else "standalone",
        "os": f"{system.system} {system.release} {system.machine}",
        "arch_bits": struct.calcsize("P") * 8,
        "python_version": platform.python_version(),
        "process_id": os.getpid(),
        "run_id": server.run_id,
        "tcp_port": server.port,
        "server_time_usec": time.time_ns() // 1000,
        "uptime_in_seconds": up_s,
        "uptime_in_days": up_s // 86400,
        "executable": sys.executable,
    }


def _clients(server: Server) -> Fields:
    watched: dict[bytes, set[bytes]] = {}  # keys, by session
    blocking: set[bytes] = set()
    for shard in server.node.shards:
        machine = shard.machine
        for origin in machine.sessions.origins():
            known = machine.sessions.get(origin)
            if known is not None and known.watched:
                watched.setdefault(origin, set()).update(known.watched)
        blocking.update(machine.waiters.keys())
    return {
        "connected_clients": len(server.clients),
        "maxclients": server.settings.maxclients,
        "blocked_clients": sum(one.blocked for one in server.clients.values()) + server.acknowledgements.waiting,
        "tracking_clients": 0,
        "pubsub_clients": 0,
        "watching_clients": len(watched),
        "total_watched_keys": len(set().union(*watched.values())),
        "total_blocking_keys": len(blocking),
    }


def _memory(server: Server) -> Fields:
    measured = memory.measure()
    return {
        "used_memory": measured.used_bytes,
        "used_memory_human": memory.human(measured.used_bytes),
        "used_memory_rss": measured.used_bytes,
        "used_memory_rss_human": memory.human(measured.used_bytes),
        "used_memory_peak": measured.peak_bytes,
        "used_memory_peak_human": memory.human(measured.peak_bytes),
        "used_memory_peak_perc": f"{100 * measured.used_bytes / measured.peak_bytes:.2f}%",
        "total_system_memory": measured.system_bytes,
        "total_system_memory_human": memory.human(measured.system_bytes),
        "number_of_cached_scripts": 0,
        "number_of_functions": 0,
        "number_of_libraries": 0,
        "maxmemory": server.settings.maxmemory,
        "maxmemory_human": memory.human(server.settings.maxmemory),
        "maxmemory_policy": "noeviction",
    }


def _persistence(server: Server) -> Fields:
    saving = server.saving
    running_s = int(time.monotonic() - saving.started_monotonic_s) if saving.under_way else -1
    return {
        "loading": 0,
        "async_loading": 0,
        "rdb_changes_since_last_save": sum(shard.machine.keyspace.unsaved for shard in server.node.each()),
        "rdb_bgsave_in_progress": int(saving.under_way),
        "rdb_last_save_time": saving.last_unix_s,
        "rdb_last_bgsave_status": "ok" if saving.last_ok else "err",
        "rdb_last_bgsave_time_sec": int(saving.last_duration_s),
        "rdb_current_bgsave_time_sec": running_s,
        "aof_enabled": 1,
        "aof_rewrite_in_progress": 0,
        "aof_rewrite_scheduled": 0,
        "aof_last_bgrewrite_status": "ok",
        "aof_last_write_status": "ok" if server.refusal is None else "err",
        "aof_current_size": server.node.bytes_since_checkpoint,
    }


def _stats(server: Server) -> Fields:
    stats = server.stats
    return {
        "total_connections_received": stats.connections,
        "total_commands_processed": stats.commands,
        "total_net_input_bytes": stats.input_bytes,
        "total_net_output_bytes": stats.output_bytes,
        "rejected_connections": stats.rejected_connections,
        "evicted_keys": 0,
        "evicted_clients": 0,
        "client_output_buffer_limit_disconnections": stats.output_limit_disconnections,
        "pubsub_channels": 0,
        "pubsub_patterns": 0,
        "tracking_total_keys": 0,
        "total_error_replies": sum(stats.errors.values()),
    }


def _replication(_server: Server) -> Fields:
    """Every node answers every command: to a client each is a master."""
    return {"role": "master", "connected_slaves": 0, "master_failover_state": "no-failover"}


def _cpu(_server: Server) -> Fields:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "used_cpu_sys": f"{own.ru_stime:.6f}",
        "used_cpu_user": f"{own.ru_utime:.6f}",
        "used_cpu_sys_children": f"{children.ru_stime:.6f}",
        "used_cpu_user_children": f"{children.ru_utime:.6f}",
    }


def _modules(_server: Server) -> Fields:
    return {}


def _commands(server: Server) -> Fields:
    return {
        f"cmdstat_{route.command.full_name}": f"calls={route.calls},rejected_calls={route.rejected_calls}"
        for route in server.table.everything()
        if route.calls or route.rejected_calls
    }


def _errors(server: Server) -> Fields:
    return {f"errorstat_{code}": f"count={count}" for code, count in sorted(server.stats.errors.items())}


def _cluster(server: Server) -> Fields:
    return {"cluster_enabled": int(clustered(server))}


def _keyspace(server: Server) -> Fields:
    """What is here; `_info` asks elsewhere as well."""
    return _database([_count(shard.machine, []) for shard in server.node.shards])


def _count(machine: Machine, args: list[bytes]) -> list[int]:
    """One shard's keys, and how many of them expire."""
    keyspace = machine.keyspace
    return [len(keyspace) - len(machine.foreign), len(keyspace.deadlines)]


def _database(counts: list[list[int]]) -> Fields:
    keys, expires = map(sum, zip(*counts, strict=True))
    return {"db0": f"keys={keys},expires={expires}"} if keys else {}


def _sepakat(server: Server) -> Fields:
    node = server.node
    status = status_of(node)
    ring = ring_of(node)
    fields: Fields = {
        "node_id": status.node,
        "cluster_id": status.cluster,
        "node_address": status.address,
        "node_zone": status.zone,
        "system_leader": status.leader or "",
        "system_term": status.term,
        "system_voters": ",".join(status.voters),
        "system_learners": ",".join(status.learners),
        "shards": len(ring),
        "shards_here": len(status.shards),
        "shards_led": sum(shard.role == "leader" for shard in status.shards),
        "shards_without_leader": sum(row.leader is None for row in ring),
        "shards_moving": sum(bool(row.moving) for row in ring),
        "rebalancing_paused": int(status.paused),
        "log_bytes_since_checkpoint": node.bytes_since_checkpoint,
        "commits": server.stats.commits,
        "commit_failures": server.stats.commit_failures,
        "waiting_commands": sum(len(shard.machine.waiters) for shard in node.shards),
        "sessions_ended_of_silent_nodes": node.sessions_ended,
        "clients_closed_as_cut_off": server.stats.lapse_disconnections,
        "large_payloads": server.large_payloads.count,
        "cache_lines": len(server.node.cache.lines),
        "cache_bytes": server.node.cache.lines.bytes,
    }
    if len(ring) == 1:
        fields["raft_leader"] = ring[0].leader or ""
        for shard in status.shards:
            fields |= _only_shard(shard)
            fields["log_checkpoint_index"] = node.shards[0].checkpoint_index
    fields |= {f"shard_{shard.shard}": _shard(shard) for shard in status.shards}
    fields |= {f"peer_{peer.id}": _peer(peer) for peer in status.peers}
    return fields


def _only_shard(shard: ShardStatus) -> Fields:
    """Where there is one shard, what it says is what the node says."""
    return {
        "raft_role": shard.role,
        "raft_term": shard.term,
        "raft_voters": ",".join(shard.voters),
        "raft_learners": ",".join(shard.learners),
        "log_term": shard.term,
        "log_index": shard.last_index,
        "log_commit_index": shard.commit,
        "log_applied_index": shard.applied,
    }


def _line(fields: dict[str, object]) -> str:
    """Fields on a line; -1 is "not known"."""
    return ",".join(f"{name}={-1 if value is None else value}" for name, value in fields.items())


def _shard(shard: ShardStatus) -> str:
    return _line(
        {
            "role": shard.role,
            "leader": shard.leader,
            "term": shard.term,
            "last_index": shard.last_index,
            "commit": shard.commit,
            "applied": shard.applied,
        }
    )


def _peer(peer: PeerStatus) -> str:
    return _line(
        {
            "address": peer.address,
            "zone": peer.zone,
            "state": peer.state,
            "reachable": int(peer.reachable),
            "leads": peer.leading,
            "replicas": peer.replicas,
            "last_contact_ms": peer.last_contact_ms,
            "round_trip_us": peer.round_trip_us,
        }
    )


SECTIONS: dict[str, Section] = {
    "Server": _server,
    "Clients": _clients,
    "Memory": _memory,
    "Persistence": _persistence,
    "Stats": _stats,
    "Replication": _replication,
    "CPU": _cpu,
    "Modules": _modules,
    "Commandstats": _commands,
    "Errorstats": _errors,
    "Cluster": _cluster,
    "Keyspace": _keyspace,
    "Sepakat": _sepakat,
}
ON_REQUEST = frozenset({"commandstats"})
"""Left out of plain INFO, as Redis does."""


def chosen(wanted: set[str]) -> list[str]:
    """The titles that are wanted (lower case names, or ``default``, ``all``, ``everything``), in their order."""
    everything = not wanted.isdisjoint({"all", "everything"})
    plain = not wanted or "default" in wanted
    names = {title: title.lower() for title in SECTIONS}
    return [
        title for title, name in names.items() if everything or name in wanted or (plain and name not in ON_REQUEST)
    ]


def render(server: Server, titles: list[str], known: dict[str, Fields]) -> Verbatim:
    """These sections; ``known`` has those that are there already."""
    blocks = []
    for title in titles:
        fields = known[title] if title in known else SECTIONS[title](server)
        lines = [f"# {title}", *(f"{field}:{value}" for field, value in fields.items())]
        blocks.append("".join(f"{line}\r\n" for line in lines))
    return Verbatim("\r\n".join(blocks).encode("utf-8", "surrogateescape"))


def _info(session: Session, args: list[bytes]) -> Reply:
    """All that this node knows, and the number of keys from whoever leads the shards.

    Where there is no leader it is what is here: INFO is what people look at when something is wrong.
    """
    server = session.server
    titles = chosen({arg.decode("utf-8", "surrogateescape").lower() for arg in args[1:]})
    if "Keyspace" not in titles or session.executing:
        return render(server, titles, {})
    shards = [server.shard(number) for number in range(len(server.node.shards))]
    counts = [_count(shard.machine, []) for shard in shards]
    several = clustered(server)
    far = [one for one in shards if one.reads_wait and (several or not one.here)]
    asked = [one for one in (shards if session.pending else far) if one.has_leader]

    def rendered(replies: list[Reply]) -> Reply:
        for shard, reply in zip(asked, replies, strict=True):
            if isinstance(reply, list):
                counts[shard.number] = reply
        return render(server, titles, {"Keyspace": _database(counts)})

    if not asked:
        return rendered([])
    gather = await_answers(session, len(asked), rendered)
    for share, shard in enumerate(asked):
        shard.submit_read(Share(gather, share), _count, [b"INFO"])
    return WAITING


COMMANDS = (
    Command(
        name="INFO",
        arity=-1,
        group="server",
        summary="Describes the server's state, in sections.",
        syntax="[section [section ...]]",
        reply="Text: `field:value` lines under `# Section` headings.",
        flags=("loading", "stale"),
        more_categories=("dangerous",),
        example="INFO clients sepakat",
        run=_count,
        serve=_info,
    ),
)
