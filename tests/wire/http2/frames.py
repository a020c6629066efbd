"""Reads the frames of tests/wire/corpus/http2-*.yaml; its README says how they are written."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.fakes import framed
from tests.fakes.framed import GET, GRPC, KINDS, POST, FramedEnd, Pairs, frame, setting

FOLDER = Path(__file__).parents[1] / "corpus"

FLAGS = {
    "END_STREAM": framed.END_STREAM, "ACK": framed.ACK, "END_HEADERS": framed.END_HEADERS,
    "PADDED": framed.PADDED, "WEIGHTED": framed.WEIGHTED,
}  # fmt: skip

HEADS: dict[str, Pairs] = {
    "get": GET,
    "post": POST,
    "grpc": GRPC,
    "trailers": (("x-checksum", "abc"),),
    "ok": ((":status", "200"),),
    "nothing": (),
}


@dataclass(frozen=True)
class Row:
    """One row with what its group says laid under it."""

    name: str
    rfc: str
    keys: dict[str, Any]

    def sends(self, end: FramedEnd) -> bytes:
        """Return what the row's end sends, its blocks made by that end's encoder."""
        if "request" in self.keys:
            return _request(end, self.keys["request"], self.keys.get("body"))
        return b"".join(_frame(end, line) for line in self.keys["frames"])


def rows(pattern: str) -> list[Row]:
    """Return all rows of the files that `pattern` names."""
    return [row for file in sorted(FOLDER.glob(pattern)) for row in _rows_of(file)]


def _rows_of(file: Path) -> Iterator[Row]:
    for group in yaml.safe_load(file.read_text()):
        about, members = group.pop("about"), group.pop("rows")
        for name, row in members.items():
            keys = {**group, **(row if isinstance(row, dict) else {"frames": row})}
            yield Row(f"{about}: {name}", keys["rfc"], keys)


def _frame(end: FramedEnd, line: str) -> bytes:
    """Return the frame of ``KIND STREAM FLAG… | PAYLOAD`` (``N times`` may stand before it)."""
    head, _, payload = line.partition(" | ")
    words = head.split()
    times = 1
    if len(words) > 1 and words[1] == "times":
        times, words = int(words[0]), words[2:]
    kind = words[0] if words[0] in KINDS else int(words[0], 16)
    flags = sum(FLAGS[word] if word in FLAGS else int(word, 16) for word in words[2:])
    return b"".join(frame(kind, int(words[1]), flags, _payload(end, payload)) for _ in range(times))


def _payload(end: FramedEnd, text: str) -> bytes:
    return b"".join(_part(end, part) for part in text.split(" + ") if part)


def _part(end: FramedEnd, part: str) -> bytes:
    form, _, value = part.partition(":")
    forms: dict[str, Callable[[], bytes]] = {
        "hex": lambda: bytes.fromhex(value),
        "zeros": lambda: bytes(int(value)),
        "text": lambda: value.encode("latin-1"),
        "words": lambda: b"".join(struct.pack(">I", int(word)) for word in value.split(",")),
        "settings": lambda: b"".join(
            setting(*map(int, item.split("="))) for item in value.split(",")
        ),
        "block": lambda: end.encode(HEADS[value]),
        "fields": lambda: end.encode([_pair(item) for item in value.split(" ; ")]),
        "begin": lambda: _begin(end, value),
        "rest": lambda: end.rests.pop(value),
    }
    return forms[form]()


def _begin(end: FramedEnd, name: str) -> bytes:
    """Return three bytes of a block; ``rest:`` is what follows them."""
    block = end.encode(HEADS[name])
    end.rests[name] = block[3:]
    return block[:3]


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.strip().partition(": ")
    letter, _, count = value.partition("*")
    return name, letter * int(count) if count else value


def _request(end: FramedEnd, change: dict[str, Any], body: str | None) -> bytes:
    """Return a request on stream 1: a GET, or what `head` names, changed as the row says."""
    pairs = list(HEADS[change.get("head", "get")])
    dropped = change.get("drop", ())
    pairs = [pair for pair in pairs if pair[0] not in dropped]
    values = change.get("set", {})
    pairs = [(name, values.get(name, value)) for name, value in pairs]
    pairs = [*map(tuple, change.get("first", ())), *pairs, *map(tuple, change.get("add", ()))]
    flags = framed.END_HEADERS | (framed.END_STREAM if body is None else 0)
    result = frame("HEADERS", 1, flags, end.encode(pairs))
    if body is not None:
        result += frame("DATA", 1, framed.END_STREAM, body.encode("latin-1"))
    return result
