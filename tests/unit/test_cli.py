"""The command line: complete help, one line for what a person did wrong, and what reaches the server."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from resp_server import __version__, cli
from resp_server.settings import FIELDS, Settings


class _StartError(Exception):
    pass


class _App(ModuleType):
    """Stands where the server would be: keeps the settings it was given and ends as told."""

    StartError = _StartError

    def __init__(self) -> None:
        super().__init__("resp_server.edge.app")
        self.given: Settings | None = None
        self.outcome: int | _StartError = 0

    def serve(self, settings: Settings) -> int:
        self.given = settings
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> _App:
    app = _App()
    monkeypatch.setitem(sys.modules, app.__name__, app)
    monkeypatch.setattr("resp_server.edge.app", app, raising=False)
    for field in FIELDS:
        monkeypatch.delenv(field.variable, raising=False)
    return app


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    """The exit code of ``sepakat words``."""
    monkeypatch.setattr(sys, "argv", ["sepakat", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_help_has_every_setting_with_its_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "serve", "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for field in FIELDS:
        assert f"--{field.name} {field.kind.short}" in shown
        assert f"{field.summary} [default: {field.default or 'none'}]" in shown
        assert f"{field.group}:" in shown


@pytest.mark.parametrize("command", ["local", "status", "remove", "transfer", "rebalance"])
def test_each_command_explains_itself_and_every_option(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, command, "--help") == 0
    shown = capsys.readouterr().out
    params = cli.sepakat.commands[command].params
    for flag in (param.opts[0] for param in params if isinstance(param, click.Option)):
        assert re.search(rf"^  {flag}( \w+)? +\w+", shown, re.MULTILINE), flag


def test_a_local_cluster_that_cannot_start_is_one_line_and_exit_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(monkeypatch, "local", "--nodes", "1", "--port", str(port), "--dir", str(tmp_path)) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"sepakat: port {port} cannot be had: Address already in use")
    assert said.count("\n") == 1


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"sepakat {__version__}\n"


def test_flags_and_variables_reach_the_server(app: _App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPAKAT_TIMEOUT", "5")
    app.outcome = 7
    assert run(monkeypatch, "serve", "--port", "7000", "--slowlog-log-slower-than", "-1") == 7
    assert app.given == Settings(port=7000, slowlog_log_slower_than=-1, timeout=5)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("serve", "--port", "x"), "--port must be a whole number from 0 to 65535, not 'x'"),
        (("serve", "--config", "/nonexistent/a.toml"), "cannot read the settings in /nonexistent/a.toml"),
        (("serve", "--logfile", "/nonexistent/log"), "logfile /nonexistent/log cannot be opened: No such file"),
        (("serve", "--prot", "1"), "No such option"),
        (("serve", "stray"), "Got unexpected extra argument"),
        (("sevre",), "No such command"),
        (("serve", "--cluster", "n1=a:1"), "cluster needs node-id: say which of n1 this node is"),
        (("local", "--nodes", "0"), "Invalid value for '--nodes': 0 is not in the range x>=1."),
        (("local", "--shards", "1025"), "--shards must be a whole number from 1 to 1024, not '1025'"),
        (("local", "--replicas", "x"), "--replicas must be a whole number from 1 to 9, not 'x'"),
        (("local", "--zones", "0"), "Invalid value for '--zones': 0 is not in the range x>=1."),
        (("local", "--port", "70000"), "Invalid value for '--port': 70000 is not in the range 1<=x<=65535."),
        (("status", "--port", "x"), "Invalid value for '--port': 'x' is not a valid integer range."),
        (("remove",), "Missing argument 'NODE'."),
    ],
)
def test_bad_settings_are_one_line_and_exit_2(
    words: tuple[str, ...], line: str, app: _App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"sepakat: {line}")
    assert said.count("\n") == 1
    assert app.given is None


def test_a_server_that_cannot_start_is_one_line_and_exit_1(
    app: _App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app.outcome = _StartError("port 6379 is in use: stop the other server or give --port")
    assert run(monkeypatch, "serve") == 1
    assert capsys.readouterr().err == "sepakat: port 6379 is in use: stop the other server or give --port\n"


def test_no_command_shows_the_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch) == 2
    assert capsys.readouterr().err.startswith("Usage: sepakat")
