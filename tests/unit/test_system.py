"""What is done where the operating system lacks something."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from proxy import system
from proxy.identity.adc import well_known_file
from proxy.ops.logwriter import LineWriter
from proxy.plane.unread import watched

FILE = "application_default_credentials.json"


@pytest.fixture
def handler_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("handler_as_before")
async def test_a_loop_that_takes_no_handlers_is_woken_by_a_signal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise NotImplementedError

    came: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", refuse)
    system.on_signal(signal.SIGTERM, came.set_result, "SIGTERM")

    os.kill(os.getpid(), signal.SIGTERM)

    assert await asyncio.wait_for(came, 10) == "SIGTERM"


@pytest.mark.usefixtures("handler_as_before")
def test_a_signal_after_the_end_of_the_loop_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise NotImplementedError

    called: list[int] = []

    async def attach() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", refuse)
        system.on_signal(signal.SIGTERM, called.append, 1)

    asyncio.run(attach())
    signal.raise_signal(signal.SIGTERM)

    assert called == []


@pytest.mark.parametrize("has_poll", [True, False])
def test_what_has_come_is_seen_without_poll_as_well(
    monkeypatch: pytest.MonkeyPatch, *, has_poll: bool
) -> None:
    if not has_poll:
        monkeypatch.delattr(select, "poll")
    reading, writing = os.pipe()

    class Transport(asyncio.BaseTransport):
        def get_extra_info(self, name: str, default: object = None) -> object:
            assert (name, default) == ("socket", None)
            return os.fdopen(reading, "rb", closefd=False)

    has_come = watched(Transport())
    assert not has_come(0)
    os.close(writing)
    assert has_come(0)
    os.close(reading)


def test_without_poll_lines_are_written_by_the_thread_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(select, "poll")
    monkeypatch.delattr(os, "O_NONBLOCK")
    reading, writing = os.pipe()
    writer = LineWriter(writing)
    writer.start()
    for number in range(100):
        writer.write(b"%d\n" % number)
    writer.close()
    os.close(writing)

    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"".join(b"%d\n" % number for number in range(100))


def test_gclouds_login_lies_where_windows_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"APPDATA": "/Users/me/AppData/Roaming", "HOME": "/home/me"}

    elsewhere = well_known_file(environ).path
    monkeypatch.setattr(sys, "platform", "win32")
    here = well_known_file(environ).path
    chosen = well_known_file({**environ, "CLOUDSDK_CONFIG": "/chosen"}).path

    assert elsewhere == Path("/home/me/.config/gcloud") / FILE
    assert here == Path("/Users/me/AppData/Roaming/gcloud") / FILE
    assert chosen == Path("/chosen") / FILE
