"""Browsers over HTTP/2: the same rules as in `tests/wire/plane/test_browsers.py`."""

from __future__ import annotations

import pytest

from proxy.config.model import Auth
from tests.fakes.framed import GET, FramedCaller, Pairs
from tests.fakes.framed_world import Framed, frame_caller
from tests.fakes.wired import Wired


def to(authority: str, *fields: tuple[str, str]) -> Pairs:
    rest = [pair for pair in GET if pair[0] != ":authority"]
    return (*rest, (":authority", authority), *fields)


async def statuses(caller: FramedCaller, *requests: Pairs) -> list[int]:
    """Send each request twice, and return the statuses: a head that repeats is read once."""
    found = []
    for number, pairs in enumerate(each for each in requests for _ in range(2)):
        caller.send_headers(2 * number + 1, pairs, end=True)
        found.append((await caller.finished(2 * number + 1)).status)
    return found


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([("origin", "https://evil.example")], 403),
        ([("sec-fetch-site", "cross-site")], 403),
        ([("sec-fetch-site", "something-new")], 403),
        ([("sec-fetch-mode", "navigate")], 403),
        ([("sec-fetch-dest", "image")], 403),
        ([("sec-fetch-user", "?1"), ("sec-fetch-mode", "cors")], 403),
        ([("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")], 200),
        ([("sec-fetch-site", "same-origin"), ("sec-fetch-dest", "empty")], 200),
        ([("sec-fetch-mode", "cors")], 200),
        ([("origin", "http://localhost:8081")], 200),
        ([("origin", "http://localhost:8081"), ("sec-fetch-site", "cross-site")], 403),
        ([("origin", "http://localhost:8080")], 403),
    ],
)
async def test_a_page_is_told_by_what_its_browser_says(
    wired: Wired, fields: list[tuple[str, str]], status: int
) -> None:
    async with await frame_caller(wired) as caller:
        assert await statuses(caller, to("localhost:8081", *fields)) == [status] * 2


async def test_a_page_that_has_pointed_its_own_name_here_is_refused(framed: Framed) -> None:
    framed.host.loopback_name = b"localhost"
    await framed.serve(auth=Auth.ID_TOKEN)
    caller = await framed.frames()

    rebound = to("evil.example:8081"), to("localhost.evil.example"), to("192.168.1.7:8081")
    assert await statuses(caller, *rebound) == [403] * 6
    assert framed.refusals == {"origin_forbidden": 6}
    assert (framed.framed.connections, framed.source.fetched) == ([], 0)


async def test_loopback_names_and_allowed_ones_are_served(wired: Wired) -> None:
    wired.host.loopback_name = b"localhost"
    await wired.serve(allow_hosts=("orders.internal",))
    async with await frame_caller(wired) as caller:
        served = to("localhost:8081"), to("127.0.0.1"), to("[::1]:8081"), to("orders.internal:1")
        assert await statuses(caller, *served) == [200] * 8
