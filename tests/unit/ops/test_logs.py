"""The logging of the whole process, set up as the configuration says."""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from proxy.clock import Clocks
from proxy.config.model import Log
from proxy.ops.logs import ACCESS, PER_MINUTE, Logs, configure


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


Configure = Callable[..., Logs]


@pytest.fixture
def set_up() -> Iterator[Configure]:
    """`configure`, undone afterwards."""
    loggers = [logging.getLogger(name) for name in (None, "proxy", ACCESS)]
    levels = [logger.level for logger in loggers]
    made: list[Logs] = []

    def set_up(log: Log = Log(), **more: Any) -> Logs:  # noqa: B008 (frozen)
        made.append(configure(log, **more))
        return made[-1]

    yield set_up
    for logs in made:
        logs.close()
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def messages(stream: io.StringIO) -> list[str]:
    return [line["message"] for line in lines(stream)]


@pytest.mark.parametrize(
    ("form", "stream", "environ", "starts"),
    [
        ("auto", io.StringIO(), {}, '{"severity":"INFO"'),
        ("json", Terminal(), {}, '{"severity":"INFO"'),
        ("auto", Terminal(), {"TERM": "xterm"}, "\x1b[2m"),
        ("auto", Terminal(), {"NO_COLOR": "1"}, "0123456789"),
        ("auto", Terminal(), {"NO_COLOR": ""}, "\x1b[2m"),
        ("auto", Terminal(), {"TERM": "dumb"}, "0123456789"),
        ("text", io.StringIO(), {}, "0123456789"),
    ],
)
def test_the_format_follows_the_stream_unless_one_is_asked_for(
    set_up: Configure, form: Any, stream: TextIO, environ: dict[str, str], starts: str
) -> None:
    set_up(Log(format=form), stream=stream, environ=environ)
    logging.getLogger("proxy.server").info("text")
    assert isinstance(stream, io.StringIO)
    line = stream.getvalue()

    assert line.startswith(starts) if len(starts) != 10 else line[0] in starts
    assert line.endswith("\n")


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_our_records_are_written_from_the_level_on(
    set_up: Configure, level: Any, written: list[str]
) -> None:
    stream = io.StringIO()
    set_up(Log(level=level), stream=stream)
    for name in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("proxy.server"), name)(name)

    assert messages(stream) == written


def test_libraries_are_heard_from_warning_on_even_at_debug(set_up: Configure) -> None:
    stream = io.StringIO()
    set_up(Log(level="debug"), stream=stream)
    logging.getLogger("google.auth").debug("request with a token in it")
    logging.getLogger("asyncio").warning("slow callback")

    assert messages(stream) == ["slow callback"]


@pytest.mark.parametrize(
    ("access", "written"),
    [("all", ["fine", "bad", "worse"]), ("errors", ["bad", "worse"]), ("off", [])],
)
@pytest.mark.parametrize("level", ["debug", "error"])
def test_the_access_log_has_a_level_of_its_own(
    set_up: Configure, access: Any, level: Any, written: list[str]
) -> None:
    stream = io.StringIO()
    set_up(Log(access=access, level=level), stream=stream)
    log = logging.getLogger(ACCESS)
    log.info("fine")
    log.warning("bad")
    log.error("worse")

    assert messages(stream) == written


def test_repeats_are_counted_and_the_count_stands_before_what_comes_next(
    set_up: Configure,
) -> None:
    now = 0.0
    stream = io.StringIO()
    set_up(stream=stream, clocks=Clocks(steady=lambda: now))
    log = logging.getLogger("proxy.plane")
    for _ in range(PER_MINUTE + 5):
        log.error("down", extra={"route": "orders", "reason": "upstream_reset"})
    now = 60.0
    log.error("down again", extra={"route": "orders", "reason": "upstream_reset"})

    assert messages(stream) == (
        ["down"] * PER_MINUTE + ["… and 5 more like this in the last minute", "down again"]
    )
    assert lines(stream)[-2]["left_out"] == 5
    assert lines(stream)[-2]["route"] == "orders"


def test_errors_in_the_access_log_are_limited_by_status(set_up: Configure) -> None:
    stream = io.StringIO()
    set_up(Log(access="errors"), stream=stream)
    for _ in range(PER_MINUTE + 1):
        logging.getLogger(ACCESS).warning("x", extra={"http": {"status": 503}})

    assert len(lines(stream)) == PER_MINUTE


def test_an_access_log_of_everything_is_not_limited(set_up: Configure) -> None:
    stream = io.StringIO()
    set_up(Log(access="all"), stream=stream)
    for _ in range(PER_MINUTE * 3):
        logging.getLogger(ACCESS).error("x", extra={"reason": "upstream_reset"})

    assert len(lines(stream)) == PER_MINUTE * 3


def test_what_was_left_out_is_written_at_the_end(set_up: Configure) -> None:
    stream = io.StringIO()
    logs = set_up(stream=stream)
    for _ in range(PER_MINUTE + 2):
        logging.getLogger("proxy.plane").error("down", extra={"reason": "upstream_reset"})
    logs.close()

    assert messages(stream)[-1] == "… and 2 more like this in the last minute"


def test_a_second_configure_replaces_the_first(set_up: Configure) -> None:
    first, second = io.StringIO(), io.StringIO()
    set_up(Log(access="all"), stream=first)
    set_up(Log(access="off"), stream=second)
    logging.getLogger("proxy.server").info("once")
    logging.getLogger(ACCESS).info("never")

    assert messages(first) == []
    assert messages(second) == ["once"]


def test_the_project_may_become_known_later(set_up: Configure) -> None:
    stream = io.StringIO()
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    extra = {"trace": ("traceparent", f"00-{trace}-00f067aa0ba902b7-01")}
    logs = set_up(stream=stream)
    logging.getLogger("proxy.plane").info("before", extra=extra)
    logs.set_project("my-project")
    logging.getLogger("proxy.plane").info("after", extra=extra)

    assert [line["logging.googleapis.com/trace"] for line in lines(stream)] == [
        trace,
        f"projects/my-project/traces/{trace}",
    ]


def test_text_has_no_use_for_the_project(set_up: Configure) -> None:
    logs = set_up(Log(format="text"), stream=io.StringIO())
    logs.set_project("my-project")

    assert not hasattr(logs.formatter, "project")


def test_a_record_that_cannot_be_formatted_is_one_line(
    set_up: Configure, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    set_up(stream=stream)
    monkeypatch.setattr(logging, "raiseExceptions", False)  # Which pytest's own handlers ask.
    logging.getLogger("proxy.server").info("%d", "eyJ-not-a-number")
    logging.getLogger("proxy.server").info("after")

    first, second = messages(stream)
    assert first.startswith("a log record of proxy.server could not be written: TypeError in line ")
    assert second == "after"
    assert capsys.readouterr().err == ""


def test_another_configuration_is_followed_at_once(set_up: Configure) -> None:
    stream = io.StringIO()
    logs = set_up(
        Log(access="errors", format="json"),
        stream=stream,
        environ={"GOOGLE_CLOUD_PROJECT": "my-project"},
    )
    logs.follow(Log(access="all", format="text", level="debug"))
    for _ in range(20):
        logging.getLogger(ACCESS).info("access", extra={"http": {"status": 200}})
    logging.getLogger("proxy.server").debug("fine")
    logs.follow(Log(level="error"))
    logging.getLogger("proxy.server").warning("unsaid")
    logging.getLogger("proxy.server").error("said")

    *text, last = stream.getvalue().splitlines()
    assert [sum("access" in line for line in text), "fine" in text[-1], len(text)] == [20, True, 21]
    assert '"message":"said"' in last


def test_whoever_follows_waits_for_no_reader_and_loses_nothing(
    set_up: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading.Thread, "join", lambda *_: pytest.fail("this waits"))
    reader, fd = os.pipe()
    full = os.write(fd, b"f" * fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ))
    with os.fdopen(fd, "w") as stream, os.fdopen(reader, "rb") as read:
        logs = set_up(stream=stream)
        logging.getLogger("proxy.server").info("before")
        logs.follow(Log(level="debug"))
        logging.getLogger("proxy.server").debug("after")

        read.read(full)
        said = [json.loads(read.readline())["message"] for _ in range(2)]
        monkeypatch.undo()
        logs.close()

    assert said == ["before", "after"]


def test_a_reader_that_stalls_is_waited_for_once_at_the_end(
    set_up: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    reader, fd = os.pipe()
    full = os.write(fd, b"f" * fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ))
    with os.fdopen(fd, "w") as stream, os.fdopen(reader, "rb") as read:
        logs = set_up(stream=stream)
        monkeypatch.setattr(threading.Thread, "join", lambda _, seconds: waits.append(seconds))
        monkeypatch.setattr(threading.Event, "wait", lambda _, seconds: waits.append(seconds))
        logging.getLogger("proxy.server").info("left")
        logs.close(0.25)
        logs.flush()  # As the library does at exit, see `logging.shutdown`.
        logs.close()

        assert waits == [0.25]
        read.read(full)
        assert json.loads(read.readline())["message"] == "left"


def test_a_stream_with_a_descriptor_is_written_by_a_thread(
    set_up: Configure, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        logs = set_up(stream=stream)
        logging.getLogger("proxy.server").info("naïve — 😀")
        logs.flush()

        assert json.loads(path.read_text())["message"] == "naïve — 😀"
        assert "log writer" in {thread.name for thread in threading.enumerate()}

        logs.close()

        assert "log writer" not in {thread.name for thread in threading.enumerate()}


def test_the_thread_writes_a_summary_when_its_minute_ends(set_up: Configure) -> None:
    now = 0.0
    reader, fd = os.pipe()
    with os.fdopen(reader) as found, os.fdopen(fd, "w") as stream:
        set_up(stream=stream, clocks=Clocks(steady=lambda: now))
        for _ in range(PER_MINUTE + 1):
            now += 5.995 if now == 0 else 0
            logging.getLogger("proxy.plane").error("down", extra={"reason": "upstream_reset"})
        for _ in range(PER_MINUTE):
            found.readline()
        now = 66.0
        logging.getLogger("proxy.server").debug("not written, nor does it sweep")
        logging.getLogger("proxy.server").info("wakes the thread")

        assert "and 1 more like this" in found.readline()


def test_what_a_slow_reader_lost_is_said_once_it_reads_again(set_up: Configure) -> None:
    reader, fd = os.pipe()
    with os.fdopen(reader, "rb") as found, os.fdopen(fd, "w") as stream:
        writer = set_up(Log(format="text"), stream=stream)._writer
        assert writer is not None
        written = 0
        while writer.dropped < 7:
            logging.getLogger("proxy.server").info("x" * 100)
            written += 1
        lines = [found.readline() for _ in range(written - 7 + 1)]

        assert b"7 log lines were dropped" in lines[-1]
