"""`python -m tests.bench.story`: which files one request runs through, in order.

A reader who follows the calls of a warm GET (a cached token, an idle connection with TLS) has to
open these files, and to change from one to another so many times.  Everything is watched from the
arrival of the request's bytes to the last byte of the response, the report behind it included.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from proxy.config.model import Auth
from tests.fakes.tls import ca_file, server_context
from tests.fakes.wired import Wired

PACKAGE = Path(__file__).parents[2] / "proxy"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
REQUEST = b"GET /orders?id=7 HTTP/1.1\r\nHost: localhost:8081\r\nAccept: */*\r\n\r\n"
_WARM_UP = 3


class Story:
    """The files of the package that calls lead to."""

    def __init__(self) -> None:
        self.visits: list[str] = []
        self.calls: list[str] = []
        """Each call as ``file: function``."""
        self._names: dict[str, str | None] = {}

    def watch(self, frame: FrameType, event: str, _: Any) -> None:
        """Note where a call leads; see `sys.setprofile`."""
        if event != "call" or not (name := self._name(frame.f_code.co_filename)):
            return
        self.calls.append(f"{name}: {frame.f_code.co_qualname}")
        if not self.visits or self.visits[-1] != name:
            self.visits.append(name)

    def _name(self, file: str) -> str | None:
        if file not in self._names:
            path = Path(file)
            inside = path.is_relative_to(PACKAGE)
            self._names[file] = str(path.relative_to(PACKAGE)) if inside else None
        return self._names[file]

    @property
    def files(self) -> Counter[str]:
        """The files, by how often they are entered."""
        return Counter(self.visits)

    @property
    def changes(self) -> int:
        """How often the reader has to change file."""
        return max(0, len(self.visits) - 1)


async def follow() -> Story:
    """Return the story of one warm GET with a token."""
    story = Story()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        roots = ca_file(folder)
        world = await stack.enter_async_context(Wired(automatic=ANSWER, tls=server_context()))
        await world.serve_tls(roots, auth=Auth.ID_TOKEN)
        caller = await world.caller()
        for _ in range(_WARM_UP):
            await caller.ask(REQUEST)
        sys.setprofile(story.watch)
        try:
            await caller.ask(REQUEST)
        finally:
            sys.setprofile(None)
    return story


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.story", description=__doc__)
    parser.add_argument("--calls", action="store_true", help="print every call, too")
    flags = parser.parse_args()
    story = asyncio.run(follow())
    if flags.calls:
        print("\n".join(story.calls))
    for name, times in story.files.most_common():
        print(f"{times:3} {name}")
    print(f"{len(story.files)} files, {story.changes} changes of file, {len(story.calls)} calls")
    return 0


if __name__ == "__main__":
    sys.exit(main())
