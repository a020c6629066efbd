"""Messages and sockets between a parent and a worker, here in one process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.config.model import Address, Config, Destination, Route, Upstream
from proxy.plane.listen import address_of, bind, close_all
from proxy.workers.channel import (
    Ask,
    Channel,
    Drain,
    Finish,
    Finished,
    Idle,
    Message,
    Serve,
    Serving,
    pairs,
)

ADDRESS = Address("127.0.0.1", 0)
CONFIG = Config(
    routes=(
        Route(
            name="orders",
            listen=(ADDRESS,),
            destinations=(
                Destination(
                    upstream=Upstream("https", "orders.run.app", 443),
                    audience="https://orders.run.app",
                ),
            ),
        ),
    ),
)


@asynccontextmanager
async def ends() -> AsyncIterator[tuple[Channel, Channel]]:
    """The parent's end and the worker's."""
    mine, its = pairs()
    parent, worker = Channel(*mine), Channel(*its)
    await parent.open()
    await worker.open()
    try:
        yield parent, worker
    finally:
        parent.close()
        worker.close()


async def test_messages_arrive_in_order_and_equal() -> None:
    sent: list[Message] = [
        Ask(),
        Drain(),
        Finish(1.5),
        Idle(at_once=True),
        Finished(3),
        Serving(CONFIG, "why"),
    ]
    async with ends() as (parent, worker):
        for message in sent:
            parent.send(message)

        assert [await worker.receive() for _ in sent] == sent


async def test_a_large_configuration_arrives_whole() -> None:
    routes = tuple(
        Route(name=f"r{n}", listen=(ADDRESS,), host=(f"h{n}.test",)) for n in range(5000)
    )
    async with ends() as (parent, worker):
        parent.send(Serve(Config(routes=routes), ()))

        message = await worker.receive()

    assert message == Serve(Config(routes=routes), ())


async def test_sockets_arrive_with_their_listener() -> None:
    one, two = await bind(ADDRESS), await bind(ADDRESS)
    both = Address("both.test", 1)
    async with ends() as (parent, worker):
        parent.send(Serve(CONFIG, (both, ADDRESS)), {both: (*one, *two), ADDRESS: two})
        message = await worker.receive()
        assert isinstance(message, Serve)
        taken = worker.take(message.listeners)

    ports = [address_of(sock).port for sock in (*one, *two)]
    assert [address_of(sock).port for sock in taken[both]] == ports
    assert [address_of(sock).port for sock in taken[ADDRESS]] == ports[1:]
    for sockets in (one, two, *taken.values()):
        close_all(sockets)


async def test_programs_that_the_worker_starts_do_not_inherit_what_arrives() -> None:
    sockets = await bind(ADDRESS)
    async with ends() as (parent, worker):
        parent.send(Serve(CONFIG, (ADDRESS,)), {ADDRESS: sockets})
        await worker.receive()
        taken = worker.take((ADDRESS,))

    assert not os.get_inheritable(taken[ADDRESS][0].fileno())
    close_all(sockets)
    close_all(taken[ADDRESS])


async def test_the_end_of_the_other_side_is_noticed() -> None:
    async with ends() as (parent, worker):
        parent.send(Ask())
        await parent.flush()

        assert await worker.receive() == Ask()
        assert await worker.receive() is None


async def test_an_end_in_the_middle_of_a_message_is_an_end() -> None:
    (control, passing), its = pairs()
    worker = Channel(*its)
    await worker.open()
    control.send(b"\0\0\0\xffhalf")
    control.close()

    assert await worker.receive() is None
    passing.close()
    worker.close()


async def test_a_side_that_takes_no_more_sockets_is_an_error_and_no_hang() -> None:
    sockets = await bind(ADDRESS)
    async with ends() as (parent, _):

        def send_for_ever() -> None:
            while True:
                parent.send(Serve(CONFIG, (ADDRESS,)), {ADDRESS: sockets})

        with pytest.raises(BlockingIOError):
            send_for_ever()
    close_all(sockets)


async def test_only_an_open_channel_carries_messages() -> None:
    mine, its = pairs()
    channel = Channel(*mine)

    with pytest.raises(AssertionError, match="not open"):
        channel.send(Ask())
    with pytest.raises(AssertionError, match="not open"):
        await channel.receive()
    await channel.flush()
    channel.close()
    for sock in its:
        sock.close()


async def test_flushing_to_somebody_who_has_gone_is_no_failure() -> None:
    mine, its = pairs()
    channel = Channel(*mine)
    await channel.open()
    for sock in its:
        sock.close()
    channel.send(Ask())

    await asyncio.wait_for(channel.flush(), 5)
    channel.close()


async def test_a_channel_that_is_closed_takes_no_more() -> None:
    async with ends() as (_, worker):
        await worker.flush()

        with pytest.raises(BrokenPipeError):
            worker.send(Finished(0))
