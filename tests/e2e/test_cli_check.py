"""The installed command: what it prints, and its exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy import __version__, build
from proxy.emulator.faults import Answer, Fault, Held
from proxy.emulator.metadata import MetadataServer
from tests.fakes.child import Done
from tests.fakes.program import command

CONFIG = Path(__file__).parents[2] / "config"
COMMAND = shutil.which("cloud-run-auth-proxy", path=str(Path(sys.executable).parent))
# As it is installed, whatever lies in the current directory.
PYTHON_M = (sys.executable, "-P", "-m", "proxy")

ROUTES = "routes: {a: {upstream: 'http://127.0.0.1:3001'}}\n"


def run(
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    command: tuple[str, ...] | None = None,
    piped: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end in `cwd`, without variables of the proxy but `env`.

    `piped` is what it finds on its standard input.
    """
    if command is None:
        assert COMMAND is not None, "install the project first: pip install -e '.[dev]'"
        command = (COMMAND,)
    kept = {n: v for n, v in os.environ.items() if "AUTH_PROXY" not in n and n != "PORT"}
    return subprocess.run(
        [*command, *arguments],
        cwd=cwd,
        env={**kept, **(env or {})},
        capture_output=True,
        text=True,
        input=piped,
        timeout=30,
        check=False,
    )


def test_check_prints_the_routes_as_a_table(tmp_path: Path) -> None:
    done = run("check", "--config", str(CONFIG / "examples" / "by-path.yaml"), cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "ROUTE",
        "orders",
        "billing",
        "front",
    ]


def test_check_says_beside_the_table_what_has_no_effect(tmp_path: Path) -> None:
    (tmp_path / "proxy.yaml").write_text(ROUTES)
    done = run("check", "--config", "proxy.yaml", cwd=tmp_path, env={"PORT": "8080"})
    as_json = run(
        "check", "--config", "proxy.yaml", "--format", "json", cwd=tmp_path, env={"PORT": "8080"}
    )

    assert done.returncode == 0
    assert done.stderr == "ignored: PORT: listen alone says where; ${PORT} there takes it\n"
    assert "ignored" not in done.stdout
    assert [each["what"] for each in json.loads(as_json.stdout)["ignored"]] == ["PORT"]
    assert as_json.stderr == ""


def test_check_prints_every_problem_with_its_place_and_ends_with_64(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("lissten: 8080\nroutes:\n  a:\n    upstream: ${NONE}\n")

    done = run("check", "--config", "f.yaml", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.splitlines() == [
        "f.yaml:1:1: unknown key 'lissten'; did you mean 'listen'?",
        (
            "f.yaml:4:15: routes.a.upstream: the environment variable NONE is not set; "
            "set it, or give a default: ${NONE:-value}"
        ),
    ]


def test_check_prints_problems_as_json(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("routes: {a: {}}")

    done = run("check", "--config", "f.yaml", "--format", "json", cwd=tmp_path)

    assert done.returncode == 64
    (problem,) = json.loads(done.stdout)["problems"]
    assert (problem["file"], problem["line"], problem["column"]) == ("f.yaml", 1, 10)


SERVICES = """
routes:
  short: {path: /1, service: orders}
  region: {path: /2, service: orders.europe-west4}
  own: {path: /3, service: billing, audience: https://billing.example.com}
  none: {path: /4, service: search, auth: none}
  url: {path: /5, upstream: 'https://stock.example.com'}
"""


def destinations(done: Done) -> dict[str, tuple[str | None, str | None]]:
    """Return what `check` says of each route: its upstream, and its audience."""
    assert (done.code, done.err) == (0, "")
    routes = json.loads(done.out)["routes"]
    return {route["name"]: (route["upstream"], route["audience"]) for route in routes}


async def test_check_asks_the_metadata_server_for_what_a_service_leaves_out(
    metadata: MetadataServer,
) -> None:
    env = {**metadata.environ, "AUTH_PROXY_CONFIG_YAML": SERVICES}
    orders = "https://orders-123456789012.us-central1.run.app"
    europe = "https://orders-123456789012.europe-west4.run.app"
    stock = "https://stock.example.com"

    assert destinations(await command("check", "--format", "json", env=env)) == {
        "short": (orders, orders),
        "region": (europe, europe),
        "own": (
            "https://billing-123456789012.us-central1.run.app",
            "https://billing.example.com",
        ),
        "none": ("https://search-123456789012.us-central1.run.app", None),
        "url": (stock, stock),
    }
    # Whatever the routes, each fact once, and no token.
    assert [request.path.rpartition("/")[2] for request in metadata.requests] == [
        "numeric-project-id",
        "region",
    ]
    table = await command("check", env=env)
    assert orders in table.out
    assert "unresolved" not in table.out


@pytest.mark.parametrize("fault", ["held", "refused", "absent", "broken"])
async def test_check_goes_on_without_an_answer_of_the_metadata_server(
    metadata: MetadataServer, fault: str
) -> None:
    env = {**metadata.environ, "AUTH_PROXY_CONFIG_YAML": SERVICES}
    until = asyncio.Event()
    if fault == "refused":
        env["GCE_METADATA_HOST"] = "127.0.0.1:9"
    else:
        faults: dict[str, Fault] = {
            "held": Held(until),
            "absent": Answer(status=404),
            "broken": Answer(),
        }
        metadata.inject(faults[fault], times=99)

    # A server that holds its answer is given up by the command, not by the test.
    found = destinations(await command("check", "--format", "json", env=env))
    table = await command("check", env=env)
    until.set()

    assert found["short"] == found["region"] == found["none"] == (None, None)
    assert found["own"] == (None, "https://billing.example.com")
    assert found["url"][0] is not None
    assert table.code == 0
    assert "service orders (unresolved)" in table.out


async def test_check_asks_nobody_where_nothing_is_missing(metadata: MetadataServer) -> None:
    routes = "routes: {a: {service: orders.us-central1.42}}"
    env = {**metadata.environ, "AUTH_PROXY_CONFIG_YAML": routes}

    done = await command("check", "--format", "json", env=env)
    assert destinations(done)["a"][0] == "https://orders-42.us-central1.run.app"
    assert not metadata.requests


def test_the_module_is_the_same_command(tmp_path: Path) -> None:
    done = run("--version", cwd=CONFIG.parent, command=PYTHON_M)

    assert done.returncode == 0
    assert done.stdout == f"cloud-run-auth-proxy {__version__} ({build()})\n"
    assert run("--version", cwd=tmp_path).stdout == done.stdout


def test_the_schema_in_the_repository_is_what_the_command_prints(tmp_path: Path) -> None:
    done = run("schema", cwd=tmp_path)

    assert done.returncode == 0
    assert done.stdout == (CONFIG / "schema.json").read_text()


def test_a_configuration_can_stand_in_the_environment(tmp_path: Path) -> None:
    done = run("check", cwd=tmp_path, env={"AUTH_PROXY_CONFIG_YAML": ROUTES})
    assert (done.returncode, "127.0.0.1:3001" in done.stdout) == (0, True)

    done = run("check", cwd=tmp_path, env={"AUTH_PROXY_CONFIG_YAML": "routes: {}"})
    assert done.returncode == 64
    assert done.stderr == (
        "AUTH_PROXY_CONFIG_YAML:1:9: routes: needs at least one route; write NAME: {...}\n"
    )


def test_bytes_in_the_environment_that_are_no_text_are_a_problem(tmp_path: Path) -> None:
    assert COMMAND is not None
    done = subprocess.run(
        [COMMAND, "check"],
        cwd=tmp_path,
        env={b"AUTH_PROXY_CONFIG_YAML": b"routes: \xff", b"PATH": os.environb[b"PATH"]},
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 64
    assert done.stderr.startswith(b"AUTH_PROXY_CONFIG_YAML:1:9: the character U+DCFF ")


def test_the_file_in_the_usual_place_is_found(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "proxy.yaml").write_text(ROUTES)

    assert run("check", cwd=tmp_path).returncode == 0


def test_a_missing_file_is_one_line_and_69(tmp_path: Path) -> None:
    for arguments in (("check", "--config", "none.yaml"), ("--config", "none.yaml")):
        done = run(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (69, "")
        assert done.stderr == "none.yaml: cannot be read: No such file or directory\n"


def test_a_dash_is_standard_input(tmp_path: Path) -> None:
    named_by_flag = run("check", "--config", "-", cwd=tmp_path, piped=ROUTES)
    named_by_variable = run("check", cwd=tmp_path, env={"AUTH_PROXY_CONFIG": "-"}, piped=ROUTES)

    for done in (named_by_flag, named_by_variable):
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[1].split()[0] == "a"


def test_a_variable_that_standard_input_displaces_is_told(tmp_path: Path) -> None:
    env = {"AUTH_PROXY_CONFIG_YAML": ROUTES}
    done = run("check", "--config", "-", cwd=tmp_path, env=env, piped=ROUTES)

    assert "AUTH_PROXY_CONFIG_YAML: the configuration is standard input" in done.stderr


@pytest.mark.parametrize("command", ["check", "run", "doctor"])
def test_a_problem_on_standard_input_has_its_place(tmp_path: Path, command: str) -> None:
    done = run(command, "--config", "-", cwd=tmp_path, piped="routes:\n  a: {upstraem: b}\n")

    assert done.returncode == 64
    assert "-:2:7: " in done.stderr


def test_standard_input_that_cannot_be_read_is_one_line_and_69(tmp_path: Path) -> None:
    assert COMMAND is not None
    for_writing = ("sh", "-c", 'exec "$0" "$@" 0>file', COMMAND)
    done = run("check", "--config", "-", cwd=tmp_path, command=for_writing)

    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr == "-: cannot be read: Bad file descriptor\n"


def test_a_folder_in_the_environment_is_one_line_and_69(tmp_path: Path) -> None:
    done = run(cwd=tmp_path, env={"AUTH_PROXY_CONFIG": str(tmp_path)})

    assert done.returncode == 69
    assert done.stderr == f"{tmp_path}: cannot be read: Is a directory\n"


def test_an_unusable_configuration_is_never_served(tmp_path: Path) -> None:
    done = run("http://app.internal:3001", cwd=tmp_path)

    assert done.returncode == 64
    assert done.stderr == (
        "URL: an ID token is never sent over plain http to app.internal; "
        "write https://, or auth: none\n"
    )


def test_unusable_flags_are_one_line_and_64(tmp_path: Path) -> None:
    done = run("run", "--nope", cwd=tmp_path)

    assert done.returncode == 64
    assert len(done.stderr.splitlines()) == 1


def test_a_port_in_use_is_one_line_and_69(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("http://127.0.0.1:1", "--listen", str(port), "--admin", "off", cwd=tmp_path)

    assert done.returncode == 69
    (line,) = done.stderr.splitlines()
    assert str(port) in line
    assert "address already in use" in line.lower()


def test_a_bug_is_told_with_its_traceback_and_70(tmp_path: Path) -> None:
    # Python imports this module before the command: a bug from outside, in the real command.
    (tmp_path / "sitecustomize.py").write_text(
        "import proxy.config.show\n"
        "def table(config):\n    raise RuntimeError('never')\n"
        "proxy.config.show.table = table\n"
    )
    env = {"PYTHONPATH": str(tmp_path), "AUTH_PROXY_CONFIG_YAML": ROUTES}

    done = run("check", cwd=tmp_path, env=env)

    assert done.returncode == 70
    assert "RuntimeError: never" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("cloud-run-auth-proxy: this is a bug;")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_serves_until_it_is_asked_to_end(tmp_path: Path, number: signal.Signals) -> None:
    assert COMMAND is not None
    kept = {n: v for n, v in os.environ.items() if "AUTH_PROXY" not in n and n != "PORT"}
    flags = ["--listen", "127.0.0.1:0", "--admin", "off", "--log-format", "json"]
    with subprocess.Popen(
        [COMMAND, "http://127.0.0.1:1", *flags],
        cwd=tmp_path,
        env=kept,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            # The first line tells that the listeners are open.
            assert process.stdout.readline()
            process.send_signal(number)
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()


def test_a_reader_that_went_away_is_no_failure(tmp_path: Path) -> None:
    assert COMMAND is not None
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [COMMAND, "schema"],
            cwd=tmp_path,
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writer)

    assert (done.returncode, done.stderr) == (0, b"")


def test_check_imports_nothing_that_only_serving_needs() -> None:
    code = (
        "import sys, proxy.cli; code = proxy.cli.main(['check']); "
        "heavy = {'uvloop', 'aiohttp', 'h2', 'httptools', 'google.auth', 'ssl', 'difflib', "
        "'prometheus_client', 'asyncio', 'jsonschema'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )

    done = run(
        cwd=CONFIG.parent,
        env={"AUTH_PROXY_CONFIG_YAML": ROUTES},
        command=(sys.executable, "-c", code),
    )

    assert (done.returncode, done.stderr) == (0, "[]\n")
