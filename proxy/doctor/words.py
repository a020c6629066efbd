"""Numbers in words, commands out of hints, and this program's own commands to type.  Pure."""

from __future__ import annotations

import math
import re
import shlex
import shutil
from collections.abc import Callable
from typing import Literal

from proxy import PROGRAM
from proxy.config.ignored import TEXT_VARIABLE
from proxy.config.model import Route

_EMAIL = re.compile(r"[\w.+-]{1,100}@[\w.-]{1,150}", re.ASCII)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\uffff]+")
_COMMAND = re.compile(r"`([^`]+)`")
_PLAIN_WORD = re.compile(r"[a-z]+(?=[ ,]|$)")


_SECOND, _MINUTE, _HOUR, _DAY = 1, 60, 3600, 86400

_SPANS: tuple[tuple[float, Callable[[float], str]], ...] = (
    (0.01, lambda s: f"{s * 1000:.1f} ms"),
    (_SECOND, lambda s: f"{s * 1000:.0f} ms"),
    (10 * _SECOND, lambda s: f"{s:.1f} s"),
    (2 * _MINUTE, lambda s: f"{s:.0f} s"),
    (2 * _HOUR, lambda s: f"{s // _MINUTE:.0f} min {s % _MINUTE:.0f} s"),
    (2 * _DAY, lambda s: f"{s // _HOUR:.0f} h {s % _HOUR // _MINUTE:.0f} min"),
    (math.inf, lambda s: f"{s // _DAY:.0f} days"),
)
"""How a length of time is written, by the number of seconds that it is below."""


def span(seconds: float) -> str:
    """Return a length of time as people write it, rounded down from ten seconds on."""
    seconds = max(0.0, seconds)
    if seconds >= 10 * _SECOND:
        seconds = math.floor(seconds)
    return next(say for limit, say in _SPANS if seconds < limit)(seconds)


def command_in(hint: str | None) -> str:
    """Return the command that a hint names in backticks, the first if there are several."""
    found = _COMMAND.search(hint or "")
    return found[1] if found else ""


def advice_in(hint: str | None) -> tuple[str, str]:
    """Return a hint's sentence without its command, and the command, each empty if there is none.

    The command is shown on a line of its own, to be copied.
    """
    command = command_in(hint)
    if not hint or not command:
        return hint or "", ""
    rest = hint.replace(f": `{command}`", "", 1).replace(f"`{command}`", "this command", 1)
    return "" if rest == "Run this command." else sentence(rest), command


def sentence(text: str) -> str:
    """Return `text` with a full stop, and a capital where it begins with a plain word."""
    text = text.strip()
    if _PLAIN_WORD.match(text):  # Not an address, a URL or a file.
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def email(text: str | None) -> str:
    """Return `text` if it is an email address, else nothing: it ends up in commands to type."""
    return text if text is not None and _EMAIL.fullmatch(text) else ""


def printable(text: str, longest: int = 100) -> str:
    """Return a stranger's text on one line without control characters."""
    line = _UNPRINTABLE.sub(" ", text).strip()
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def try_to_connect(host: str, port: int) -> str:
    """Return the line that opens a connection; the image has Python, and neither nc nor telnet."""
    return f"python3 -c 'import socket; socket.create_connection((\"{host}\", {port}), 5)'"


def show_certificate(host: str, port: int) -> str:
    """Return the line that prints a server's certificate, verified or not."""
    return f"python3 -c 'import ssl; print(ssl.get_server_certificate((\"{host}\", {port})))'"


def with_curl(command: str, without: str) -> str:
    """Return `command`, which is curl's, or `without` where there is no curl, as in the image."""
    return command if shutil.which("curl") else without


def again(command: Literal["doctor", "token"], route: Route, source: str) -> str:
    """Return the line that runs a command for `route` with the same configuration.

    `source` is where that came from: `Config.source`.
    """
    if "://" in source:  # A URL in place of a configuration.
        word = source if command == "doctor" else route.first.audience or source
        return shlex.join([PROGRAM, command, word])
    name = route.name
    if command == "token" and len(route.upstream or route.service) > 1:
        name = route.first.audience or name  # Its name stands for the first destination.
    words = [PROGRAM, command, name]
    return shlex.join(words if source == TEXT_VARIABLE else [*words, "--config", source])
