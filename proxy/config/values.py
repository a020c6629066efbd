"""Simple values of the configuration: durations, sizes, methods, header names and values.

Pure: text in, value out.  Every function raises `ValueError` with a sentence that says what was
written and what to write instead.
"""

from __future__ import annotations

import math
import re

from proxy.config.model import OFF, RETRY_CAUSES
from proxy.config.problems import quoted

DURATION = r"[0-9]+(\.[0-9]+)?(ms|s|m|h)"
SIZE = r"[0-9]{1,15}(B|KiB|MiB|GiB)?"
SHARE = r"[0-9]{1,3}(\.[0-9]+)?%"
CAUSE_STATUS = r"[45][0-9][0-9]"
METHOD = r"[A-Z]+(-[A-Z]+)*"
# RFC 9110, 5.6.2.
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 (the RFC's word)
# RFC 9110, 5.5, without obs-text: bytes beyond ASCII mean something else to every reader.
FIELD_VALUE = r"([!-~]([\t -~]*[!-~])?)?"
# RFC 6749, 3.3, without the comma: the metadata server's list has it between scopes.
SCOPE = r"[!#-+\--\[\]-~]{1,512}"
ACCOUNT = r"[^@\s/]+@[^@\s/]+"

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_MULTIPLES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
# Beyond a year the unit must be a mistake; and the event loop's timers overflow at some point.
_LONGEST = 366 * 24 * 3600.0

# RFC 9110, 7.6.1 (fields of one connection), plus what frames a message or is ours to set.
FRAMING_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def deadline(text: str) -> float:
    """Return seconds above zero, or `OFF`."""
    seconds = 0.0 if re.fullmatch(r"0+(\.0+)?", text) else period(text)
    if seconds == 0:
        raise ValueError(f"{text} would fail every exchange; write off for no deadline")
    return seconds


def period(text: str) -> float:
    """Return seconds, or `OFF`."""
    return OFF if text == "off" else _seconds(text, "250ms, 5s, 2m, 1h or off")


def pause(text: str) -> float:
    """Return seconds; a pause cannot be endless."""
    if text == "off":
        raise ValueError("off would be a pause without end; write 0s for none")
    return _seconds(text, "0s, 50ms, 5s or 2m")


def _seconds(text: str, examples: str) -> float:
    if not re.fullmatch(DURATION, text):
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
            raise ValueError(f"{text} is a number without its unit; write {text[:20]}s")
        raise ValueError(f"{quoted(text)} is not a duration; write {examples}")
    number = text.rstrip("msh")
    seconds = float(number) * _UNITS[text[len(number) :]]
    if seconds > _LONGEST:
        raise ValueError(f"{quoted(text)} is longer than a year; write a shorter one, or off")
    return seconds


def show_duration(seconds: float) -> str:
    """Write seconds as the file does; the reverse of `period`."""
    if seconds == math.inf:
        return "off"
    if seconds % 1:
        return f"{seconds * 1000:.12g}ms"
    return f"{seconds:.12g}s"


def size(text: str) -> int:
    """Return bytes."""
    if not re.fullmatch(SIZE, text):
        raise ValueError(f"{quoted(text)} is not a size; write 64KiB, 1MiB, 1GiB or bytes: 65536")
    digits = text.rstrip("BKiMG")
    return int(digits) * _MULTIPLES[text[len(digits) :] or "B"]


def show_size(size_bytes: int) -> str | int:
    """Write bytes as the file does; the reverse of `size`."""
    for unit in ("GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _MULTIPLES[unit] == 0:
            return f"{size_bytes // _MULTIPLES[unit]}{unit}"
    return size_bytes


def share(text: str) -> float:
    """Return a percentage as a fraction."""
    number = float(text[:-1]) if re.fullmatch(SHARE, text) else math.inf
    if number > 100:  # noqa: PLR2004 (per cent)
        raise ValueError(f"{quoted(text)} is not a share; write 0% to 100%, such as 20%")
    return number / 100


def show_share(fraction: float) -> str:
    """Write a fraction as the file does; the reverse of `share`."""
    return f"{fraction * 100:g}%"


def cause(text: str) -> str | int:
    """Return a class of failure, or a status from 400 to 599."""
    if re.fullmatch(CAUSE_STATUS, text):
        return int(text)
    if text not in RETRY_CAUSES:
        known = ", ".join(RETRY_CAUSES)
        raise ValueError(f"{quoted(text)} cannot be retried on; write {known} or 400 to 599")
    return text


def method(text: str) -> str:
    """Return a request method, which is case-sensitive (RFC 9110, 9.1)."""
    if not re.fullmatch(METHOD, text):
        raise ValueError(f"{quoted(text)} is not a method; methods are upper case, such as GET")
    return text


def audience(text: str) -> str:
    """Return an audience as it stands."""
    if not text.strip() or not text.isprintable():
        raise ValueError("an audience is one line of text, such as https://billing.example.com")
    return text


def account(text: str) -> str:
    """Return a service account's address."""
    if not re.fullmatch(ACCOUNT, text):
        raise ValueError(
            f"{quoted(text)} is not a service account; write NAME@PROJECT.iam.gserviceaccount.com"
        )
    return text


def header_name(text: str) -> str:
    """Return a field name that may be set or removed."""
    if not re.fullmatch(TOKEN, text):
        raise ValueError(f"{quoted(text)} is not a header name; write letters, digits and '-'")
    if field_key(text) in FRAMING_HEADERS:
        raise ValueError(f"{text} belongs to the proxy's own connection; leave it out")
    return text


def header_value(text: str) -> str:
    """Return a field value; the message never shows it, since it may be a secret."""
    if not re.fullmatch(FIELD_VALUE, text):
        raise ValueError(
            "a header value is one line of ASCII without spaces at its ends; "
            "remove line breaks, control and other characters"
        )
    return text


def field_key(name: str) -> str:
    """Return what two spellings of one header have in common.

    Case never matters (RFC 9110, 5.1), and CGI-style servers read ``_`` as ``-`` (RFC 3875,
    4.1.18), so that either spelling may end up as the same variable.
    """
    return name.lower().replace("_", "-")


def scope(text: str) -> str:
    """Return the scope of an access token."""
    if re.fullmatch(SCOPE, text):
        return text
    raise ValueError(
        f"{quoted(text)} is not a scope; write each as an item of its own, such as "
        "https://www.googleapis.com/auth/cloud-platform"
    )
