"""Turns a log record into a line: Cloud Logging's JSON, or text for a person at a terminal.

Which fields a record may carry is written in `proxy.ops.logs`.
https://docs.cloud.google.com/logging/docs/structured-logging names the JSON fields.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from typing import Any, Final

from proxy.ops.trace import read_trace
from proxy.redact import redact

_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode

# The documented examples of HttpRequest.protocol are HTTP/1.1, HTTP/2 and websocket.
_PROTOCOLS: Final = {"h1": "HTTP/1.1", "h2": "HTTP/2", "ws": "websocket"}

_RESERVED: Final = frozenset({"severity", "time", "message", "httpRequest", "route", "reason"})


class JsonFormatter(logging.Formatter):
    """One JSON object a line, ASCII only, in the form that Cloud Logging understands."""

    def __init__(self, project: str = "") -> None:
        """`project` is the id that trace names need; empty as long as it is unknown."""
        super().__init__()
        self.project = project

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its newline."""
        line: dict[str, Any] = {
            "severity": record.levelname,
            "time": _rfc3339(record.created),
            "message": record.getMessage(),
        }
        for name in ("route", "reason", "hint"):
            if value := getattr(record, name, ""):
                line[name] = value
        if http := getattr(record, "http", None):
            line["httpRequest"] = http_request(http)
        if trace := getattr(record, "trace", None):
            line.update(self._trace(*trace))
        if record.exc_info:
            # Error Reporting reads this field; in JSON its newlines are escaped.
            line["stack_trace"] = self.formatException(record.exc_info)
        line["logger"] = record.name
        line.update(_more(record))
        return redact(_encode(line))

    def _trace(self, header: str, value: str) -> dict[str, Any]:
        if (trace := read_trace(header, value)) is None:
            return {}
        name = f"projects/{self.project}/traces/{trace.trace_id}" if self.project else ""
        fields: dict[str, Any] = {"logging.googleapis.com/trace": name or trace.trace_id}
        if trace.span_id:
            fields["logging.googleapis.com/spanId"] = trace.span_id
        fields["logging.googleapis.com/trace_sampled"] = trace.sampled
        return fields


def _more(record: logging.LogRecord) -> dict[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return {name: value for name, value in fields.items() if name not in _RESERVED}


def _rfc3339(seconds: float) -> str:
    whole, rest = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{rest:06}Z"


def http_request(http: Mapping[str, Any]) -> dict[str, Any]:
    """Return Cloud Logging's ``httpRequest`` for an exchange; what is not known is left out.

    Sizes are strings there: they are 64-bit integers in the JSON form of protocol buffers.
    """
    fields = {
        "requestMethod": http.get("method"),
        "requestUrl": _path_only(http.get("path")),
        "status": http.get("status"),
        "latency": _duration(http.get("seconds")),
        "requestSize": _size(http.get("request_bytes")),
        "responseSize": _size(http.get("response_bytes")),
        "userAgent": http.get("user_agent"),
        "protocol": _PROTOCOLS.get(http.get("protocol", "")),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _path_only(path: str | None) -> str | None:
    # Clients put credentials into queries (tRPC's connectionParams); no log may have them.
    return None if path is None else path.partition("?")[0]


def _duration(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def _size(size: int | None) -> str | None:
    return None if size is None else str(size)


_DIM, _BOLD, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_COLOURS: Final = {
    "DEBUG": "\x1b[2m", "INFO": "\x1b[32m", "WARNING": "\x1b[33m",
    "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m",
}  # fmt: skip

# Text that came from elsewhere must not move the cursor or invent lines (CWE-117): C0, DEL, C1
# and the Unicode line separators are shown as escapes.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_BUT_NEWLINE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


class TextFormatter(logging.Formatter):
    """``12:34:56.789 WARNING  orders  upstream_reset  message``, in colour where wanted."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its newline; a traceback makes it several lines."""
        at = time.localtime(record.created)
        parts = [
            self._paint(_DIM, f"{time.strftime('%H:%M:%S', at)}.{int(record.msecs):03d}"),
            self._paint(_COLOURS.get(record.levelname, ""), f"{record.levelname:<8}"),
        ]
        message = record.getMessage()
        parts += [self._paint(_BOLD, _plain(word)) for word in _labels(record, message)]
        parts.append(_plain(message))
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        for more in (_summary(getattr(record, "http", None) or {}, message), _pairs(fields)):
            parts.append(self._paint(_DIM, _plain(more)))
        line = "  ".join(part for part in parts if part)
        for below in (*_rows(fields), getattr(record, "hint", "")):
            if below:
                line += "\n" + self._paint(_DIM, f"{'':>12}  → {_plain(below)}")
        if record.exc_info:
            traceback = self.formatException(record.exc_info)
            line += "\n" + _CONTROL_BUT_NEWLINE.sub(_escape, traceback)
        return redact(line)

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colour and colour and text else text


def _pairs(fields: Mapping[str, Any]) -> str:
    """``version=0.1.0 listeners=localhost:8081,localhost:8082``: all but the tables."""
    return " ".join(
        f"{name}={_word(value)}" for name, value in fields.items() if not _is_table(value)
    )


def _rows(fields: Mapping[str, Any]) -> list[str]:
    """Return the rows of the fields that are tables, each for a line of its own."""
    return [_pairs(row) for value in fields.values() if _is_table(value) for row in value]


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _word(value: object) -> str:
    word = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return repr(word) if " " in word or not word else word


def _plain(text: str) -> str:
    return _CONTROL.sub(_escape, text)


def _labels(record: logging.LogRecord, message: str) -> list[str]:
    """Return the route, and the reason where the message does not say it."""
    route, reason = getattr(record, "route", ""), getattr(record, "reason", "")
    return [str(word) for word in (route, "" if reason in message else reason) if word]


def _summary(http: Mapping[str, Any], message: str) -> str:
    """``GET /orders/1 502 12 ms``, less what the message says already."""
    words = [http.get("method"), _path_only(http.get("path")), http.get("status")]
    said = [str(word) for word in words if word is not None and str(word) not in message]
    if (seconds := http.get("seconds")) is not None:
        said.append(f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s")
    return " ".join(said)
