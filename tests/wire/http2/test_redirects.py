"""Redirects over HTTP/2 on both sides; the rules are those of `tests/wire/plane`."""

from __future__ import annotations

from tests.fakes.framed import GET
from tests.fakes.framed_world import Framed


async def test_a_redirect_to_the_upstream_itself_is_led_back(framed: Framed) -> None:
    await framed.serve(rewrite_redirects=True)
    caller = await framed.frames()
    caller.send_headers(1, GET, end=True)
    caller.send_headers(3, GET, end=True)
    upstream = await framed.framed.accept()
    here = f"127.0.0.1:{framed.framed.port}"
    for stream in (1, 3):
        await upstream.request(stream)
        # Twice the same block, which is read once.
        pairs = ((":status", "307"), ("location", f"http://{here}/x?y"))
        upstream.send_headers(stream, pairs, end=True)
        seen = await caller.finished(stream)

        assert (seen.status, seen.head["location"]) == (307, "http://orders.internal/x?y")
