"""The demo as a user meets it: start it, paste its lines, end it."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes import sessions
from tests.fakes.child import Child, Done, plain_environment, run
from tests.fakes.program import A_TOKEN, COMMAND, command

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def demo(home: Path, *more: str) -> AsyncIterator[Child]:
    """Start the demo on free ports and wait until it has said everything."""
    argv: list[str | Path] = [COMMAND, "demo", "--port", "0", *more]
    child = Child(argv, env=plain_environment(home, {}), cwd=home)
    await child.spawn()
    try:
        await child.line(lambda line: line.startswith("Ctrl-C"))
        yield child
    finally:
        await child.kill()


def to_paste(child: Child) -> list[list[str]]:
    """Return the lines that the demo asks the user to paste, in order."""
    lines = [line.strip() for line in child.lines]
    return [shlex.split(line) for line in lines if line.startswith("curl ")]


async def paste(argv: list[str], home: Path, *more: str) -> Done:
    return await run([*argv, *more, "-sS"], env=plain_environment(home, {}))


async def test_the_three_lines_show_what_they_promise(tmp_path: Path) -> None:
    async with demo(tmp_path, "--admin", "off") as child:
        refused, admitted, streamed = to_paste(child)

        page = await paste(refused, tmp_path, "-w", "%{http_code}")
        assert page.out.endswith("403")
        assert "Your client does not have permission to get URL" in page.out

        echo = await paste(admitted, tmp_path)
        arrived = json.loads(echo.out)
        assert arrived["claims"]["aud"] in refused[-1]
        assert arrived["claims"]["email"].endswith(".iam.gserviceaccount.com")
        assert A_TOKEN.search(echo.out) is None

        stream = await paste(streamed, tmp_path)
        assert stream.out.splitlines() == [f"line {number} of 5" for number in range(1, 6)]


async def test_the_second_region_takes_over_when_the_first_one_ends(tmp_path: Path) -> None:
    async with demo(tmp_path, "--admin", "off", "--regions", "2") as child:
        first, second = (
            line.split()[-1].removeprefix("https://")
            for line in child.lines
            if "region    " in line or "region     " in line
        )
        before, after = to_paste(child)
        end, back = (
            shlex.split(line.strip()) for line in child.lines if line.strip().startswith("kill ")
        )

        def by(answer: Done) -> str:
            (line,) = (line for line in answer.out.splitlines() if "destination:" in line)
            assert answer.out.startswith("HTTP/1.1 200")
            return line.split()[-1]

        assert by(await paste(before, tmp_path)) == first
        await run(end, env=plain_environment(tmp_path, {}))
        for _ in range(4):
            assert by(await paste(after, tmp_path)) in (first, second)
        assert by(await paste(after, tmp_path)) == second
        await run(back, env=plain_environment(tmp_path, {}))
        async with asyncio.timeout(20):
            while by(await paste(after, tmp_path)) != first:
                pass


async def test_the_admin_listener_is_shown_where_there_is_one(tmp_path: Path) -> None:
    async with demo(tmp_path, "--admin", "127.0.0.1:0") as child:
        (line,) = (line for line in child.lines if line.strip().startswith("status and metrics"))
        url = line.split()[-1]
        async with sessions.session() as session, session.get(f"{url}/readiness") as answer:
            assert answer.status == 200


async def test_make_passes_arguments_on_to_the_demo() -> None:
    done = await run(
        ["make", "--dry-run", "--no-print-directory", "demo", "ARGS=--port 8091 --admin off"],
        # Not as a part of the make that runs the tests.
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        cwd=ROOT,
    )

    assert done.out.splitlines()[-1].endswith("cloud-run-auth-proxy demo --port 8091 --admin off")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_demo_with_success(tmp_path: Path, number: signal.Signals) -> None:
    async with demo(tmp_path, "--admin", "off") as child:
        child.signal(number)

        assert await child.exit_code() == 0
        assert child.lines[-1].startswith("Ctrl-C"), child.output


async def test_a_signal_ends_the_demo_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    async with demo(tmp_path, "--admin", "off") as child:
        streamed = to_paste(child)[2]
        streamed[-1] += "?lines=100000"
        curl = await asyncio.create_subprocess_exec(
            *streamed, "-sS", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        assert curl.stdout is not None
        assert await curl.stdout.readline() == b"line 1 of 100000\n"
        child.signal(signal.SIGINT)

        assert await child.exit_code() == 0
        assert await curl.wait() != 0, "half a stream must not look whole"


@pytest.mark.parametrize("taken", ["--port", "--admin"])
async def test_a_port_in_use_is_one_line_and_exit_69(taken: str) -> None:
    busy = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = busy.sockets[0].getsockname()[1]
    ports = {"--port": "0", "--admin": "off"}
    ports[taken] = f"127.0.0.1:{port}" if taken == "--admin" else str(port)

    done = await command("demo", *(part for pair in ports.items() for part in pair))

    busy.close()
    await busy.wait_closed()
    assert (done.code, done.out) == (69, "")
    assert len(done.err.splitlines()) == 1, done.err
    where = f"127.0.0.1:{port}" if taken == "--admin" else f"localhost:{port}"
    assert done.err.endswith(f"on {where}: Address already in use; {taken} takes another\n")
