"""The proxy and the emulator inside a user's own program and tests, by the name that is ours."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import cloud_run_auth_proxy
import proxy
from cloud_run_auth_proxy import AuthProxy, Background
from proxy.config.problems import ConfigError
from proxy.emulator import MetadataServer, ProtectedService
from tests.fakes.child import plain_environment, run

ROOT = Path(__file__).parents[2]
FORM = proxy.build()
PLUGIN = "cloud_run_auth_proxy.pytest_plugin"

USERS_TESTS = """
import http.server, json, threading, urllib.error, urllib.request

import pytest
from cloud_run_auth_proxy import emulator


def get(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


def test_the_proxy_adds_the_token(auth_proxy, cloud_run_service, metadata_server):
    assert get(f"{auth_proxy.url}/orders/1")["path"] == "/orders/1"
    assert [request.target for request in cloud_run_service.admitted] == ["/orders/1"]
    assert metadata_server.asked == {cloud_run_service.url: 1}


def test_no_token_no_answer(metadata_server, cloud_run_service, request):
    metadata_server.inject(emulator.Answer(status=404), times=100)
    proxy = request.getfixturevalue("auth_proxy")
    with pytest.raises(urllib.error.HTTPError) as failed:
        get(proxy.url)
    assert failed.value.code == 503
    failed.value.close()
    assert cloud_run_service.requests == []


class TestAnAppOfOnesOwn:
    @pytest.fixture
    def cloud_run_app(self):
        class App(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"app": "mine"}')

            def log_message(self, *_):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), App)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address
        server.shutdown()
        thread.join()
        server.server_close()

    def test_it_answers(self, auth_proxy):
        assert get(auth_proxy.url) == {"app": "mine"}
"""


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 (a URL of ours)
        return json.load(answer)


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # The compiled form is tested with a path that leaves the working directory out.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )


async def test_the_fixtures_are_all_that_a_users_test_needs(tmp_path: Path) -> None:
    (tmp_path / "test_orders.py").write_text(USERS_TESTS)

    # Without pytest-asyncio: the fixtures need no plugin but themselves.
    flags = ["-q", "-W", "error", "-p", "no:asyncio", "-p", PLUGIN]
    done = await run(
        [sys.executable, "-m", "pytest", *flags, "test_orders.py"],
        env=plain_environment(tmp_path, {}),
        cwd=tmp_path,
    )

    assert done.code == 0, done.out
    assert "3 passed" in done.out


async def test_the_test_of_the_docs_passes(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "emulator.md").read_text()
    (snippet,) = (
        block
        for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        if "auth_proxy," in block
    )
    (tmp_path / "test_orders.py").write_text(snippet)

    done = await run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", PLUGIN, "test_orders.py"],
        env=plain_environment(tmp_path, {}),
        cwd=tmp_path,
    )

    assert done.code == 0, done.out
    assert "1 passed" in done.out


def test_code_that_blocks_has_the_proxy_in_a_thread() -> None:
    with Background(MetadataServer()) as metadata:
        with (
            Background(ProtectedService(metadata.keys)) as service,
            AuthProxy(
                service.url,
                environ=metadata.environ,
                credentials="metadata",
                ca_file=str(service.ca_file),
            ) as proxy,
        ):
            assert get(f"{proxy.url}/x")["path"] == "/x"
            url = proxy.url
        with pytest.raises(urllib.error.URLError):
            get(url)
        with pytest.raises(RuntimeError, match="not been started"):
            print(proxy.url)


async def test_code_on_a_loop_has_it_on_that_loop(
    metadata: MetadataServer, service: ProtectedService
) -> None:
    proxy = AuthProxy(
        service.url,
        environ=metadata.environ,
        credentials="metadata",
        ca_file=str(service.ca_file),
        set_headers={"X-Price": "$1 ${HOME}"},
    )
    async with proxy, aiohttp.ClientSession() as session, session.get(proxy.url) as answer:
        assert answer.status == 200

    (request,) = service.admitted
    assert request.header("X-Price") == ["$1 ${HOME}"]


def test_what_no_configuration_could_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="upsteam"):
        AuthProxy("https://orders.example", environ={}, upsteam="x")


def test_what_fails_at_the_start_is_raised_and_leaves_no_thread() -> None:
    class Broken:
        async def start(self) -> None:
            raise OSError("no port")

        async def stop(self) -> None:
            await asyncio.sleep(0)

    background = Background(Broken())
    with pytest.raises(OSError, match="no port"), background:
        pass
    assert not background._thread.is_alive()


# --- the name


def test_every_name_that_is_promised_is_there() -> None:
    assert [
        name for name in cloud_run_auth_proxy.__all__ if not hasattr(cloud_run_auth_proxy, name)
    ] == []
    with pytest.raises(AttributeError):
        print(cloud_run_auth_proxy.nothing)


def test_pytest_pays_nothing_for_fixtures_that_nobody_uses(tmp_path: Path) -> None:
    code = f"import sys, {PLUGIN}; print([m for m in ('proxy', 'aiohttp') if m in sys.modules])"

    done = python(code, tmp_path)

    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_another_package_of_that_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "proxy").mkdir()
    (tmp_path / "proxy" / "__init__.py").touch()

    done = python("from cloud_run_auth_proxy import AuthProxy", tmp_path)

    assert done.returncode == 1
    assert f"leads to another package, {tmp_path}/proxy/__init__.py" in done.stderr


def test_the_distribution_carries_the_plugin_and_says_that_it_is_typed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

    assert project["project"]["entry-points"]["pytest11"] == {PLUGIN: PLUGIN}
    assert all((ROOT / package / "py.typed").exists() for package in packages)
    assert not any(each.startswith("pytest") for each in project["project"]["dependencies"])


def test_the_smoke_test_of_a_wheel_calls_through_the_form_that_is_installed() -> None:
    """Each wheel is tried by it, on systems that run nothing else of ours."""
    smoke = [sys.executable, str(ROOT / "tools" / "smoke.py")]
    called, refused = (
        subprocess.run([*smoke, form], capture_output=True, text=True, check=False)
        for form in (FORM, "another")
    )

    assert (called.returncode, called.stderr) == (0, "")
    assert re.fullmatch(rf"cloud-run-auth-proxy \S+ \({FORM}\): \d+ bytes\n", called.stdout)
    assert refused.returncode == 1
