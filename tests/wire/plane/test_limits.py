"""Limits: each below, at and above, and who waits gets its turn."""

from __future__ import annotations

from functools import partial

import pytest

from proxy.config.model import Limits, Timeouts, Upstream
from proxy.plane.gate import Gate
from proxy.plane.http1.pool import STALLED_AFTER
from proxy.plane.message import MOST_FIELDS
from tests.fakes.raw import RawCaller, UpstreamEnd
from tests.fakes.wired import Wired

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"


def head_of(size: int) -> bytes:
    """Return a request of `size` bytes."""
    bare = b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n"
    return bare.replace(b"X: ", b"X: " + b"x" * (size - len(bare)))


def fields_of(start: bytes, number: int) -> bytes:
    """Return a head that begins with a line and a field, and has so many fields in all."""
    return start + b"\r\nX: y" * (number - 1) + b"\r\n\r\n"


# --- header_bytes


@pytest.mark.parametrize("size", [8191, 8192])
async def test_a_head_up_to_the_limit_passes(wired: Wired, size: int) -> None:
    wired.upstream.automatic = OK
    await wired.serve(limits=Limits(header_bytes=8192))
    caller = await wired.caller()

    assert (await caller.ask(head_of(size))).status == 200


async def test_a_head_above_the_limit_is_refused(wired: Wired) -> None:
    await wired.serve(limits=Limits(header_bytes=8192))
    caller = await wired.caller()
    caller.send(head_of(8193))

    await caller.refusal(431, "headers_too_large")


async def test_a_head_that_does_not_end_is_refused_at_the_limit(wired: Wired) -> None:
    await wired.serve(limits=Limits(header_bytes=8192))
    caller = await wired.caller()
    caller.send(head_of(20_000)[:8193])

    await caller.refusal(431, "headers_too_large")


@pytest.mark.parametrize("number", [MOST_FIELDS - 1, MOST_FIELDS])
async def test_as_many_fields_as_a_head_may_have_pass(wired: Wired, number: int) -> None:
    wired.upstream.automatic = fields_of(b"HTTP/1.1 200 OK\r\nContent-Length: 0", number)
    caller = await wired.caller()

    answer = await caller.ask(fields_of(b"GET / HTTP/1.1\r\nHost: a", number))

    # The one of each beside them frames it, or names the host.
    assert (answer.status, len(answer.values("x"))) == (200, number - 1)
    assert len(wired.upstream.requests[0].values("x")) == number - 1


async def test_one_field_more_is_refused(wired: Wired) -> None:
    caller = await wired.caller()
    caller.send(fields_of(b"GET / HTTP/1.1\r\nHost: a", MOST_FIELDS + 1))

    await caller.refusal(431, "headers_too_large")


async def test_one_field_more_in_an_answer_is_the_upstreams_fault(wired: Wired) -> None:
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 0"
    wired.upstream.automatic = fields_of(start, MOST_FIELDS + 1)
    caller = await wired.caller()

    answer = await caller.ask(GET)

    assert (answer.status, answer.value("x-auth-proxy-error")) == (502, "upstream_malformed")


async def test_a_url_of_30_kilobytes_passes_by_default(wired: Wired) -> None:
    wired.upstream.automatic = OK
    caller = await wired.caller()
    target = b"/trpc/" + b",".join([b"a.b"] * 5000) + b"?batch=1&input=" + b"%7B" * 3500
    assert len(target) > 30_000

    assert (await caller.ask(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200
    assert wired.upstream.requests[0].start == b"GET " + target + b" HTTP/1.1"


async def test_zero_is_no_limit_of_heads(wired: Wired) -> None:
    size = 300_000
    wired.upstream.automatic = b"HTTP/1.1 200 OK\r\nX: %b\r\nContent-Length: 0\r\n\r\n" % (
        b"x" * size
    )
    await wired.serve(limits=Limits(header_bytes=0))
    wired.host.head_limit = 1 << 40
    caller = await wired.caller()

    answer = await caller.ask(head_of(size))
    assert (answer.status, len(answer.value("x"))) == (200, size)


@pytest.mark.parametrize(("size", "status"), [(8191, 200), (8192, 200), (8193, 502)])
async def test_a_response_head_is_limited_too(wired: Wired, size: int, status: int) -> None:
    bare = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: \r\n\r\n"
    wired.upstream.automatic = bare.replace(b"X: ", b"X: " + b"x" * (size - len(bare)))
    await wired.serve(limits=Limits(header_bytes=8192))
    caller = await wired.caller()

    assert (await caller.ask(GET)).status == status
    assert wired.refusals == ({} if status == 200 else {"upstream_malformed": 1})


@pytest.mark.parametrize(("size", "status"), [(8000, 200), (9000, 400)])
async def test_trailers_are_limited_like_heads(wired: Wired, size: int, status: int) -> None:
    wired.upstream.automatic = OK
    await wired.serve(limits=Limits(header_bytes=8192))
    caller = await wired.caller()
    caller.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: %b\r\n\r\n"
        % (b"x" * size)
    )

    assert (await caller.answer()).status == status


async def test_chunk_extensions_without_end_are_refused(wired: Wired) -> None:
    caller = await wired.caller()
    caller.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=" + b"x" * 100_000
    )

    await caller.refusal(400, "request_malformed")


async def test_many_small_chunks_are_no_attack(wired: Wired) -> None:
    wired.upstream.automatic = OK
    caller = await wired.caller()
    caller.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\nx\r\n" * 50_000
        + b"0\r\n\r\n"
    )

    assert (await caller.answer()).status == 200
    assert wired.upstream.requests[0].body == b"x" * 50_000


# --- body_bytes


@pytest.mark.parametrize(("size", "status"), [(99, 200), (100, 200), (101, 413)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_is_limited(wired: Wired, size: int, status: int, chunked: bool) -> None:  # noqa: FBT001 (a parameter)
    wired.upstream.automatic = OK
    await wired.serve(limits=Limits(body_bytes=100))
    caller = await wired.caller()
    if chunked:
        head = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size
        caller.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + head + bytes(size) + b"\r\n0\r\n\r\n")
    else:
        head = b"Content-Length: %d\r\n\r\n" % size
        caller.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + head + bytes(size))

    answer = await caller.answer()
    assert answer.status == status
    assert answer.values("x-auth-proxy-error") == ([] if status == 200 else ["body_too_large"])
    assert len(wired.upstream.requests) == (status == 200)


async def test_an_announced_body_that_is_too_large_is_refused_before_it_comes(
    wired: Wired,
) -> None:
    await wired.serve(limits=Limits(body_bytes=100))
    caller = await wired.caller()
    caller.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000000\r\n\r\n")

    await caller.refusal(413, "body_too_large")
    assert wired.upstream.connections == []


# --- in_flight and queue


@pytest.mark.parametrize(("in_flight", "bounded"), [(0, False), (1, True)])
async def test_zero_in_flight_is_no_bound(wired: Wired, in_flight: int, *, bounded: bool) -> None:
    await wired.serve(limits=Limits(in_flight=in_flight))
    callers = [await wired.caller() for _ in range(2)]
    callers[0].send(GET)
    await (await wired.upstream.accept()).head()
    callers[1].send(GET)
    if bounded:
        assert (await callers[1].answer()).value("x-auth-proxy-error") == "overloaded"
        return
    await (await wired.upstream.accept()).head()


def gate_of(wired: Wired) -> Gate:
    gate = wired.builder.routes["default"].gate
    assert gate is not None
    return gate


async def test_what_is_beyond_in_flight_and_queue_is_shed(wired: Wired) -> None:
    await wired.serve(limits=Limits(in_flight=2, queue=1))
    gate = gate_of(wired)
    callers = [await wired.caller() for _ in range(3)]
    for number, caller in enumerate(callers):
        caller.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
        await wired.until(lambda n=number: gate.inside + gate.waiting == n + 1, "its place")  # type: ignore[misc]  # a lambda's default
    # Dials may overtake each other.
    first = await wired.upstream.accept()
    served = int((await first.head())[5:6])
    await (await wired.upstream.accept()).head()
    assert gate.waiting == 1

    late = await wired.caller()
    answer = await late.ask(GET)
    assert (answer.status, answer.value("x-auth-proxy-error")) == (503, "overloaded")
    assert answer.value("retry-after") == "1"

    first.send(OK)
    await callers[served].take(OK)
    assert (await first.head()).startswith(b"GET /2 ")  # A place became free.
    first.send(OK)
    await callers[2].take(OK)


async def test_the_queue_is_served_in_the_order_of_arrival(wired: Wired) -> None:
    await wired.serve(limits=Limits(in_flight=1, queue=10))
    gate = gate_of(wired)
    callers = []
    for number in range(4):
        caller = await wired.caller()
        caller.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
        callers.append(caller)
        await wired.until(lambda n=number: gate.inside + gate.waiting == n + 1, "its place")  # type: ignore[misc]  # a lambda's default

    upstream = await wired.upstream.accept()
    for number, caller in enumerate(callers):
        assert (await upstream.head()).startswith(b"GET /%d " % number)
        upstream.send(OK)
        await caller.take(OK)


async def test_the_queue_is_left_after_the_connect_timeout(wired: Wired) -> None:
    await wired.serve(limits=Limits(in_flight=1, queue=1), timeouts=Timeouts(connect=0.05))
    first, second = await wired.caller(), await wired.caller()
    first.send(GET)
    await (await wired.upstream.accept()).head()

    answer = await second.ask(GET)
    assert (answer.status, answer.value("x-auth-proxy-error")) == (503, "overloaded")


async def test_a_caller_that_goes_away_leaves_the_queue(wired: Wired) -> None:
    await wired.serve(limits=Limits(in_flight=1, queue=1))
    gate = gate_of(wired)
    first, second = await wired.caller(), await wired.caller()
    first.send(GET)
    upstream = await wired.upstream.accept()
    await upstream.head()
    second.send(GET)
    await wired.until(lambda: gate.waiting == 1, "the second to wait")

    second.close()
    await wired.until(lambda: gate.waiting == 0, "its going")
    third = await wired.caller()
    third.send(GET)
    await wired.until(lambda: gate.waiting == 1, "the third to wait")
    upstream.send(OK)
    await first.take(OK)
    await upstream.head()
    upstream.send(OK)
    await third.take(OK)


# --- connections


async def test_connections_are_bounded_and_waited_for_in_order(wired: Wired) -> None:
    await wired.serve(limits=Limits(connections=1))
    callers = []
    for number in range(4):
        caller = await wired.caller()
        caller.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
        callers.append(caller)
        await wired.until(lambda n=number: wired.connections.waiting == n, "its turn")  # type: ignore[misc]  # a lambda's default

    upstream = await wired.upstream.accept()
    for number, caller in enumerate(callers):
        assert (await upstream.head()).startswith(b"GET /%d " % number)
        upstream.send(OK)
        await caller.take(OK)
    assert len(wired.upstream.connections) == 1


async def test_the_place_of_a_lost_connection_goes_to_who_waits(wired: Wired) -> None:
    await wired.serve(limits=Limits(connections=1))
    first, second = await wired.caller(), await wired.caller()
    first.send(GET)
    upstream = await wired.upstream.accept()
    await upstream.head()
    second.send(GET)
    await wired.until(lambda: wired.connections.waiting == 1, "the second to wait")

    upstream.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    await (await wired.upstream.accept()).serve(OK)
    await second.take(OK)
    assert (await first.answer()).status == 200


async def test_a_connection_that_dies_on_its_way_to_who_waits_is_not_used(wired: Wired) -> None:
    await wired.serve(limits=Limits(connections=1))
    first, second, third = [await wired.caller() for _ in range(3)]
    first.send(GET)
    upstream = await wired.upstream.accept()
    await upstream.head()
    for number, caller in enumerate((second, third), 1):
        caller.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        await wired.until(lambda n=number: wired.connections.waiting == n, "its turn")  # type: ignore[misc]  # a lambda's default

    upstream.send(OK)
    upstream.close()
    await first.take(OK)
    fresh = await wired.upstream.accept()
    await fresh.serve(OK)
    await fresh.serve(OK)
    await second.take(OK)
    await third.take(OK)
    assert len(wired.upstream.connections) == 2
    assert wired.route_stats.retries == {}


async def test_who_waits_too_long_for_a_connection_is_told(wired: Wired) -> None:
    await wired.serve(limits=Limits(connections=1), timeouts=Timeouts(connect=0.05))
    first, second = await wired.caller(), await wired.caller()
    first.send(GET)
    upstream = await wired.upstream.accept()
    await upstream.head()

    answer = await second.ask(GET)
    assert (answer.status, answer.value("x-auth-proxy-error")) == (503, "overloaded")
    upstream.send(OK)
    await first.take(OK)
    assert wired.connections.waiting == 0


async def test_a_caller_that_goes_away_while_it_waits_takes_no_connection(wired: Wired) -> None:
    await wired.serve(limits=Limits(connections=1))
    first, second, third = [await wired.caller() for _ in range(3)]
    first.send(GET)
    upstream = await wired.upstream.accept()
    await upstream.head()
    second.send(GET)
    await wired.until(lambda: wired.connections.waiting == 1, "the second to wait")
    third.send(b"GET /third HTTP/1.1\r\nHost: a\r\n\r\n")
    await wired.until(lambda: wired.connections.waiting == 2, "the third to wait")

    second.close()
    await wired.until(lambda: wired.route_stats.requests["h1", 499], "its going")
    upstream.send(OK)
    await first.take(OK)
    assert (await upstream.head()).startswith(b"GET /third ")
    upstream.send(OK)
    await third.take(OK)


async def test_zero_is_no_limit_of_connections(wired: Wired) -> None:
    await wired.serve(limits=Limits(connections=0))
    callers = [await wired.caller() for _ in range(50)]
    for caller in callers:
        caller.send(GET)
    await wired.until(lambda: len(wired.upstream.connections) == 50, "50 connections")
    for upstream in wired.upstream.connections:
        await upstream.serve(OK)
    for caller in callers:
        await caller.take(OK)


# --- tunnels


async def tunnel(wired: Wired) -> tuple[RawCaller, UpstreamEnd]:
    """Return both ends of a new tunnel."""
    caller = await wired.caller()
    caller.send(UPGRADE)
    upstream = await wired.upstream.accept()
    await upstream.head()
    upstream.send(SWITCH)
    assert (await caller.answer()).status == 101
    return caller, upstream


async def reason(caller: RawCaller) -> str:
    """Return why the caller's request was refused."""
    return (await caller.answer()).value("x-auth-proxy-error")


async def test_tunnels_do_not_count_for_the_connections(wired: Wired) -> None:
    wired.half_open = True
    await wired.serve(limits=Limits(connections=1))
    for _ in range(3):
        await tunnel(wired)
    caller = await wired.caller()
    caller.send(GET)
    await (await wired.upstream.accept()).serve(OK)

    await caller.take(OK)
    assert (wired.connections.busy, wired.connections.idle) == (3, 1)


async def test_who_waits_gets_the_place_of_a_connection_that_becomes_a_tunnel(
    wired: Wired,
) -> None:
    wired.half_open = True
    await wired.serve(limits=Limits(connections=1))
    first, second = await wired.caller(), await wired.caller()
    first.send(UPGRADE)
    upstream = await wired.upstream.accept()
    await upstream.head()
    second.send(GET)
    await wired.until(lambda: wired.connections.waiting == 1, "the second to wait")

    upstream.send(SWITCH)
    await (await wired.upstream.accept()).serve(OK)
    await second.take(OK)


async def test_tunnels_have_a_limit_of_their_own(wired: Wired) -> None:
    """Beyond it the upstream is not even asked."""
    wired.half_open = True
    await wired.serve(limits=Limits(tunnels=2))
    first, end = await tunnel(wired)
    await tunnel(wired)
    late = await wired.caller()
    late.send(UPGRADE)
    assert await reason(late) == "overloaded"
    assert len(wired.upstream.connections) == 2

    first.close()
    end.close()
    await wired.until(lambda: wired.connections.busy == 1, "the end of the first tunnel")
    await tunnel(wired)


async def test_a_tunnel_that_becomes_one_too_many_is_refused(wired: Wired) -> None:
    """Both were asked for while there was room for one."""
    wired.half_open = True
    await wired.serve(limits=Limits(tunnels=1))
    callers = [await wired.caller() for _ in range(2)]
    ends = []
    for caller in callers:
        caller.send(UPGRADE)
        ends.append(await wired.upstream.accept())
        await ends[-1].head()
    for end in ends:
        end.send(SWITCH)

    assert (await callers[0].answer()).status == 101
    assert await reason(callers[1]) == "overloaded"
    await ends[1].until(lambda: ends[1].ended, "the end of the second")
    assert wired.connections.busy == 1


async def test_zero_is_no_limit_of_tunnels(wired: Wired) -> None:
    wired.half_open = True
    await wired.serve(limits=Limits(tunnels=0, connections=1))
    for _ in range(12):
        await tunnel(wired)

    assert wired.connections.busy == 12


# --- uploads that stall

BEGUN = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n1"
WHOLE = BEGUN + b"23"


async def stalled(wired: Wired, count: int) -> tuple[list[RawCaller], list[UpstreamEnd]]:
    """Return callers of whose requests the upstream has a part, and its ends."""
    callers, ends = [], []
    for _ in range(count):
        callers.append(await wired.caller())
        callers[-1].send(BEGUN)
        ends.append(await wired.upstream.accept())
        await ends[-1].until(lambda end=ends[-1]: b"\r\n\r\n1" in end.received, "a body")  # type: ignore[misc]  # a lambda's default
    return callers, ends


def have_begun(ends: list[UpstreamEnd], count: int) -> bool:
    """Tell whether so many requests have come with a part of their body."""
    return sum(b"\r\n\r\n1" in end.received for end in ends) == count


async def finish(caller: RawCaller, end: UpstreamEnd) -> None:
    """Complete a stalled upload."""
    caller.send(b"23")
    await end.serve(OK)
    assert (await caller.answer()).status == 200


async def test_uploads_that_stall_leave_the_last_tenth_to_requests_that_are_whole(
    wired: Wired,
) -> None:
    await wired.serve(limits=Limits(connections=20))
    callers, ends = await stalled(wired, 18)
    late = await wired.caller()
    late.send(BEGUN)
    await wired.until(lambda: wired.connections.waiting == 1, "the 19th upload to wait")
    others = [await wired.caller() for _ in range(2)]
    for caller, request in zip(others, (GET, WHOLE), strict=True):
        caller.send(request)
    for end in [await wired.upstream.accept() for _ in range(2)]:
        await end.serve(OK)
    for caller in others:
        assert (await caller.answer()).status == 200
    # Connections lie idle now, and uploads wait all the same.
    gone = await wired.caller()
    gone.send(BEGUN)
    await wired.until(lambda: wired.connections.waiting == 2, "the 20th upload to wait")
    assert wired.connections.idle == 2
    gone.close()

    await finish(callers[0], ends[0])
    others_ends = [end for end in wired.upstream.connections if end not in ends[1:]]
    await wired.until(lambda: any(end.received for end in others_ends), "its turn")
    [end] = [end for end in others_ends if end.received]
    await finish(late, end)
    for caller, end in zip(callers[1:], ends[1:], strict=True):
        await finish(caller, end)


async def test_an_upload_that_becomes_whole_waits_no_more_for_others_to_end(wired: Wired) -> None:
    await wired.serve(limits=Limits(connections=10))
    callers, ends = await stalled(wired, 9)
    late = await wired.caller()
    late.send(BEGUN)
    await wired.until(lambda: wired.connections.waiting == 1, "the tenth upload to wait")
    late.send(b"23")

    await (await wired.upstream.accept()).serve(OK)
    assert (await late.answer()).status == 200
    for caller, end in zip(callers, ends, strict=True):
        await finish(caller, end)


async def test_an_upload_that_waits_too_long_is_told(wired: Wired) -> None:
    await wired.serve(limits=Limits(connections=10), timeouts=Timeouts(connect=0.05))
    callers, ends = await stalled(wired, 9)
    late = await wired.caller()
    late.send(BEGUN)

    assert await reason(late) == "overloaded"
    for caller, end in zip(callers, ends, strict=True):
        await finish(caller, end)


async def test_uploads_whose_callers_go_away_leave_their_places(wired: Wired) -> None:
    await wired.serve(limits=Limits(connections=10))
    callers, _ = await stalled(wired, 9)
    gone, late = await wired.caller(), await wired.caller()
    for number, caller in enumerate((gone, late), 1):
        caller.send(BEGUN)
        await wired.until(lambda n=number: wired.connections.waiting == n, "its turn")  # type: ignore[misc]  # a lambda's default
    gone.close()
    await wired.until(lambda: wired.connections.waiting == 1, "its going")
    for caller in callers:
        caller.close()
    await finish(late, await wired.upstream.accept())

    # All places are free again: one upload takes the idle connection, eight take new ones.
    callers = [await wired.caller() for _ in range(9)]
    for caller in callers:
        caller.send(BEGUN)
    await wired.until(lambda: have_begun(wired.upstream.connections, 9), "nine uploads")


async def test_uploads_on_idle_connections_count_too(wired: Wired) -> None:
    await wired.serve(limits=Limits(connections=10))
    for _ in range(2):
        callers, ends = [await wired.caller() for _ in range(9)], []
        for caller in callers:
            caller.send(BEGUN)
        await wired.until(lambda: wired.connections.busy == 9, "the uploads")
        late = await wired.caller()
        late.send(BEGUN)
        await wired.until(lambda: wired.connections.waiting == 1, "the tenth upload to wait")
        late.close()
        ends = wired.upstream.connections
        await wired.until(partial(have_begun, ends, 9), "the bodies")
        for caller in callers:
            caller.send(b"23")
        for end in ends:
            if end.received:
                await end.serve(OK)
        for caller in callers:
            assert (await caller.answer()).status == 200


@pytest.mark.parametrize("connections", [1, 9, 0])
async def test_few_connections_or_no_limit_have_no_last_tenth(
    wired: Wired, connections: int
) -> None:
    await wired.serve(limits=Limits(connections=connections))
    callers, ends = await stalled(wired, connections or 30)

    for caller, end in zip(callers, ends, strict=True):
        await finish(caller, end)


async def test_an_upload_that_is_refused_a_connection_gives_its_place_back(wired: Wired) -> None:
    await wired.serve(limits=Limits(connections=10), upstream=Upstream("http", "127.0.0.1", 1))
    for _ in range(10):
        caller = await wired.caller()
        caller.send(BEGUN)
        assert await reason(caller) == "upstream_connect_failed"


# --- downloads that stall

HUGE = 16 * 1024 * 1024
"""More than sockets and buffers hold of a response that nobody reads."""


async def unread(wired: Wired, count: int) -> tuple[list[RawCaller], list[UpstreamEnd]]:
    """Return callers that do not read their responses, the one that has stalled longest first.

    And the upstream's ends.
    """
    callers, ends = [], []
    for _ in range(count):
        callers.append(await wired.caller())
        callers[-1].send(GET)
        ends.append(await wired.upstream.accept())
        await ends[-1].head()
        callers[-1].pause()
        ends[-1].send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % HUGE + bytes(HUGE))
        await wired.until(lambda: stalled_at(wired) == len(callers), "it to stall")
    return callers, ends


def stalled_at(wired: Wired) -> int:
    """Return how many responses stall."""
    return len(wired.builder.routes["default"].destinations[0].pools._http1._stalled)


async def test_downloads_that_stall_make_room_for_who_waits(wired: Wired) -> None:
    await wired.serve(limits=Limits(connections=10))
    callers, _ = await unread(wired, 10)
    late = await wired.caller()
    late.send(GET)
    await wired.until(lambda: wired.connections.waiting == 1, "one to wait")

    wired.pass_time(STALLED_AFTER - 0.1)
    assert wired.connections.waiting == 1
    wired.pass_time(0.2)

    end = await wired.upstream.accept()
    await end.serve(OK)
    assert (await late.answer()).status == 200
    callers[0].resume()
    await callers[0].until(lambda: callers[0].ended, "the cut")
    assert len(callers[0].history) < HUGE
    assert wired.refusals == {"overloaded": 1}
    assert stalled_at(wired) == 9


async def test_as_many_are_cut_as_wait_and_nine_tenths_stay(wired: Wired) -> None:
    await wired.serve(limits=Limits(connections=20))
    await unread(wired, 20)
    waiting = [await wired.caller() for _ in range(3)]
    for number, caller in enumerate(waiting, 1):
        caller.send(GET)
        await wired.until(lambda n=number: wired.connections.waiting == n, "them to wait")  # type: ignore[misc]  # a lambda's default

    wired.pass_time(STALLED_AFTER + 0.1)

    for caller in waiting[:2]:
        await (await wired.upstream.accept()).serve(OK)
        assert (await caller.answer()).status == 200
    assert stalled_at(wired) == 18


async def test_downloads_that_stall_keep_nine_tenths_while_others_wait(wired: Wired) -> None:
    await wired.serve(limits=Limits(connections=10))
    await unread(wired, 9)
    served, late = await wired.caller(), await wired.caller()
    served.send(GET)
    end = await wired.upstream.accept()
    await end.head()
    late.send(GET)
    await wired.until(lambda: wired.connections.waiting == 1, "one to wait")

    wired.pass_time(STALLED_AFTER + 0.1)
    end.send(OK)

    assert (await served.answer()).status == 200
    await end.serve(OK)
    assert (await late.answer()).status == 200
    assert (stalled_at(wired), wired.refusals) == (9, {})


async def test_downloads_that_stall_go_on_while_nobody_waits(wired: Wired) -> None:
    await wired.serve(limits=Limits(connections=10))
    callers, _ = await unread(wired, 10)

    wired.pass_time(STALLED_AFTER + 0.1)
    for caller in callers:
        caller.resume()
        await caller.until(lambda c=caller: len(c.history) > HUGE, "the whole response")  # type: ignore[misc]  # a lambda's default

    assert wired.refusals == {}
    assert stalled_at(wired) == 0


async def test_a_download_that_was_read_on_has_not_stalled(wired: Wired) -> None:
    await wired.serve(limits=Limits(connections=10))
    callers, ends = await unread(wired, 10)
    first = callers[0]
    late = await wired.caller()
    late.send(GET)
    await wired.until(lambda: wired.connections.waiting == 1, "one to wait")
    wired.pass_time(STALLED_AFTER / 2)
    first.resume()
    await wired.until(lambda: stalled_at(wired) == 9, "it to be read on")

    wired.pass_time(STALLED_AFTER / 2 + 0.1)

    await first.until(lambda: len(first.history) > HUGE, "the whole response")
    assert wired.refusals == {}
    await ends[0].serve(OK)
    assert (await late.answer()).status == 200
