"""What is done where the operating system lacks something."""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import select
import signal
import subprocess
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


# Two blocks of the size of a segment, again and again, as for an upload under TLS.  The pages of
# both are counted by the kernel (getrusage(2), ru_minflt) where they have to be handed out anew.
FAULTS = """
import resource, sys
from proxy.system import keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory()
def use():
    first, second = bytearray(300_000), bytearray(300_000)
    return first[-1] + second[-1]
for _ in range(20):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*flags: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, *flags],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_what_a_segment_needed_is_not_asked_for_again() -> None:
    assert faults("keep") < 200
    assert faults() > 2_000  # 146 pages each time: what it would be.


def test_a_c_library_without_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert not system.keep_freed_memory()


DUMPABLE = """
import ctypes
from proxy.doctor.running import run

async def main():
    return ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)  # PR_GET_DUMPABLE of Linux' prctl.h

print(run(main()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has it")
def test_commands_that_hold_tokens_keep_their_memory_to_themselves() -> None:
    """`run` and its workers are in tests/e2e/test_surroundings.py."""
    done = subprocess.run([sys.executable, "-c", DUMPABLE], capture_output=True, check=True)

    assert done.stdout == b"0\n"
