"""Every setting through its one mechanism, and the three sources in their order of strength."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.storage.contract import SyncPolicy
from resp_server.logs import LogLevel
from resp_server.setting_kinds import BufferLimit
from resp_server.settings import FIELDS, Field, Routing, SettingError, Settings, example, load, named

ROOT = Path(__file__).parents[2]
every_field = pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)


@every_field
def test_what_a_setting_renders_it_also_parses(field: Field) -> None:
    value = getattr(Settings(), field.attribute)
    assert field.parse(field.text(Settings()), "") == value
    assert field.parse(field.default, "") == value


@every_field
def test_each_setting_is_taken_from_each_source(field: Field, tmp_path: Path) -> None:
    file = tmp_path / "sepakat.toml"
    file.write_text(f'{field.name} = "{field.default}"')
    assert load({}, {}, file) == load({}, {field.variable: field.default}) == load({field.attribute: field.default}, {})


def test_flags_win_over_variables_and_variables_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "sepakat.toml"
    file.write_text("port = 1\ntimeout = 1\nmaxclients = 1\n")
    settings = load({"port": "3"}, {"SEPAKAT_PORT": "2", "SEPAKAT_TIMEOUT": "2"}, file)
    assert (settings.port, settings.timeout, settings.maxclients, settings.tcp_backlog) == (3, 2, 1, 511)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1048576", 2**20), ("2000000b", 2_000_000), ("2000k", 2_000_000), ("2000kb", 2_048_000),
        ("2m", 2_000_000), ("2mb", 2 * 2**20), ("2G", 2 * 10**9), ("2GB", 2 * 2**30),
    ],
)  # fmt: skip
def test_sizes_have_redis_memory_units(text: str, size: int) -> None:
    assert load({"proto_max_bulk_len": text}, {}).proto_max_bulk_len == size


@given(st.integers(2**20, 2**63 - 1))
def test_any_size_in_range_comes_back_as_its_bytes(size: int) -> None:
    settings = Settings().changed("proto-max-bulk-len", str(size))
    assert named("proto-max-bulk-len").text(settings) == str(size)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("timeout", "-1", "argument must be between 0 and 2147483647 inclusive"),
        ("timeout", "1e3", "argument couldn't be parsed into an integer"),
        ("timeout", " 1", "argument couldn't be parsed into an integer"),
        ("timeout", "1_0", "argument couldn't be parsed into an integer"),
        ("timeout", "٣", "argument couldn't be parsed into an integer"),
        ("timeout", "9" * 30, "argument couldn't be parsed into an integer"),
        ("proto-max-bulk-len", "1xb", "argument must be a memory value"),
        ("proto-max-bulk-len", "1", "argument must be between 1048576 and 9223372036854775807 inclusive"),
        ("appendfsync", "often", "argument(s) must be one of the following: always, everysec, no"),
        ("cache-propagation", "on", "argument must be 'yes' or 'no'"),
        ("client-output-buffer-limit", "1mb", "Wrong number of arguments in buffer limit configuration."),
        ("client-output-buffer-limit", "pubsub 1mb 1mb 1", "Wrong number of arguments in buffer limit configuration."),
        (
            "client-output-buffer-limit",
            "1mb 1mb soon",
            "Error in hard, soft or soft_seconds setting in buffer limit configuration.",
        ),
        ("port", "7000", "can't set immutable config"),
        ("prot", "7000", "unknown setting"),
    ],
)
def test_a_change_is_refused_in_redis_words(name: str, text: str, reason: str) -> None:
    with pytest.raises(SettingError) as refused:
        Settings().changed(name, text)
    assert refused.value.reason == reason


def test_a_change_makes_a_new_record_and_leaves_the_old_one() -> None:
    before = Settings()
    after = before.changed("APPENDFSYNC", "EverySec")
    assert (before.appendfsync, after.appendfsync) == (SyncPolicy.ALWAYS, SyncPolicy.EVERYSEC)
    assert dataclasses.replace(after, appendfsync=SyncPolicy.ALWAYS) == before


def test_routing_and_bandwidth_change_while_the_server_runs() -> None:
    settings = Settings().changed("routing", "Redirect").changed("rebalance-bandwidth", "1mb")
    assert (settings.routing, settings.rebalance_bandwidth) == (Routing.REDIRECT, 2**20)


def test_values_have_the_types_the_server_uses() -> None:
    settings = load({"bind": "127.0.0.1 *", "unixsocketperm": "770", "loglevel": "notice"}, {})
    assert settings.bind == ("127.0.0.1", "0.0.0.0")
    assert settings.unixsocketperm == 0o770
    assert settings.loglevel is LogLevel.NOTICE
    assert settings.client_output_buffer_limit == BufferLimit(2**30, 256 * 2**20, 60)
    assert named("unixsocketperm").text(settings) == "770"


@pytest.mark.parametrize(
    ("flags", "variables", "line"),
    [
        ({"port": "70000"}, {}, "--port must be a whole number from 0 to 65535, not '70000'"),
        ({}, {"SEPAKAT_PORT": "tcp://10.0.0.1:6379"}, "SEPAKAT_PORT must be a whole number from 0 to 65535, not 'tcp:"),
        ({}, {"SEPAKAT_APPENDFSYNC": "x"}, "SEPAKAT_APPENDFSYNC must be always, everysec or no, not 'x'"),
        ({"cache_max_bytes": "lots"}, {}, "--cache-max-bytes must be a size such as 64mb, not below 0, not 'lots'"),
        ({"cache_propagation": "1"}, {}, "--cache-propagation must be yes or no, not '1'"),
        ({"node_id": "a b"}, {}, "--node-id must be up to 64 letters, digits, dots, dashes or underscores, not 'a b'"),
        ({"election_timeout": "49"}, {}, "--election-timeout must be a whole number from 50 to 60000, not '49'"),
        ({"heartbeat_interval": "0"}, {}, "--heartbeat-interval must be a whole number from 5 to 20000, not '0'"),
        ({"shards": "1025"}, {}, "--shards must be a whole number from 1 to 1024, not '1025'"),
        ({"replicas": "0"}, {}, "--replicas must be a whole number from 1 to 9, not '0'"),
        ({"zone": "a/b"}, {}, "--zone must be up to 64 letters, digits, dots, dashes or underscores, not 'a/b'"),
        ({"routing": "guess"}, {}, "--routing must be proxy or redirect, not 'guess'"),
        ({"node_timeout": "999"}, {}, "--node-timeout must be a whole number not below 1000, not '999'"),
        ({"rebalance_bandwidth": "0"}, {}, "--rebalance-bandwidth must be a size such as 64mb, not below 64kb, not"),
        ({"read_mode": "stale"}, {}, "--read-mode must be lease or quorum, not 'stale'"),
        ({"join": "host"}, {}, "--join must be an address such as host:6379, not 'host': 'host' is not HOST:PORT"),
        ({"announce": "*:1"}, {}, "--announce must be an address such as host:6379, not '*:1'"),
        ({"bind": " "}, {}, "--bind must be one address or more, with blanks between them, not ' '"),
        ({"dir": ""}, {}, "--dir must be a path, not ''"),
        ({"unixsocketperm": "999"}, {}, "--unixsocketperm must be an octal number up to 777, not '999'"),
        ({"port": "0"}, {}, "port 0 without a unixsocket leaves nothing to listen on: set one of them"),
        ({"port": "x"}, {"SEPAKAT_PORT": "y"}, "SEPAKAT_PORT must be"),  # a bad source is not hidden by a stronger one
    ],
)
def test_a_bad_value_names_its_source_and_what_is_allowed(
    flags: dict[str, str], variables: dict[str, str], line: str
) -> None:
    with pytest.raises(SettingError) as refused:
        load(flags, variables)
    assert str(refused.value).startswith(line)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"prot = 1", "{file}: unknown setting 'prot', did you mean port?"),
        (b"zzzzzz = 1", "{file}: unknown setting 'zzzzzz'"),
        (b"port = 1.5", "port in {file} must be a text or a whole number, not 1.5"),
        (b"port = true", "port in {file} must be a text or a whole number, not True"),
        (b'bind = ["::1"]', "bind in {file} must be a text or a whole number, not ['::1']"),
        (b"port = -1", "port in {file} must be a whole number from 0 to 65535, not '-1'"),
        (b"port 1", "cannot read the settings in {file}: "),
        (b"\xff", "cannot read the settings in {file}: "),
    ],
)
def test_a_bad_file_is_one_clear_line(content: bytes, line: str, tmp_path: Path) -> None:
    file = tmp_path / "sepakat.toml"
    file.write_bytes(content)
    with pytest.raises(SettingError) as refused:
        load({}, {}, file)
    assert str(refused.value).startswith(line.format(file=file))
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"cannot read the settings in .*No such file"):
        load({}, {}, tmp_path / "none.toml")


def test_variables_of_others_are_let_be() -> None:
    assert load({}, {"SEPAKAT_SERVICE_HOST": "10.0.0.1", "PORT": "1"}) == Settings()


# The cluster


THREE = "n1=10.0.0.1:7001,n2=10.0.0.2:7001,n3=[fd00::3]:7001"


def test_a_cluster_is_read_as_ids_and_addresses() -> None:
    settings = load({"cluster": " n1=a_b.example:1 , n2=[::1]:65535", "node_id": "n2"}, {})
    assert settings.cluster == (("n1", "a_b.example:1"), ("n2", "[::1]:65535"))
    assert named("cluster").text(settings) == "n1=a_b.example:1,n2=[::1]:65535"


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("n1", "'n1' is not NAME=HOST:PORT"),
        ("n1=a:1,", "'' is not NAME=HOST:PORT"),
        ("a b=a:1", "'a b=a:1' is not NAME=HOST:PORT"),
        ("n1=a", "'a' is not HOST:PORT"),
        ("n1=:1", "':1' is not HOST:PORT"),
        ("n1=::1:1", "'::1:1' is not HOST:PORT"),
        ("n1=a:x", "'a:x' is not HOST:PORT"),
        ("n1=a:0", "'a:0' has a port outside 1 to 65535"),
        ("n1=a:70000", "'a:70000' has a port outside 1 to 65535"),
        ("n1=0.0.0.0:1", "nobody can connect to 0.0.0.0"),
        ("n1=a:1,n1=b:1", "n1 is listed twice"),
        ("n1=a:1,n2=b:1,n3=a:1", "n1 and n3 have one address"),
    ],
)
def test_a_list_with_a_flaw_is_told_which(text: str, flaw: str) -> None:
    with pytest.raises(SettingError) as refused:
        load({"cluster": text}, {})
    example = "a list such as n1=host:port,n2=host:port,n3=host:port"
    assert str(refused.value) == f"--cluster must be {example}, not {text!r}: {flaw}"


@pytest.mark.parametrize(
    ("flags", "bind", "port", "address"),
    [
        ({"node_id": "n2"}, ("127.0.0.1", "10.0.0.2"), 7001, "10.0.0.2:7001"),
        ({"node_id": "n3"}, ("127.0.0.1", "fd00::3"), 7001, "[fd00::3]:7001"),
        ({"node_id": "n2", "port": "6379"}, ("127.0.0.1", "10.0.0.2"), 6379, "10.0.0.2:7001"),
        ({"node_id": "n2", "bind": "*"}, ("0.0.0.0",), 7001, "10.0.0.2:7001"),
        ({"node_id": "n1", "cluster": "n1=127.0.0.1:9"}, ("127.0.0.1",), 9, "127.0.0.1:9"),
        ({"node_id": "n1", "cluster": "n1=localhost:9"}, ("127.0.0.1",), 9, "localhost:9"),
    ],
)
def test_where_a_node_listens_follows_from_the_list(
    flags: dict[str, str], bind: tuple[str, ...], port: int, address: str
) -> None:
    settings = load({"cluster": THREE, **flags}, {})
    assert (settings.bind, settings.port, settings.address) == (bind, port, address)


@pytest.mark.parametrize(
    ("flags", "address"),
    [
        ({}, "127.0.0.1:6379"),
        ({"bind": "::1 10.0.0.1", "port": "7"}, "[::1]:7"),
        ({"bind": "*"}, ""),
        ({"bind": "*", "announce": "a:1"}, "a:1"),
        ({"join": "10.0.0.1:7001"}, "127.0.0.1:6379"),
    ],
)
def test_a_node_alone_is_where_it_listens_or_says_it_is(flags: dict[str, str], address: str) -> None:
    assert load(flags, {}).address == address


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"cluster": THREE}, "cluster needs node-id: say which of n1, n2, n3 this node is"),
        ({"cluster": THREE, "node_id": "n4"}, "node-id n4 is not in cluster, which lists n1, n2, n3"),
        (
            {"cluster": THREE, "node_id": "n1", "announce": "a:1"},
            "announce a:1 is not where cluster has n1, 10.0.0.1:7001: leave announce empty",
        ),
        (
            {"cluster": THREE, "node_id": "n1", "join": "10.0.0.2:7001"},
            "cluster begins a new cluster and join enters one that is there: set one of them",
        ),
        (
            {"cluster": THREE, "node_id": "n1", "port": "0", "unixsocket": "/s"},
            "port 0 leaves other nodes nothing to connect to: set a port",
        ),
        ({"join": "a:1", "bind": "*"}, "bind 0.0.0.0 does not tell other nodes where this one is: set announce"),
        (
            {"join": "127.0.0.1:6379"},
            "join 127.0.0.1:6379 is this node itself: set it to the address of another",
        ),
        (
            {"heartbeat_interval": "101"},
            "heartbeat-interval 101 is too long for election-timeout 300: it may be a third of that, 100",
        ),
        (
            {"session_timeout": "1499"},
            "session-timeout 1499 is too short for election-timeout 300: set it to at least 5 times that, 1500",
        ),
        (
            {"node_timeout": "2999"},
            "node-timeout 2999 is too short for election-timeout 300: it must be at least 10 times that, 3000",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_one_clear_line(flags: dict[str, str], line: str) -> None:
    with pytest.raises(SettingError) as refused:
        load(flags, {})
    assert str(refused.value) == line


def test_secrets_are_not_shown_with_the_settings() -> None:
    assert "hunter2" not in repr(load({"requirepass": "hunter2", "cluster_secret": "hunter2"}, {}))


def test_the_example_file_is_current() -> None:
    """Mend it with ``sepakat settings > .env.example``."""
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == example()


def test_what_the_compose_file_sets_are_settings() -> None:
    named_there = set(re.findall(r"SEPAKAT_[A-Z_]+", (ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8")))
    words = ("NODE_ID", "CLUSTER", "CLUSTER_SECRET", "REQUIREPASS", "SHARDS", "JOIN", "ANNOUNCE")
    assert named_there == {f"SEPAKAT_{word}" for word in words}
    assert named_there <= {field.variable for field in FIELDS}
