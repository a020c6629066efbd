"""What an exception says of a place that cannot be reached, in one set of words."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest

from proxy.unreached import (
    CHECK_CONNECT_TO,
    CHECK_DNS,
    CHECK_EGRESS,
    CHECK_NAME,
    CHECK_PROXY,
    CHECK_SERVICE,
    CHECK_SOCKET,
    MORE_FILES,
    Hop,
    check,
    is_tls,
    speaks_no_tls,
    why,
)

PLACE = "orders.internal:3001"
REFUSED = "Nothing listens at orders.internal:3001 (connection refused)."

FULL = (
    "The process has no file descriptor left for a connection to orders.internal:3001"
    " (too many open files)."
)
UNANSWERED = (
    "No name server has answered for orders.internal:3001 (Temporary failure in name resolution)."
)


@pytest.mark.parametrize(
    ("error", "kind", "sentence", "hint"),
    [
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('::1', 3001)"),
            "connection_refused",
            REFUSED,
            CHECK_SERVICE,
        ),
        # As happy eyeballs join the errors of several addresses.
        (
            OSError("Multiple exceptions: [Errno 99] Cannot assign, [Errno 111] Connect call"),
            "connection_refused",
            REFUSED,
            CHECK_SERVICE,
        ),
        # As urllib3 wraps it.
        (
            Exception("(Caused by NewConnectionError('x: [Errno 111] Connection refused'))"),
            "connection_refused",
            REFUSED,
            CHECK_SERVICE,
        ),
        (
            OSError(errno.ENETUNREACH, "Network is unreachable"),
            "connect_failed",
            "There is no way to orders.internal:3001 from here (network is unreachable).",
            CHECK_EGRESS,
        ),
        (
            PermissionError(errno.EACCES, "Permission denied"),
            "connect_failed",
            "This process may not connect to orders.internal:3001 (permission denied).",
            CHECK_EGRESS,
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory"),
            "connect_failed",
            "There is no socket orders.internal:3001 (no such file).",
            CHECK_SOCKET,
        ),
        (
            OSError(errno.EMFILE, "Too many open files"),
            "connect_failed",
            FULL,
            MORE_FILES,
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "dns_failed",
            "The name orders.internal:3001 does not exist (Name or service not known).",
            CHECK_NAME,
        ),
        (
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            "dns_unanswered",
            UNANSWERED,
            CHECK_DNS,
        ),
        (
            OSError("odd"),
            "connect_failed",
            "orders.internal:3001 cannot be connected (odd).",
            CHECK_EGRESS,
        ),
    ],
)
def test_each_error_has_its_words(error: Exception, kind: str, sentence: str, hint: str) -> None:
    found = why(error)

    assert (found.kind, found.sentence(PLACE), found.hint) == (kind, sentence, hint)


def test_behind_the_place_stands_what_the_system_says_and_what_it_means() -> None:
    assert why(ConnectionRefusedError(errno.ECONNREFUSED, "x")).short == (
        "connection refused: nothing listens there"
    )


@pytest.mark.parametrize(
    ("number", "hop", "hint"),
    [
        (errno.ECONNREFUSED, "upstream", CHECK_SERVICE),
        (errno.ECONNREFUSED, "connect_to", CHECK_CONNECT_TO),
        (errno.ECONNREFUSED, "socket", CHECK_SOCKET),
        (errno.ECONNREFUSED, "proxy", CHECK_PROXY),
        (errno.ENETUNREACH, "connect_to", CHECK_EGRESS),
        (errno.EMFILE, "proxy", MORE_FILES),
    ],
)
def test_the_hint_names_the_key_that_led_there(number: int, hop: Hop, hint: str) -> None:
    assert check(why(OSError(number, "x")), hop) == hint


@pytest.mark.parametrize(
    ("reason", "told"),
    [("WRONG_VERSION_NUMBER", True), ("TLSV1_ALERT_PROTOCOL_VERSION", False), (None, False)],
)
def test_what_speaks_no_tls_is_told_from_what_speaks_another_kind(
    reason: str | None,
    told: bool,  # noqa: FBT001 (a column of the table)
) -> None:
    error = ssl.SSLError(1, "x")
    error.reason = reason  # type: ignore[assignment]  # typeshed: OpenSSL may give none

    assert speaks_no_tls(error) is told


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x16\x03\x01\x02\x00", True),
        (b"\x15\x03\x03\x00\x02", True),
        (b"\x16", False),
        (b"\x17\x03\x03", False),
        (b"GET / HTTP/1.1", False),
    ],
)
def test_a_record_of_tls_is_told_by_its_first_bytes(data: bytes, told: bool) -> None:  # noqa: FBT001 (a column of the table)
    assert is_tls(data) is told
