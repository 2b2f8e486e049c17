"""Every setting through its one mechanism, and the three sources in their order of strength."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.storage.contract import SyncPolicy
from resp_server.logs import LogLevel
from resp_server.setting_kinds import BufferLimit
from resp_server.settings import FIELDS, Field, SettingError, Settings, example, load, named

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
        ({"node_id": "a b"}, {}, "--node-id must be 1 to 64 letters, digits, dots, dashes or underscores, not 'a b'"),
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


def test_the_password_is_not_shown_with_the_settings() -> None:
    assert "hunter2" not in repr(load({"requirepass": "hunter2"}, {}))


def test_the_example_file_is_current() -> None:
    """Mend it with ``sepakat settings > .env.example``."""
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == example()
