"""The process around a proxy, here around one that only takes notes."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import pytest

from proxy.administration import Administration
from proxy.config.model import Config, Destination, Log, Route, Upstream
from proxy.config.problems import ConfigError, Problem
from proxy.notify import Notifier
from proxy.ops.lifecycle import Reload
from proxy.ops.numbers import Numbers
from proxy.plane.descriptors import raise_soft_limit
from proxy.plane.listen import ListenFailed
from proxy.process import _Logging, _Process, _Signals

CONFIG = Config(
    routes=(
        Route(
            name="a",
            listen=(),
            destinations=(Destination(upstream=Upstream("http", "127.0.0.1", 9)),),
        ),
    ),
    sigterm_delay=3.0,
)


class NotedAdministration:
    def __init__(self) -> None:
        self.quit_asked = asyncio.Event()
        self.problems: list[str] = []
        """Of each reload, empty where it was taken."""

        self.warned = 0

    def announce(self) -> None:
        pass

    def warn(self) -> None:
        self.warned += 1

    async def reading(self) -> tuple[Numbers, Reload]:
        raise AssertionError("nothing is exported here")

    def reloaded(self, problem: str = "") -> None:
        self.problems.append(problem)


class NotedProxy:
    """Does nothing but note what it is asked for, in order."""

    def __init__(self) -> None:
        self.config = CONFIG
        self.notes: list[str] = []
        self.admin = cast("Administration", NotedAdministration())
        self.start_error: Exception | None = None
        self.reload_error: Exception | None = None
        self.hold_start = False
        self.started = asyncio.Event()
        self.delay = -1.0

    async def start(self) -> None:
        self.notes.append("start")
        self.started.set()
        if self.start_error is not None:
            raise self.start_error
        if self.hold_start:
            await asyncio.Event().wait()

    async def reload(self, config: Config) -> None:
        self.notes.append(f"reload {config.source}")
        await asyncio.sleep(0)
        if self.reload_error is not None:
            error, self.reload_error = self.reload_error, None
            raise error
        self.config = config

    def drain(self) -> None:
        self.notes.append("drain")

    async def drained(self, seconds: float, delay: float) -> int:
        assert seconds == self.config.drain
        self.delay = delay
        self.notes.append("drained")
        return 0

    async def stop(self) -> None:
        self.notes.append("stop")

    def abandon(self) -> None:
        self.notes.append("abandon")


class Around:
    """A process and what a test does to it."""

    def __init__(self, read: Callable[[], Config] | None = None) -> None:
        self.proxy = NotedProxy()
        self.signals = _Signals()
        self.logging = _Logging(CONFIG.log)
        notifier = Notifier({}, lambda: 0.0)
        self.process = _Process(self.proxy, read, self.signals, self.logging, notifier)

    async def run(self) -> int:
        return await self.process.run()


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    for handler_ in [each for each in root.handlers if each not in handlers]:
        handler_.close()
    root.setLevel(level)


def kill(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


async def test_a_life_is_start_drain_and_stop() -> None:
    around = Around()
    run = asyncio.ensure_future(around.run())
    await around.proxy.started.wait()
    kill(signal.SIGTERM)

    assert await run == 0
    assert around.proxy.notes == ["start", "drain", "drained", "stop"]
    assert around.proxy.delay == CONFIG.sigterm_delay


async def test_a_request_to_quit_waits_for_no_delay() -> None:
    around = Around()
    run = asyncio.ensure_future(around.run())
    await around.proxy.started.wait()
    around.proxy.admin.quit_asked.set()

    assert await run == 0
    assert around.proxy.delay == 0.0


async def test_a_signal_that_came_before_anybody_could_act_counts() -> None:
    around = Around()
    around.proxy.hold_start = True
    kill(signal.SIGTERM)

    assert await around.run() == 0
    assert around.proxy.notes == ["drain", "drained", "stop"]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
async def test_a_signal_that_means_nothing_is_ignored_and_said(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    around = Around()
    kill(number)  # Before anybody could act.
    run = asyncio.ensure_future(around.run())
    await around.proxy.started.wait()
    kill(number)
    await _until(lambda: caplog.text.count(f"{number.name} means nothing here") == 2)
    kill(signal.SIGTERM)

    assert await run == 0
    assert around.proxy.notes == ["start", "drain", "drained", "stop"]


async def test_a_start_that_fails_is_what_the_process_fails_with() -> None:
    around = Around()
    around.proxy.start_error = ListenFailed("127.0.0.1:1", "no")

    with pytest.raises(ListenFailed):
        await around.run()
    assert around.proxy.notes == ["start", "stop"]


async def test_a_reload_that_came_before_the_start_had_ended_comes_after_it() -> None:
    around = Around(lambda: replace(CONFIG, source="second"))
    kill(signal.SIGHUP)
    run = asyncio.ensure_future(around.run())
    await _until(lambda: "reload second" in around.proxy.notes)
    kill(signal.SIGTERM)
    await run

    assert around.proxy.notes[:2] == ["start", "reload second"]


async def test_reloads_that_are_asked_for_during_one_are_one_more() -> None:
    reading, go_on, read = threading.Semaphore(0), threading.Semaphore(0), 0

    def slowly() -> Config:
        nonlocal read
        read += 1
        reading.release()
        go_on.acquire()
        return replace(CONFIG, source=str(read))

    around = Around(slowly)
    run = asyncio.ensure_future(around.run())
    await around.proxy.started.wait()
    kill(signal.SIGHUP)
    await asyncio.to_thread(reading.acquire)
    for _ in range(5):
        kill(signal.SIGHUP)
        await asyncio.sleep(0)
    go_on.release(10)
    await _until(lambda: "reload 2" in around.proxy.notes)
    kill(signal.SIGTERM)
    await run

    assert around.proxy.notes == ["start", "reload 1", "reload 2", "drain", "drained", "stop"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigError([Problem("f.yaml", 1, 2, "is wrong")]), "f.yaml:1:2: is wrong"),
        (OSError("the disk is gone"), "the disk is gone"),
        (RuntimeError("planted"), "a bug in the reload"),
    ],
)
async def test_a_reload_that_fails_is_logged_and_the_next_one_works(
    error: Exception, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    around = Around(lambda: replace(CONFIG, source="next"))
    around.proxy.reload_error = error
    run = asyncio.ensure_future(around.run())
    await around.proxy.started.wait()
    kill(signal.SIGHUP)
    await _until(lambda: said in caplog.text)
    assert around.proxy.config is CONFIG
    kill(signal.SIGHUP)
    await _until(lambda: around.proxy.config.source == "next")
    kill(signal.SIGTERM)

    assert await run == 0
    told, taken = cast("NotedAdministration", around.proxy.admin).problems
    assert said in told
    assert taken == ""


async def test_a_file_that_cannot_be_read_in_time_is_given_up_and_the_next_one_taken(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.process._READ_WITHIN", 0.05)
    hanging = [threading.Event(), threading.Event()]

    def read() -> Config:
        if hanging:
            hanging.pop().wait()
        return replace(CONFIG, source="next")

    held = list(hanging)
    around = Around(read)
    run = asyncio.ensure_future(around.run())
    await around.proxy.started.wait()
    for _ in held:
        caplog.clear()
        kill(signal.SIGHUP)
        await _until(lambda: "could not be read within 0.05 s" in caplog.text)
    assert around.proxy.config is CONFIG
    monkeypatch.setattr("proxy.process._READ_WITHIN", 10.0)
    kill(signal.SIGHUP)
    await _until(lambda: around.proxy.config.source == "next")
    kill(signal.SIGTERM)

    # What hangs holds nobody up.
    assert await run == 0
    for each in held:
        each.set()


async def test_the_log_follows_only_what_was_taken() -> None:
    around = Around(lambda: replace(CONFIG, log=Log(level="debug")))
    around.proxy.reload_error = OSError("no")
    run = asyncio.ensure_future(around.run())
    await around.proxy.started.wait()
    ours = logging.getLogger("proxy")
    kill(signal.SIGHUP)
    await _until(lambda: around.proxy.reload_error is None)
    assert ours.level == logging.INFO
    kill(signal.SIGHUP)
    await _until(lambda: ours.level == logging.DEBUG)
    kill(signal.SIGTERM)

    assert await run == 0


async def _until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not done():  # noqa: ASYNC110 (signals and threads tell no event)
            await asyncio.sleep(0)


# --- the descriptor limit

ENDLESS = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "most", "becomes"),
    [
        (1024, 524_288, 1_048_576, 524_288),
        (256, ENDLESS, 245_760, 245_760),
        (256, ENDLESS, 245_759, 122_880),
        (256, ENDLESS, 10_240, 10_240),
        (256, ENDLESS, 10_239, 256),
        (10_240, ENDLESS, 10_240, 10_240),
        (256, 4096, 4095, 256),
        (4096, 4096, 10_240, 4096),
        (ENDLESS, ENDLESS, 10_240, ENDLESS),
    ],
)
def test_the_descriptor_limit_is_raised_as_far_as_the_kernel_lets_it(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, most: int, becomes: int
) -> None:
    """The hard limit of macOS is infinite, and to set that is refused there."""
    limits = [soft]

    def set_limit(which: int, wanted: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        assert wanted[1] == hard
        if not 0 <= wanted[0] <= most:
            raise ValueError("current limit exceeds maximum limit")
        limits.append(wanted[0])

    monkeypatch.setattr(resource, "getrlimit", lambda _: (limits[-1], hard))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    raise_soft_limit()

    assert limits[-1] == becomes
