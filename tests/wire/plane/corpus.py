"""Reads tests/wire/corpus and runs one row of it through a proxy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from proxy.errors import REASONS
from tests.fakes.cutting import Cuts
from tests.fakes.raw import Message, RawCaller, UpstreamEnd, first_message
from tests.fakes.wired import Wired

FOLDER = Path(__file__).parents[1] / "corpus"

SIMPLE_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SENTINEL = b"GET /sentinel HTTP/1.1\r\nHost: a\r\n\r\n"
PLAIN_GET = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED_HEAD = b"POST / HTTP/1.1\r\nHost: upstream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Row:
    """One row with what its group says laid under it."""

    name: str
    rfc: str
    sends: bytes
    keys: dict[str, Any]

    def text(self, key: str) -> bytes | None:
        """Return a key's value as bytes."""
        value = self.keys.get(key)
        return None if value is None else str(value).encode("latin-1")

    def texts(self, key: str) -> list[bytes]:
        """Return a list of strings as bytes."""
        return [str(value).encode("latin-1") for value in self.keys.get(key, ())]


def rows(pattern: str) -> list[Row]:
    """Return all rows of the files that `pattern` names."""
    return [row for file in sorted(FOLDER.glob(pattern)) for row in _rows_of(file)]


def _rows_of(file: Path) -> Iterator[Row]:
    for group in yaml.safe_load(file.read_text()):
        about, rows = group.pop("about"), group.pop("rows")
        for name, row in rows.items():
            own = row if isinstance(row, dict) else {"sends": row}
            keys = {**group, **own}
            yield Row(f"{about}: {name}", keys["rfc"], _sends(keys), keys)


def _sends(keys: dict[str, Any]) -> bytes:
    text = f"{keys.get('before', '')}{keys['sends']}{keys.get('after', '')}"
    if keys.get("target"):
        text = f"GET {text} HTTP/1.1\r\nHost: a\r\n\r\n"
        keys["sees"] = [text.replace("Host: a", "Host: upstream")]
    elif keys.get("fields"):
        text = f"GET / HTTP/1.1\r\nHost: a\r\n{text}\r\n\r\n"
        keys["sees"] = [text.replace("Host: a", "Host: upstream", 1)]
    return text.encode("latin-1")


# --- requests


async def run_request(wired: Wired, row: Row, cuts: Cuts) -> None:
    """Send the row's bytes and compare what the upstream sees and the caller gets."""
    wired.upstream.automatic = SIMPLE_ANSWER
    wired.upstream.requests.clear()
    wired.cut_requests = cuts
    async with await wired.connect() as caller:
        caller.send(row.sends)
        expected = len(row.texts("sees")) + len(row.texts("more")) + bool(row.keys.get("body") or 0)
        if row.keys.get("chunked"):
            expected = 1 + len(row.texts("more"))
        for _ in range(expected):
            assert (await caller.answer()).status == 200
        refused = row.keys.get("refused")
        if refused:
            await caller.refusal(REASONS[refused].status, refused)
        elif row.keys.get("closes"):
            assert await caller.take_all() == b""
        else:
            await _ask_sentinel(wired, caller)
    _compare_requests(wired, row)


async def _ask_sentinel(wired: Wired, caller: RawCaller) -> None:
    """Fail if the connection does not serve a further request right after those of the row."""
    assert (await caller.ask(SENTINEL)).status == 200
    last = wired.upstream.requests.pop()
    assert last.start == b"GET /sentinel HTTP/1.1"


def _compare_requests(wired: Wired, row: Row) -> None:
    seen = list(wired.upstream.requests)
    authority = b"Host: 127.0.0.1:%d" % wired.upstream.port
    if row.keys.get("chunked"):
        first = seen.pop(0)
        assert first.head.replace(authority, b"Host: upstream") + b"\r\n\r\n" == CHUNKED_HEAD
        assert (first.body, first.trailers) == (row.text("body"), _trailers(row))
        expected = row.texts("more")
    else:
        expected = row.texts("sees")
    assert [message.raw.replace(authority, b"Host: upstream") for message in seen] == expected


def _trailers(row: Row) -> bytes:
    """Return the lines of the row's trailers."""
    return (row.text("trailers") or b"").removesuffix(b"\r\n")


# --- responses


async def run_response(wired: Wired, row: Row, cuts: Cuts) -> bytes:
    """Answer a request with the row's bytes and compare what the caller gets; return it."""
    wired.cut_responses(cuts)
    async with await wired.connect() as caller:
        asks = str(row.keys.get("asks", PLAIN_GET)).encode()
        caller.send(asks)
        upstream = await wired.upstream.accept()
        await upstream.request()
        upstream.send(row.sends)
        if row.keys.get("ends"):
            upstream.finish()
        await _compare_response(row, caller, asks)
        if "kept" in row.keys:
            await _compare_pool(wired, row, upstream)
    upstream.close()
    await wired.until(lambda: wired.connections.idle == 0, "the end of the upstream connection")
    return bytes(caller.history)


async def _compare_response(row: Row, caller: RawCaller, asks: bytes) -> None:
    if refused := row.keys.get("refused"):
        answer = await caller.answer(bodyless=asks.startswith(b"HEAD"))
        assert answer.values("x-auth-proxy-error") == [refused]
        assert answer.status == REASONS[refused].status
        return
    if "cut" in row.keys:
        await caller.take(row.text("gets") or b"")
        assert _until_cut(await caller.take_all()) == row.text("cut")
        return
    if row.keys.get("chunked") or "body" in row.keys:
        answer = await caller.answer()
        head = row.text("gets") or b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert answer.head + b"\r\n\r\n" == head
        assert (answer.body, answer.trailers) == (row.text("body"), _trailers(row))
    else:
        await caller.take(row.text("gets") or b"")
    if row.keys.get("closes"):
        assert await caller.take_all() == b""


def _until_cut(data: bytes) -> bytes:
    """Return the body of a cut response; fail if it ended neatly."""
    if not re.match(rb"[0-9a-f]+\r\n", data):
        return data
    assert first_message(CHUNKED_HEAD + data) is None, data
    whole = first_message(CHUNKED_HEAD + data + b"0\r\n\r\n")
    assert isinstance(whole, Message), data
    return whole.body


async def _compare_pool(wired: Wired, row: Row, upstream: UpstreamEnd) -> None:
    if row.keys["kept"]:
        await wired.until(lambda: wired.connections.idle == 1, "the connection's return")
        assert not upstream.ended
    else:
        await upstream.until(lambda: upstream.ended, "the end of the upstream connection")
        await wired.until(lambda: wired.connections.idle == 0, "no idle connection")
