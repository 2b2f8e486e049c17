"""A log line is one line, whatever is in it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.machine.machine import Commands, Machine
from cluster.machine.reply import CommandError
from resp_server import logs
from resp_server.logs import LogFormat, LogLevel


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "log"
    logs.configure(LogLevel.WARNING, LogFormat.TEXT, "")


def test_text_fields_are_quoted_when_they_are_not_a_plain_word(log: Path) -> None:
    logs.configure(LogLevel.WARNING, LogFormat.TEXT, str(log))
    logs.LOGGER.warning("cannot write", {"path": "/data", "count": 3, "reason": 'disk "full"\nnow', "empty": ""})
    time, rest = log.read_text().split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert rest == r'warning "cannot write" path=/data count=3 reason="disk \"full\"\nnow" empty=""' + "\n"


def test_json_lines_hold_the_same_fields(log: Path) -> None:
    logs.configure(LogLevel.NOTICE, LogFormat.JSON, str(log))
    logs.LOGGER.info("listening", {"port": 6379})
    line = json.loads(log.read_text())
    assert {name: line[name] for name in ("level", "event", "port")} == {
        "level": "notice", "event": "listening", "port": 6379,
    }  # fmt: skip


def test_an_exception_stays_on_its_line(log: Path) -> None:
    logs.configure(LogLevel.WARNING, LogFormat.TEXT, str(log))
    try:
        raise ValueError("no")
    except ValueError:
        logs.LOGGER.exception("failed")
    (line,) = log.read_text().splitlines()
    assert "Traceback (most recent call last)" in line


def test_a_bug_of_a_command_is_told_with_all_that_leads_to_it(log: Path) -> None:
    logs.configure(LogLevel.WARNING, LogFormat.JSON, str(log))
    machine = Machine(Commands({}, {}))
    reply = machine.peek(lambda machine, args: args[7], [b"BROKEN\xff"])
    assert isinstance(reply, CommandError)
    line = json.loads(log.read_text())
    assert line["event"] == "a command failed by a bug"
    assert line["command"] == "BROKEN\\xff"
    assert "IndexError" in line["exception"]


@pytest.mark.parametrize("level", LogLevel)
def test_each_level_says_what_it_names_and_above(level: LogLevel, log: Path) -> None:
    logs.configure(LogLevel.NOTHING, LogFormat.TEXT, str(log))
    logs.set_level(level)
    for number in (logging.DEBUG, logs.VERBOSE, logging.INFO, logging.WARNING):
        logs.LOGGER.log(number, "event")
    words = [line.split()[1] for line in log.read_text().splitlines()]
    order = ["debug", "verbose", "notice", "warning", "nothing"]
    assert words == order[order.index(level.value) : -1]
