"""Reads the trace of a request from its headers, for the log only: the headers pass untouched."""

from __future__ import annotations

import re

from proxy.frozen import frozen

# W3C Trace Context, 3.2: version ff is invalid, version 00 has exactly four fields, and a higher
# version may append more after another dash.
_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
# https://docs.cloud.google.com/trace/docs/trace-context: TRACE_ID/SPAN_ID;o=OPTIONS, where the
# span is a decimal number.
_CLOUD_TRACE = re.compile(
    r"(?P<trace>[0-9a-fA-F]{32})(?:/(?P<span>\d{1,20}))?(?:;o=(?P<options>\d+))?"
)
_SPAN_LIMIT = 1 << 64


@frozen
class Trace:
    """The trace and span that a request belongs to, in the hexadecimal form of Cloud Logging."""

    trace_id: str
    span_id: str
    """Sixteen digits, or empty where the caller named none."""
    sampled: bool


def read_trace(header: str, value: str) -> Trace | None:
    """Return the trace that a ``traceparent`` or ``X-Cloud-Trace-Context`` names, if it is valid.

    `header` is compared without regard to case; any other header has no trace.
    """
    match header.lower():
        case "traceparent":
            return _read_traceparent(value.strip())
        case "x-cloud-trace-context":
            return _read_cloud_trace(value.strip())
        case _:
            return None


def _read_traceparent(value: str) -> Trace | None:
    found = _TRACEPARENT.fullmatch(value)
    if found is None or (found["version"] == "00" and found["more"]):
        return None
    # W3C Trace Context, 3.2.2.3 and 3.2.2.4: all zeros is an invalid value.
    if not int(found["trace"], 16) or not int(found["span"], 16):
        return None
    return Trace(found["trace"], found["span"], sampled=bool(int(found["flags"], 16) & 1))


def _read_cloud_trace(value: str) -> Trace | None:
    found = _CLOUD_TRACE.fullmatch(value)
    if found is None or not int(found["trace"], 16):
        return None
    span = int(found["span"] or 0)
    if span >= _SPAN_LIMIT:
        return None
    sampled = bool(int(found["options"] or 0) & 1)
    return Trace(found["trace"].lower(), f"{span:016x}" if span else "", sampled=sampled)
