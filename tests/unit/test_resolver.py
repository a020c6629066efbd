"""Names: what is looked up and what is not, by whom it is shared, and what hangs."""

from __future__ import annotations

import asyncio
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from proxy.resolver import FRESH, STALE, AddressInfo, Resolver
from tests.fakes.steering import settle

AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
ABSENT = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def at(*addresses: str) -> list[AddressInfo]:
    """Return what the operating system would say that a name's addresses are."""
    return [
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 0))
        for address in addresses
    ]


class NameServer:
    """Answers look-ups, in their threads, when the test says so."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.asked: list[str] = []
        """Every look-up that has got a thread, by name."""
        self.begun = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._answers: dict[str, queue.Queue[list[AddressInfo] | Exception]] = {}
        self.threads: list[threading.Thread] = []

    def answer(self, host: str, answer: list[AddressInfo] | Exception) -> None:
        """Let one look-up of `host` end, now or when it begins."""
        self._queue(host).put(answer)

    def look_up(self, host: str) -> Sequence[AddressInfo]:
        self.threads.append(threading.current_thread())
        self._loop.call_soon_threadsafe(self._begin, host)
        answer = self._queue(host).get(timeout=10)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def until_asked(self, count: int) -> None:
        """Wait until so many look-ups have begun, in all."""
        async with asyncio.timeout(10):
            while len(self.asked) < count:
                self.begun.clear()
                await self.begun.wait()

    def _begin(self, host: str) -> None:
        self.asked.append(host)
        self.begun.set()

    def _queue(self, host: str) -> queue.Queue[list[AddressInfo] | Exception]:
        return self._answers.setdefault(host, queue.Queue())


def resolver_of(server: NameServer, **options: Any) -> Resolver:
    return Resolver(lambda: server.time, server.look_up, **options)


async def hosts(resolver: Resolver, name: str) -> list[str]:
    return [info[4][0] for info in await resolver.resolve(name, 443)]


def asking(resolver: Resolver, name: str) -> asyncio.Task[list[str]]:
    return asyncio.ensure_future(hosts(resolver, name))


async def known(server: NameServer, resolver: Resolver, name: str, *addresses: str) -> None:
    """Have `name` looked up, with this result."""
    server.answer(name, at(*addresses))
    assert await hosts(resolver, name) == list(addresses)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "192.0.2.7", "2001:db8::1"])
async def test_an_address_is_not_looked_up(host: str) -> None:
    server = NameServer()

    [found] = await resolver_of(server).resolve(host, 8081)

    assert found[4][:2] == (host, 8081)
    assert found[:2] == (socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    assert server.threads == []


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "localhost."])
async def test_localhost_is_not_looked_up(host: str) -> None:
    server = NameServer()

    found = await resolver_of(server).resolve(host, 80)

    assert [info[4] for info in found] == [("::1", 80, 0, 0), ("127.0.0.1", 80)]
    assert server.threads == []


@pytest.mark.parametrize("host", ["localhost.example", "host2", "10.example.1x"])
async def test_anything_else_is(host: str) -> None:
    server = NameServer()

    await known(server, resolver_of(server), host, "192.0.2.1")

    assert server.asked == [host]


async def test_addresses_keep_the_order_in_which_they_came_and_get_the_port() -> None:
    server = NameServer()
    six: AddressInfo = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 3))
    server.answer("a", [*at("192.0.2.1"), six, *at("192.0.2.2")])

    found = await resolver_of(server).resolve("a", 443)

    places = [info[4] for info in found]
    assert places == [("192.0.2.1", 443), ("2001:db8::1", 443, 0, 3), ("192.0.2.2", 443)]


async def test_all_who_wait_share_one_look_up_and_leave_it_to_the_others() -> None:
    server = NameServer()
    resolver = resolver_of(server)
    tasks = [asking(resolver, "a") for _ in range(5)]
    await server.until_asked(1)
    tasks[0].cancel()
    await settle()
    server.answer("a", at("192.0.2.1"))

    assert await asyncio.gather(*tasks[1:]) == [["192.0.2.1"]] * 4
    assert tasks[0].cancelled()
    assert server.asked == ["a"]


async def test_a_failure_that_nobody_waits_for_any_more_is_no_complaint() -> None:
    server = NameServer()
    resolver = resolver_of(server)
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    task = asking(resolver, "a")
    await server.until_asked(1)
    task.cancel()
    await settle()
    server.answer("a", AGAIN)
    server.answer("a", ABSENT)

    # The next who asks shares the look-up, or finds that it has ended.
    with pytest.raises(socket.gaierror):
        await hosts(resolver, "a")
    assert complaints == []


@pytest.mark.parametrize(("age", "asked"), [(FRESH - 0.01, 1), (FRESH, 2)])
async def test_a_result_is_fresh_for_a_moment(age: float, asked: int) -> None:
    server = NameServer()
    resolver = resolver_of(server)
    await known(server, resolver, "a", "192.0.2.1")
    server.time += age
    server.answer("a", at("192.0.2.2"))

    assert await hosts(resolver, "a") == [f"192.0.2.{asked}"]
    assert len(server.asked) == asked


async def test_a_doubted_result_is_looked_up_again_at_once() -> None:
    server = NameServer()
    resolver = resolver_of(server)
    await known(server, resolver, "a", "192.0.2.1")
    resolver.doubt("a")
    resolver.doubt("never asked for")

    await known(server, resolver, "a", "192.0.2.2")


@pytest.mark.parametrize("age", [FRESH, STALE - 0.01])
async def test_a_stale_result_serves_while_a_look_up_hangs(age: float) -> None:
    server = NameServer()
    resolver = resolver_of(server, patience=0.0)
    await known(server, resolver, "a", "192.0.2.1")
    server.time += age

    assert await hosts(resolver, "a") == ["192.0.2.1"]
    assert await hosts(resolver, "a") == ["192.0.2.1"]
    await server.until_asked(2)
    server.answer("a", at("192.0.2.2"))
    while await hosts(resolver, "a") == ["192.0.2.1"]:  # noqa: ASYNC110 (threads have no event)
        await asyncio.sleep(0)
    assert server.asked == ["a", "a"]


async def test_a_result_that_is_too_old_does_not_serve() -> None:
    server = NameServer()
    resolver = resolver_of(server, patience=0.0)
    await known(server, resolver, "a", "192.0.2.1")
    server.time += STALE
    task = asking(resolver, "a")
    await server.until_asked(2)
    await settle()

    assert not task.done()
    server.answer("a", at("192.0.2.2"))
    assert await task == ["192.0.2.2"]


async def test_a_stale_result_waits_for_a_look_up_that_does_not_hang() -> None:
    server = NameServer()
    resolver = resolver_of(server, patience=10.0)
    await known(server, resolver, "a", "192.0.2.1")
    server.time += FRESH

    await known(server, resolver, "a", "192.0.2.2")


async def test_a_name_server_that_fails_leaves_a_stale_result_and_one_that_denies_does_not() -> (
    None
):
    server = NameServer()
    resolver = resolver_of(server, patience=10.0)
    await known(server, resolver, "a", "192.0.2.1")
    server.time += FRESH
    server.answer("a", AGAIN)
    assert await hosts(resolver, "a") == ["192.0.2.1"]

    server.answer("a", ABSENT)
    with pytest.raises(socket.gaierror, match="not known"):
        await hosts(resolver, "a")
    server.answer("a", AGAIN)
    with pytest.raises(socket.gaierror, match="Temporary"):
        await hosts(resolver, "a")


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (ABSENT, "not known"),
        (OSError(24, "Too many open files"), "Too many open files"),
        (UnicodeError("label too long"), "Not a host name"),
        (MemoryError(), "MemoryError"),
    ],
)
async def test_every_failure_is_an_os_error(failure: Exception, text: str) -> None:
    server = NameServer()
    server.answer("a", failure)

    with pytest.raises(OSError, match=text):
        await hosts(resolver_of(server), "a")


async def test_a_name_without_addresses_is_a_failure() -> None:
    server = NameServer()
    server.answer("a", [])

    with pytest.raises(socket.gaierror):
        await hosts(resolver_of(server), "a")


async def test_no_more_look_ups_run_at_once_than_there_are_threads() -> None:
    server = NameServer()
    resolver = resolver_of(server, threads=2)
    tasks = [asking(resolver, name) for name in ("a", "b", "c")]
    await server.until_asked(2)
    await settle()
    assert server.asked == ["a", "b"]

    server.answer("b", at("192.0.2.2"))
    server.answer("c", at("192.0.2.3"))
    assert await asyncio.gather(*tasks[1:]) == [["192.0.2.2"], ["192.0.2.3"]]
    server.answer("a", ABSENT)
    with pytest.raises(socket.gaierror):
        await tasks[0]


async def test_names_that_hang_leave_half_of_the_threads_to_the_others() -> None:
    server = NameServer()
    resolver = resolver_of(server, threads=4)
    dead = ("a", "b", "c", "d")
    for name in dead:
        server.answer(name, AGAIN)
        with pytest.raises(socket.gaierror):
            await hosts(resolver, name)

    hanging = [asking(resolver, name) for name in dead]
    await server.until_asked(6)
    await settle()
    assert server.asked[4:] == ["a", "b"]
    await known(server, resolver, "e", "192.0.2.5")
    await known(server, resolver, "f", "192.0.2.6")

    for name in dead:
        server.answer(name, at("192.0.2.9"))
    assert await asyncio.gather(*hanging) == [["192.0.2.9"]] * 4
    # They have answered, so they count as any other again.
    server.time += FRESH
    again = [asking(resolver, name) for name in dead]
    await server.until_asked(14)
    for name in dead:
        server.answer(name, at("192.0.2.9"))
    assert len(await asyncio.gather(*again)) == 4


async def test_a_system_without_threads_is_a_failure_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    server = NameServer()
    resolver = resolver_of(server, threads=1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        with pytest.raises(OSError, match="unavailable"):
            await hosts(resolver, "a")

    await known(server, resolver, "a", "192.0.2.1")


async def test_names_that_nobody_uses_any_more_are_forgotten() -> None:
    server = NameServer()
    resolver = resolver_of(server)
    pending = asking(resolver, "pending")
    await server.until_asked(1)
    for number in range(1100):
        await known(server, resolver, f"name-{number}", "192.0.2.1")

    assert len(resolver._names) < 1025
    server.answer("pending", at("192.0.2.2"))
    assert await pending == ["192.0.2.2"]


def test_a_look_up_that_hangs_delays_no_exit() -> None:
    code = """if True:
    import asyncio, threading
    from proxy.resolver import Resolver
    begun = threading.Event()
    def hang(host):
        begun.set()
        threading.Event().wait()
    async def main():
        task = asyncio.ensure_future(Resolver(look_up=hang).resolve("a", 80))
        while not begun.is_set():
            await asyncio.sleep(0)
        task.cancel()
    asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )

    assert (done.stdout, done.stderr) == ("", "")
