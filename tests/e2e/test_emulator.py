"""The command `emulator`, and the demo before an app of one's own, as a user meets them."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from proxy.emulator.serving import LOOPBACK, Serving
from tests.fakes import sessions
from tests.fakes.child import Child, plain_environment, run
from tests.fakes.program import COMMAND, Program, command, free_ports

PARTS = 3
GOOGLE = "Google Frontend"


async def own_app(request: web.Request) -> web.StreamResponse:
    """Answer with what came, in parts as the caller asks for them, or over a WebSocket."""
    if request.path == "/ws":
        socket_ = web.WebSocketResponse()
        await socket_.prepare(request)
        async for message in socket_:
            await socket_.send_str(f"you said {message.data}")
        return socket_
    if request.path == "/parts":
        response = web.StreamResponse()
        await response.prepare(request)
        # Each part follows one of the caller's: a front that collects would wait for ever.
        for _ in range(PARTS):
            await response.write(await request.content.readany())
        return response
    body = await request.read()
    return web.json_response({"app": "mine", "path": request.path_qs, "bytes": len(body)})


@pytest.fixture
async def app() -> AsyncIterator[str]:
    """The address of an app of the user's own."""
    serving = Serving(own_app)
    await serving.start()
    yield f"{LOOPBACK}:{serving.port}"
    await serving.stop()


class Emulator:
    """What a running `emulator` has printed."""

    def __init__(self, child: Child) -> None:
        self.child = child
        exports = [shlex.split(line) for line in child.lines if line.startswith("export ")]
        self.environ = dict(pair.split("=", 1) for _, pair in exports)
        (line,) = (line for line in child.lines if "a private service" in line)
        self.url = line.split()[-1]
        self.trust = ssl.create_default_context(cafile=self.environ["SSL_CERT_FILE"])

    async def token(self, audience: str) -> str:
        """Ask the emulated metadata server for an ID token."""
        url = f"http://{self.environ['GCE_METADATA_HOST']}/computeMetadata/v1"
        url += f"/instance/service-accounts/default/identity?audience={audience}"
        flavor = {"Metadata-Flavor": "Google"}
        async with aiohttp.ClientSession() as session, session.get(url, headers=flavor) as answer:
            return await answer.text()

    async def get(self, path: str, audience: str | None = None) -> tuple[int, str, str]:
        """Call the service itself; return status, server and body."""
        headers = {}
        if audience is not None:
            headers["Authorization"] = f"Bearer {await self.token(audience)}"
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}{path}", headers=headers, ssl=self.trust) as answer,
        ):
            return answer.status, answer.headers.get("Server", ""), await answer.text()


@asynccontextmanager
async def running(home: Path, name: str, *flags: str) -> AsyncIterator[Child]:
    child = Child([COMMAND, name, *flags], env=plain_environment(home, {}), cwd=home)
    await child.spawn()
    try:
        await child.line(lambda line: "Ctrl-C ends" in line)
        yield child
        child.signal(signal.SIGTERM)
        assert await child.exit_code() == 0, child.output
    finally:
        await child.kill()


@asynccontextmanager
async def emulator(home: Path, *flags: str) -> AsyncIterator[Emulator]:
    """Run the command on free ports; it ends with SIGTERM and 0."""
    ports = ("--listen", "localhost:0", "--metadata", "localhost:0")
    async with running(home, "emulator", *ports, *flags) as child:
        yield Emulator(child)


async def calls_pass(url: str, **more: Any) -> None:
    """Assert that the app's answers, streams and WebSocket come through at `url`."""
    turns = asyncio.Semaphore(1)

    async def parts() -> AsyncIterator[bytes]:
        for number in range(PARTS):
            await turns.acquire()
            yield b"part %d" % number

    async with sessions.session() as session:
        async with session.put(f"{url}/a%2Fb?q=%20", data=b"12345", **more) as answer:
            assert await answer.json() == {"app": "mine", "path": "/a%2Fb?q=%20", "bytes": 5}
        async with session.post(f"{url}/parts", data=parts(), **more) as answer:
            for number in range(PARTS):
                assert await answer.content.readany() == b"part %d" % number
                turns.release()
        async with session.ws_connect(f"{url}/ws", **more) as connection:
            await connection.send_str("hello")
            assert await connection.receive_str() == "you said hello"


async def test_an_app_of_ones_own_is_reached_with_a_token_alone(tmp_path: Path, app: str) -> None:
    async with emulator(tmp_path, "--app", app) as front:
        status, server, page = await front.get("/x?secret=1")
        assert (status, server) == (403, GOOGLE)
        assert "Your client does not have permission to get URL" in page
        assert (await front.get("/x", "https://another.example"))[:2] == (401, GOOGLE)
        status, server, body = await front.get("/x", front.url)
        assert (status, json.loads(body)["app"]) == (200, "mine")
        assert server != GOOGLE

        bearer = {"Authorization": f"Bearer {await front.token(front.url)}"}
        await calls_pass(front.url, headers=bearer, ssl=front.trust)

        assert "GET /x: 403, no_token" in front.child.lines
        assert "GET /x: 401, wrong_audience" in front.child.lines


async def test_what_it_prints_leads_the_proxy_there(tmp_path: Path, app: str) -> None:
    async with emulator(tmp_path, "--app", f"http://{app}") as front:
        ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        async with Program(None, front.url, *ports, env=front.environ) as program:
            await calls_pass(program.url)


async def test_a_shell_can_read_what_it_prints(tmp_path: Path) -> None:
    async with emulator(tmp_path) as front:
        script = "\n".join([*front.child.lines, 'echo "$GCE_METADATA_HOST"'])
        shell = await asyncio.create_subprocess_exec(
            "sh", "-eu", "-c", script, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await shell.communicate()

        assert out.decode().strip() == front.environ["GCE_METADATA_HOST"]


async def test_without_an_app_it_echoes(tmp_path: Path) -> None:
    async with emulator(tmp_path) as front:
        status, _, body = await front.get("/hello", front.url)

        assert (status, json.loads(body)["path"]) == (200, "/hello")


async def test_an_app_may_listen_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    runner = web.ServerRunner(web.Server(own_app))  # type: ignore[arg-type]  # (aiohttp's own base)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    async with emulator(tmp_path, "--app", f"unix:{path}") as front:
        assert (await front.get("/x", front.url))[0] == 200
    await runner.cleanup()


async def test_an_app_that_does_not_run_yet_is_503_and_said(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    async with emulator(tmp_path, "--app", str(port)) as front:
        assert (await front.get("/", front.url))[:2] == (503, GOOGLE)

        await front.child.line(lambda line: f"localhost:{port} takes no connection" in line)


async def test_the_audiences_of_a_proxys_routes_are_admitted(tmp_path: Path) -> None:
    (tmp_path / "proxy.yaml").write_text(
        "routes:\n"
        "  orders: {path: /orders, upstream: 'https://orders.example', audience: of-orders}\n"
        "  stock: {path: /stock, service: stock}\n"
    )
    stock = "https://stock-123456789012.us-central1.run.app"
    async with emulator(tmp_path, "--config", "proxy.yaml") as front:
        assert (await front.get("/", "of-orders"))[0] == 200
        assert (await front.get("/", stock))[0] == 200
        assert (await front.get("/", front.url))[0] == 200
        assert (await front.get("/", "https://orders.example"))[0] == 401
        async with (
            aiohttp.ClientSession() as session,
            session.get(front.url, ssl=front.trust, server_hostname="orders.example") as answer,
        ):
            assert answer.status == 403


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_in_the_middle_of_a_call(
    tmp_path: Path, app: str, number: signal.Signals
) -> None:
    async with emulator(tmp_path, "--app", app) as front:
        bearer = {"Authorization": f"Bearer {await front.token(front.url)}"}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{front.url}/ws", headers=bearer, ssl=front.trust) as connection,
        ):
            await connection.send_str("hello")
            assert await connection.receive_str() == "you said hello"
            front.child.signal(number)

            assert await front.child.exit_code() == 0
            assert "Traceback" not in front.child.output


@pytest.mark.parametrize("taken", ["--listen", "--metadata"])
async def test_a_port_in_use_is_one_line_with_the_flag_and_69(taken: str) -> None:
    with socket.create_server((LOOPBACK, 0)) as busy:
        where = f"127.0.0.1:{busy.getsockname()[1]}"
        ports = {"--listen": "127.0.0.1:0", "--metadata": "127.0.0.1:0", taken: where}
        done = await command("emulator", *(part for pair in ports.items() for part in pair))

    assert (done.code, done.out) == (69, "")
    refused = f"cannot listen on {where}: Address already in use; {taken} takes another"
    assert done.err.splitlines() == [f"cloud-run-auth-proxy: {refused}"]


@pytest.mark.parametrize("name", ["emulator", "demo"])
@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("https://localhost:3001", "plain HTTP"),
        ("http://localhost:3001/base", "without a path"),
        ("localhost:0", "no place to call"),
        ("nonsense", "is not an address"),
        ("http://user:pass@localhost:3001", "no user or password"),
    ],
)
async def test_an_app_that_cannot_be_called_is_refused(name: str, app: str, said: str) -> None:
    done = await command(name, "--app", app)

    assert (done.code, done.out) == (64, "")
    assert done.err.startswith("--app: "), done.err
    assert said in done.err
    assert "pass@" not in done.err


async def test_the_line_that_it_prints_is_refused_without_a_token(tmp_path: Path) -> None:
    async with emulator(tmp_path) as front:
        (line,) = (line for line in front.child.lines if line.startswith("#   curl --cacert"))
        argv = [*shlex.split(line.removeprefix("#")), "-sS", "-w", "%{http_code}"]
        page = await run(argv, env=plain_environment(tmp_path, {}))

        assert page.out.endswith("403")


@pytest.mark.parametrize("flag", ["--listen", "--metadata"])
async def test_what_urls_lead_to_is_no_unix_socket(flag: str) -> None:
    done = await command("emulator", flag, "unix:/run/emulator.sock")

    assert (done.code, done.out) == (64, "")
    assert done.err == f"{flag}: a URL leads here; write one such as localhost:8443\n"


async def test_the_recipe_of_the_docs_works_as_it_stands(tmp_path: Path, app: str) -> None:
    """On free ports; what follows the recipe calls, and ends what it has started."""
    front, metadata, listen, admin = free_ports(4)
    (recipe,) = (block for block in shell_blocks() if "emulator.env" in block)
    recipe = recipe.replace(
        "--app 3001", f"--app {app} --listen localhost:{front} --metadata localhost:{metadata}"
    ).replace("localhost:8443", f"localhost:{front}")
    recipe = recipe.replace("emulator.env &\n", "emulator.env 2> errors & started=$!\n")
    script = f"""{recipe.rstrip()} --listen 127.0.0.1:{listen} --admin 127.0.0.1:{admin} 2> log &
        started="$started $!"
        trap 'kill $started; wait' EXIT
        cloud-run-auth-proxy wait --admin 127.0.0.1:{admin}
        curl --silent --show-error --fail http://127.0.0.1:{listen}/orders"""

    done = await run(["sh", "-eu", "-c", script], env=plain_environment(tmp_path, {}), cwd=tmp_path)

    assert (done.code, done.err) == (0, ""), done
    assert json.loads(done.out)["path"] == "/orders"


def shell_blocks() -> list[str]:
    page = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()
    return re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


async def test_the_demo_serves_an_app_of_ones_own(tmp_path: Path, app: str) -> None:
    flags = ("--port", "0", "--admin", "off", "--app", f"http://{app}")
    async with running(tmp_path, "demo", *flags) as child:
        (line,) = (line for line in child.lines if "the proxy   " in line)
        (behind,) = (line for line in child.lines if "before your app" in line)

        assert behind.split()[-1] == app
        await calls_pass(line.split()[-1])


async def test_the_demo_says_that_an_app_does_not_run(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    flags = ("--port", "0", "--admin", "off", "--app", str(port))
    async with running(tmp_path, "demo", *flags) as child:
        (line,) = (line for line in child.lines if "the proxy   " in line)
        async with sessions.session() as session, session.get(line.split()[-1]) as answer:
            assert answer.status == 503

        await child.line(lambda line: f"localhost:{port} takes no connection" in line)
