"""The suite's search for tokens finds one wherever it is planted.

Each test takes what was found, which would fail it otherwise.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

import tests
from tests.fakes import leaks, sessions
from tests.fakes.child import plain_environment, run
from tests.fakes.framed import GET as GET_IN_FRAMES
from tests.fakes.framed_world import Framed
from tests.fakes.lifelines import GET, OK, calling, document, scripted
from tests.fakes.program import SHOWN, Program, command
from tests.fakes.steering import HOUR, jwt

PLANTED = jwt(1_800_000_000.0 + HOUR, "https://orders.example")
ANSWER = f"HTTP/1.1 500 Oops\r\nContent-Length: {len(PLANTED)}\r\n\r\n{PLANTED}".encode()

# The proxy shows a route's audience, which may be any string.
TELLTALE = document(
    None, routes={"default": {"upstream": "https://orders.example", "audience": PLANTED}}
)
THREE_TESTS = """
from tests.conftest import no_token_is_shown
from tests.fakes import leaks

def test_a_leak(): leaks.look("a page", {0!r})
def test_a_log(): __import__("logging").getLogger("of").error({0!r})
def test_none(): leaks.look("a page", "nothing")
"""


@pytest.mark.parametrize(
    "material",
    [
        PLANTED,
        PLANTED.rpartition(".")[0],
        "ya29.a0AfB_by",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
        f"/path?t={PLANTED}",
    ],
    ids=["ID token", "without its signature", "access token", "key", "within a line"],
)
def test_material_is_known_when_seen(material: str) -> None:
    leaks.look("here", f"so {material} so".encode())
    leaks.look("there", material)

    here, there = leaks.take()
    assert here.startswith("here, after 'so ")
    assert there.startswith("there")
    # What a failed test reports is a place like any other.
    leaks.look("the report", here + there)
    assert leaks.take() == []


@pytest.mark.parametrize(
    "innocent",
    [
        *("", "eyJhbGciOi", "a.eyJ.b", "ya29", "PRIVATE KEY", "x.y.z"),
        f"{PLANTED.rpartition('.')[0]}.SIGNATURE_REMOVED_BY_GOOGLE",
    ],
)
def test_what_only_resembles_it_is_not(innocent: str) -> None:
    leaks.look("here", innocent)

    assert leaks.take() == []


async def test_a_find_fails_its_test_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "test_planted.py").write_text(THREE_TESTS.format(PLANTED))
    root = str(Path(tests.__path__[0]).parent)
    done = await run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no", str(tmp_path)],
        env=plain_environment(tmp_path, {"PYTHONPATH": root}),
    )

    assert "3 passed, 2 errors" in done.out, done.out
    for name in ("test_a_leak", "test_a_log"):
        assert f"::{name}\n" in done.out, done.out


async def test_a_program_that_shows_one_is_found_out() -> None:
    async with Program(TELLTALE) as program:
        (log,) = leaks.take()
        assert program.running
    (status,) = leaks.take()

    # The log's own net held; that it had to is what is found.
    assert log.startswith("the output of cloud-run-auth-proxy run, after")
    assert status.startswith("/status of the admin listener, after")


@pytest.mark.parametrize(("path", "accept"), SHOWN)
async def test_every_page_of_the_admin_listener_is_searched(
    path: str, accept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    async with scripted(OK) as upstream, Program(document(upstream)) as program:
        answer = await program.admin_answer(path, accept)
        monkeypatch.setattr(leaks, "look", lambda where, _: asked.append(where))
    monkeypatch.undo()

    assert f"{path} of the admin listener" in asked
    assert (b"# EOF" in answer) is ("openmetrics" in accept)


async def test_a_command_that_prints_one_is_found_out(tmp_path: Path) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text(TELLTALE)
    done = await command("check", "--config", str(file))

    assert done.code == 0
    (found,) = leaks.take()
    assert found.startswith("stdout of ")

    await command("check", "--config", str(file), prints_a_token=True)
    assert leaks.take() == []

    # A route's name is shown as it stands.
    file.write_text("routes: {" + PLANTED[:63].rpartition(".")[0] + ".eyJhIjox: {}}")
    await command("check", "--config", str(file))
    (found,) = leaks.take()
    assert found.startswith("stderr of ")


async def test_an_answer_that_holds_one_is_found_out() -> None:
    async with scripted(ANSWER) as upstream, Program(document(upstream)) as program:
        async with calling(program) as caller:
            await caller.ask(GET)
        (raw,) = leaks.take()
        async with sessions.session() as session, session.get(program.url) as response:
            await response.read()
        (read,) = leaks.take()
    assert raw.startswith("what a caller was answered, after")
    assert read.startswith("what aiohttp was answered")


async def test_an_answer_in_frames_that_holds_one_is_found_out() -> None:
    async with Framed() as world:
        caller = await world.frames()
        for stream, (head, body) in enumerate(
            [([("x-token", PLANTED)], b"ok"), ([], PLANTED.encode())], 1
        ):
            number = 2 * stream - 1
            caller.send_headers(number, GET_IN_FRAMES, end=True)
            end = world.framed.connections[-1] if stream > 1 else await world.framed.accept()
            await end.request(number)
            end.answer(number, body, [(":status", "500"), *head])
            await caller.finished(number)

    first, second = leaks.take()
    assert first.startswith("what a caller was answered on stream 1")
    assert second.startswith("what a caller was answered on stream 3")


def test_a_log_record_that_holds_one_is_found_out() -> None:
    logging.getLogger("proxy").error("sent %s", PLANTED)
    logging.getLogger("proxy").error("sent", exc_info=ValueError(PLANTED))

    message, exception = leaks.take()
    assert message.startswith("the log of proxy, after 'sent ")
    assert exception.startswith("the log of proxy")
