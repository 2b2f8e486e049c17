"""INFO, CONFIG, SLOWLOG, ACL and what concerns the whole server, with Redis 7.4's own replies."""

from __future__ import annotations

import hashlib
import os
import time

import pytest

from cluster.machine.reply import CommandError
from resp_server.memory import human
from tests.unit.wire_front import WireFront, wire

OK = b"+OK\r\n"


@pytest.fixture
def front() -> WireFront:
    return WireFront()


@pytest.mark.parametrize(
    ("call", "reply"),
    [
        ("ROLE", b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
        ("MODULE LIST", b"*0\r\n"),
        ("ACL WHOAMI", b"$7\r\ndefault\r\n"),
        ("ACL USERS", b"*1\r\n$7\r\ndefault\r\n"),
        ("ACL CAT nosuch", b"-ERR Unknown category 'nosuch'\r\n"),
        ("ACL CAT a b", b"-ERR unknown subcommand or wrong number of arguments for 'CAT'. Try ACL HELP.\r\n"),
        ("READONLY", b"-ERR This instance has cluster support disabled\r\n"),
        ("WAIT 1 0", b":0\r\n"),
        ("WAIT x 0", b"-ERR value is not an integer or out of range\r\n"),
        ("WAIT 0 x", b"-ERR timeout is not an integer or out of range\r\n"),
        ("WAIT 0 -1", b"-ERR timeout is negative\r\n"),
        ("BGSAVE NOW", b"-ERR syntax error\r\n"),
        ("SHUTDOWN LATER", b"-ERR syntax error\r\n"),
        ("SHUTDOWN SAVE NOSAVE", b"-ERR syntax error\r\n"),
        ("SHUTDOWN ABORT", b"-ERR No shutdown in progress.\r\n"),
        ("DEBUG SLEEP x", b"-ERR seconds must be a number from 0 to 60\r\n"),
        ("DEBUG SLEEP nan", b"-ERR seconds must be a number from 0 to 60\r\n"),
        ("DEBUG SLEEP 61", b"-ERR seconds must be a number from 0 to 60\r\n"),
        ("DEBUG SEGFAULT", b"-ERR unknown subcommand 'SEGFAULT'. Try DEBUG HELP.\r\n"),
        ("SLOWLOG GET -2", b"-ERR count should be greater than or equal to -1\r\n"),
        ("SLOWLOG GET 1 2", b"-ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP.\r\n"),
        ("CONFIG GET save", b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        ("CONFIG GET appendonly", b"*2\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n"),
        ("CONFIG GET nosuch*", b"*0\r\n"),
        ("CONFIG GET TIMEOUT timeout", b"*2\r\n$7\r\nTIMEOUT\r\n$1\r\n0\r\n"),
        ("CONFIG REWRITE", b"-ERR The server is running without a config file\r\n"),
        ("CONFIG SET a 1 b", b"-ERR syntax error\r\n"),
        ("CONFIG SET nosuch 1", b"-ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'\r\n"),
    ],
)
def test_replies(front: WireFront, call: str, reply: bytes) -> None:
    assert front.ask(call) == reply


# CONFIG


@pytest.mark.parametrize(
    ("call", "name", "reason"),
    [
        ("CONFIG SET maxclients x", "maxclients", "argument couldn't be parsed into an integer"),
        ("CONFIG SET timeout -1", "timeout", "argument must be between 0 and 2147483647 inclusive"),
        ("CONFIG SET timeout 1 timeout 2", "timeout", "duplicate parameter"),
        ("CONFIG SET databases 2", "databases", "can't set immutable config"),
        ("CONFIG SET timeout 1 DIR /", "dir", "can't set immutable config"),
    ],
)
def test_config_set_says_what_is_wrong(front: WireFront, call: str, name: str, reason: str) -> None:
    before = front.server.settings
    expected = f"-ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}\r\n"
    assert front.ask(call) == expected.encode()
    assert front.server.settings is before
    assert not front.edge.changed


def test_config_set_takes_all_or_nothing(front: WireFront) -> None:
    assert front.ask("CONFIG SET timeout 7 maxclients no").startswith(b"-ERR CONFIG SET failed")
    assert front.ask("CONFIG GET timeout") == b"*2\r\n$7\r\ntimeout\r\n$1\r\n0\r\n"
    assert front.ask("CONFIG SET timeout 7 MaxClients 99") == OK
    assert front.ask("CONFIG GET timeout maxclients") == wire({b"timeout": b"7", b"maxclients": b"99"})
    assert front.edge.changed == ["timeout", "maxclients"]


def test_config_get_takes_several_patterns(front: WireFront) -> None:
    session = front.connect()
    front.send(session, "HELLO 3")
    assert front.send(session, "CONFIG GET max?emory tcp-keep* appendf[ms]ync tcp-*alive") == wire(
        {b"maxmemory": b"0", b"tcp-keepalive": b"300", b"appendfsync": b"always"}, 3
    )


def test_resetstat_forgets_the_counts(front: WireFront) -> None:
    session = front.connect()
    front.send(session, "SET a", "GET a")
    assert b"cmdstat_get:calls=1,rejected_calls=0" in front.ask("INFO commandstats")
    assert b"cmdstat_set:calls=0,rejected_calls=1" in front.ask("INFO commandstats")
    assert b"errorstat_ERR:count=1" in front.ask("INFO errorstats")
    assert front.ask("CONFIG RESETSTAT") == OK
    assert b"cmdstat_get" not in front.ask("INFO commandstats")
    assert b"errorstat_ERR" not in front.ask("INFO errorstats")
    assert b"total_connections_received:3\r\n" in front.ask("INFO stats")


# INFO


def info(front: WireFront, *sections: str) -> dict[str, str]:
    text = front.ask(" ".join(["INFO", *sections])).split(b"\r\n", 1)[1].decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def test_info_has_the_fields_clients_look_for(front: WireFront) -> None:
    front.ask("SET a 1")
    front.ask("SET b 1 EX 100")
    told = info(front)
    expected = {
        "redis_version": "7.4.1", "redis_mode": "standalone", "uptime_in_seconds": "0", "uptime_in_days": "0",
        "process_id": str(os.getpid()), "tcp_port": "6379", "blocked_clients": "0", "maxmemory_policy": "noeviction",
        "number_of_cached_scripts": "0", "loading": "0", "rdb_bgsave_in_progress": "0",
        "rdb_last_bgsave_status": "ok", "aof_enabled": "1", "aof_last_write_status": "ok", "role": "master",
        "cluster_enabled": "0", "db0": "keys=2,expires=1", "node_id": "n1", "log_applied_index": "4",
    }  # fmt: skip
    assert {name: told.get(name) for name in expected} == expected
    assert 0 < int(told["used_memory"]) <= int(told["used_memory_peak"]) < int(told["total_system_memory"])
    assert float(told["used_cpu_user"]) > 0


def test_info_names_no_other_server(front: WireFront) -> None:
    text = front.ask("INFO everything").lower()
    assert not [word for word in (b"valkey", b"keydb", b"dragonfly_version", b"garnet_version") if word in text]


def test_info_sections_are_chosen_in_any_case_and_unknown_ones_ignored(front: WireFront) -> None:
    def titles(call: str) -> list[bytes]:
        return [line for line in front.ask(call).splitlines() if line.startswith(b"#")]

    assert titles("INFO CLIENTS nosuch server") == [b"# Server", b"# Clients"]
    assert titles("INFO nosuch") == []
    assert b"# Commandstats" not in titles("INFO")
    assert titles("INFO default commandstats") == titles("INFO all") == titles("INFO everything")
    assert titles("INFO")[-1] == b"# Sepakat"


def test_info_is_verbatim_text_in_resp3(front: WireFront) -> None:
    session = front.connect()
    front.send(session, "HELLO 3")
    assert front.send(session, "INFO cluster") == b"=34\r\ntxt:# Cluster\r\ncluster_enabled:0\r\n\r\n"


def test_info_counts_those_who_wait_and_watch(front: WireFront) -> None:
    front.send(front.connect(), "Q.POP mail BLOCK 0")
    front.send(front.connect(), "WATCH a b")
    told = info(front, "clients")
    names = ("connected_clients", "blocked_clients", "watching_clients", "total_watched_keys", "total_blocking_keys")
    assert [told[name] for name in names] == ["3", "1", "1", "2", "1"]


def test_info_tells_of_a_disk_that_takes_no_writes(front: WireFront) -> None:
    front.server.refusal = CommandError("no space", "MISCONF")
    assert info(front, "persistence")["aof_last_write_status"] == "err"


@pytest.mark.parametrize(("size_bytes", "text"), [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (3 << 29, "1.50G")])
def test_sizes_for_people(size_bytes: int, text: str) -> None:
    assert human(size_bytes) == text


# The rest


def test_bgsave_starts_one_checkpoint(front: WireFront) -> None:
    assert front.ask("BGSAVE") == b"+Background saving started\r\n"
    assert front.ask("BGSAVE SCHEDULE") == b"-ERR Background save already in progress\r\n"


@pytest.mark.parametrize(("call", "checkpoint"), [("SHUTDOWN", True), ("SHUTDOWN NOSAVE NOW", False)])
def test_shutdown_answers_by_closing(front: WireFront, call: str, checkpoint: bool) -> None:
    session = front.connect()
    assert front.send(session, "SET a 1", call) == OK
    assert session.closing
    assert front.edge.stopped is checkpoint


def test_time_is_now(front: WireFront) -> None:
    before_us = time.time_ns() // 1000
    _, _, seconds, _, microseconds, _ = front.ask("TIME").split(b"\r\n")
    assert before_us <= int(seconds) * 1_000_000 + int(microseconds) <= time.time_ns() // 1000


def test_slowlog_keeps_what_took_too_long(front: WireFront) -> None:
    session = front.connect()
    front.send(session, "CLIENT SETNAME slow", "DEBUG SLEEP 0.02", "DEBUG SLEEP 0")
    assert front.send(session, "SLOWLOG LEN") == b":1\r\n"
    call = front.server.slowlog.calls[0]
    assert front.send(session, "SLOWLOG GET") == wire(
        [[0, call.unix_s, call.duration_us, [b"DEBUG", b"SLEEP", b"0.02"], session.address.encode(), b"slow"]]
    )
    assert call.duration_us >= 20_000
    assert front.send(session, "SLOWLOG GET 0", "SLOWLOG RESET", "SLOWLOG LEN") == b"*0\r\n" + OK + b":0\r\n"


def test_acl_list_shows_no_password(front: WireFront) -> None:
    assert b"user default on nopass sanitize-payload ~* &* +@all" in front.ask("ACL LIST")
    front.ask("CONFIG SET requirepass secret")
    session = front.connect()
    front.send(session, "AUTH secret")
    listed = front.send(session, "ACL LIST")
    assert hashlib.sha256(b"secret").hexdigest().encode() in listed
    assert b" secret" not in listed


def test_acl_categories_cover_every_command(front: WireFront) -> None:
    names = {route.command.full_name.encode() for route in front.table.everything()}
    listed = set()
    for category in ("fast", "slow"):
        listed |= set(front.ask(f"ACL CAT {category}").split(b"\r\n"))
    assert names <= listed


@pytest.mark.parametrize(
    "container", ["ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DEBUG", "MEMORY", "OBJECT", "SLOWLOG"]
)
def test_help_lists_every_subcommand(front: WireFront, container: str) -> None:
    lines = front.ask(f"{container} HELP").decode().split("\r\n")
    assert lines[1] == f"+{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    route = front.table.get(container.encode())
    assert route is not None
    words = [subroute.command.name.split()[1] for subroute in front.table.subroutes(route.command)]
    assert words
    assert [line.lstrip("+").split(" ")[0] for line in lines[2::2] if line] == words
