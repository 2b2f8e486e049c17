"""What the server says of itself: one line an event, to standard error or a file, quiet by default.

Fields travel as the one mapping the standard library allows as arguments:

>>> logging.getLogger("sepakat").warning("cannot write", {"path": "/data", "reason": "disk full"})
2026-01-31T10:00:00.123Z warning "cannot write" path=/data reason="disk full"

The event itself is a constant, so that equal events can be counted; an
exception becomes the field ``exception``, its line ends escaped.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from enum import Enum

LOGGER = logging.getLogger("sepakat")


class LogLevel(Enum):
    """How much is said: Redis's ``loglevel``."""

    DEBUG = "debug"
    VERBOSE = "verbose"
    NOTICE = "notice"
    WARNING = "warning"
    NOTHING = "nothing"


class LogFormat(Enum):
    """How a line is written."""

    TEXT = "text"
    JSON = "json"


VERBOSE = 15  # between the standard library's DEBUG and INFO

_THRESHOLDS = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.VERBOSE: VERBOSE,
    LogLevel.NOTICE: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.NOTHING: logging.CRITICAL + 1,
}
_NAMES = {VERBOSE: "verbose", logging.INFO: "notice"}
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII but blank, quote, equals and backslash


def _text_line(fields: Mapping[str, object]) -> str:
    """``time level event``, then ``name=value``; anything but a plain word is quoted as JSON does."""
    words = [(name, str(value)) for name, value in fields.items()]
    quoted = [(name, word if _PLAIN.fullmatch(word) else json.dumps(word)) for name, word in words]
    return " ".join(word if at < 3 else f"{name}={word}" for at, (name, word) in enumerate(quoted))


def _json_line(fields: Mapping[str, object]) -> str:
    return json.dumps(fields, default=str)


_WRITERS: dict[LogFormat, Callable[[Mapping[str, object]], str]] = {
    LogFormat.TEXT: _text_line,
    LogFormat.JSON: _json_line,
}


class _Formatter(logging.Formatter):
    """A record as one line, its time in UTC."""

    def __init__(self, log_format: LogFormat) -> None:
        super().__init__()
        self._write = _WRITERS[log_format]

    def format(self, record: logging.LogRecord) -> str:
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, object] = {
            "time": f"{second}.{int(record.msecs):03d}Z",
            "level": _NAMES.get(record.levelno, record.levelname.lower()),
            "event": record.getMessage(),
        }
        if isinstance(record.args, Mapping):
            fields |= record.args
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return self._write(fields)


def configure(level: LogLevel, log_format: LogFormat, file: str) -> None:
    """Sends the server's log to ``file`` (empty: standard error), instead of where it went before.

    Raises `OSError` when the file cannot be opened.
    """
    handler = logging.FileHandler(file) if file else logging.StreamHandler()
    handler.setFormatter(_Formatter(log_format))
    for former in LOGGER.handlers[:]:
        LOGGER.removeHandler(former)
        former.close()
    LOGGER.addHandler(handler)
    LOGGER.propagate = False
    set_level(level)


def set_level(level: LogLevel) -> None:
    """Says this much from now on."""
    LOGGER.setLevel(_THRESHOLDS[level])
