"""Trace headers, valid and not."""

from __future__ import annotations

import pytest

from proxy.ops.trace import Trace, read_trace

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
ZERO_TRACE, ZERO_SPAN = "0" * 32, "0" * 16


@pytest.mark.parametrize(
    ("header", "value", "trace"),
    [
        ("traceparent", f"00-{TRACE}-{SPAN}-01", Trace(TRACE, SPAN, sampled=True)),
        ("traceparent", f"00-{TRACE}-{SPAN}-00", Trace(TRACE, SPAN, sampled=False)),
        ("Traceparent", f" 00-{TRACE}-{SPAN}-03 ", Trace(TRACE, SPAN, sampled=True)),
        ("traceparent", f"cc-{TRACE}-{SPAN}-01-what-comes", Trace(TRACE, SPAN, sampled=True)),
        ("X-Cloud-Trace-Context", f"{TRACE}/74;o=1", Trace(TRACE, f"{74:016x}", sampled=True)),
        ("x-cloud-trace-context", f"{TRACE}/74;o=0", Trace(TRACE, f"{74:016x}", sampled=False)),
        ("x-cloud-trace-context", f"{TRACE}/74", Trace(TRACE, f"{74:016x}", sampled=False)),
        ("x-cloud-trace-context", TRACE.upper(), Trace(TRACE, "", sampled=False)),
        ("x-cloud-trace-context", f"{TRACE}/0;o=1", Trace(TRACE, "", sampled=True)),
        ("x-cloud-trace-context", f"{TRACE}/{2**64 - 1}", Trace(TRACE, "f" * 16, sampled=False)),
    ],
)
def test_a_valid_header_names_the_trace(header: str, value: str, trace: Trace) -> None:
    assert read_trace(header, value) == trace


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("traceparent", ""),
        ("traceparent", f"00-{ZERO_TRACE}-{SPAN}-01"),
        ("traceparent", f"00-{TRACE}-{ZERO_SPAN}-01"),
        ("traceparent", f"ff-{TRACE}-{SPAN}-01"),
        ("traceparent", f"00-{TRACE}-{SPAN}-01-more"),
        ("traceparent", f"00-{TRACE.upper()}-{SPAN}-01"),
        ("traceparent", f"00-{TRACE}-{SPAN}"),
        ("traceparent", f"00-{TRACE}-{SPAN}-0"),
        ("x-cloud-trace-context", f"{ZERO_TRACE}/1"),
        ("x-cloud-trace-context", f"{TRACE}/{2**64}"),
        ("x-cloud-trace-context", f"{TRACE}/x"),
        ("x-cloud-trace-context", TRACE[:-1]),
        ("grpc-trace-bin", f"00-{TRACE}-{SPAN}-01"),
    ],
)
def test_anything_else_names_none(header: str, value: str) -> None:
    assert read_trace(header, value) is None
