"""A secret in the place of a file's name is shown nowhere: no answer, log, page or command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fakes import sessions
from tests.fakes.program import SHOWN, Program, command

CANARY = "4f6c1d0e-hunter2"
KEY_FILE = json.dumps(
    {
        "type": "service_account",
        "private_key_id": CANARY,
        "private_key": f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n",
    }
)
PRETTY = json.dumps(json.loads(KEY_FILE), indent=2)
PEM = f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n"
TOKEN = f"eyJhbGciOiJSUzI1NiJ9.{CANARY}.c2ln"
INLINE = f"routes: {{a: {{upstream: 'https://{CANARY}'}}}}"
SEVERAL_LINES = f"routes:\n  a:\n    upstream: https://{CANARY}\n"
ROUTE = "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nroutes: {a: {upstream: 'https://localhost:1'"
DOCUMENT = ROUTE + "}}"


@pytest.mark.parametrize("secret", [KEY_FILE, PEM], ids=["key_file", "pem"])
async def test_application_default_credentials(secret: str) -> None:
    env = {"GOOGLE_APPLICATION_CREDENTIALS": secret}
    async with Program(DOCUMENT, env=env) as proxy:
        async with sessions.session() as session, session.get(proxy.url) as response:
            body = await response.text()
            assert response.status == 503
        shown = [(await proxy.admin_answer(path, accept)).decode() for path, accept in SHOWN]
    assert "credentials file [a" in body
    assert "not like the name of a file" in body
    assert "GOOGLE_APPLICATION_CREDENTIALS" in body
    assert "credentials file [a" in shown[-2]
    assert CANARY not in "".join([body, proxy.output, *shown])


@pytest.mark.parametrize("secret", [PRETTY, TOKEN], ids=["pretty", "token"])
@pytest.mark.parametrize(
    "arguments",
    [("doctor",), ("doctor", "--format", "json"), ("token", "https://orders.example"), ("check",)],
    ids=" ".join,
)
async def test_commands_with_such_credentials(arguments: tuple[str, ...], secret: str) -> None:
    env = {"AUTH_PROXY_CONFIG_YAML": DOCUMENT, "GOOGLE_APPLICATION_CREDENTIALS": secret}
    done = await command(*arguments, env=env)

    said = " ".join((done.out + done.err).split())
    assert CANARY not in said
    assert done.code == (0 if arguments == ("check",) else 1)
    assert done.code == 0 or "not like the name of a file" in said


@pytest.mark.parametrize("secret", [KEY_FILE, TOKEN], ids=["key_file", "token"])
@pytest.mark.parametrize("name", ["run", "check", "doctor"])
@pytest.mark.parametrize(
    "key",
    [
        "ca_file: '${SECRET}'",
        "credentials: {token_file: '${SECRET}'}",
        "credentials: {service_account_file: '${SECRET}'}",
    ],
)
async def test_a_key_of_the_configuration(key: str, name: str, secret: str) -> None:
    env = {"AUTH_PROXY_CONFIG_YAML": f"{ROUTE}, {key}}}}}", "SECRET": secret}
    done = await command(name, env=env)

    assert (done.code, done.out) == (64, "")
    assert CANARY not in done.err
    (line,) = done.err.splitlines()
    assert line.startswith("AUTH_PROXY_CONFIG_YAML:3:")
    assert "_file: looks like a" in line


@pytest.mark.parametrize(
    "secret", [PRETTY, INLINE, SEVERAL_LINES], ids=["pretty", "inline", "several_lines"]
)
@pytest.mark.parametrize("name", ["run", "check", "doctor", "token"])
async def test_the_configuration_itself(name: str, secret: str) -> None:
    word = ("https://orders.example",) if name == "token" else ()
    by_variable = await command(name, *word, env={"AUTH_PROXY_CONFIG": secret})
    by_flag = await command(name, *word, f"--config={secret}")

    for done, label in ((by_variable, "AUTH_PROXY_CONFIG"), (by_flag, "--config")):
        assert (done.code, done.out) == (64, "")
        assert CANARY not in done.err
        (line,) = done.err.splitlines()
        assert line.startswith(f"{label}: looks like a")
        assert "AUTH_PROXY_CONFIG_YAML" in line


@pytest.mark.parametrize("secret", [PRETTY, TOKEN], ids=["pretty", "token"])
@pytest.mark.parametrize(
    "arguments",
    [
        *((), ("run",), ("check",), ("check", "--nope"), ("doctor",), ("schema",)),
        *(("wait", "--admin"), ("demo", "--port"), ("check", "--format"), ("doctor", "a")),
    ],
)
async def test_a_word_of_the_command_line(arguments: tuple[str, ...], secret: str) -> None:
    done = await command(*arguments, secret, env={"AUTH_PROXY_CONFIG_YAML": DOCUMENT})

    assert done.code == 64
    assert CANARY not in done.out + done.err


async def test_certificates_for_googles_apis(tmp_path: Path) -> None:
    login = tmp_path / "login.json"
    login.write_text(
        json.dumps(
            {
                "type": "authorized_user",
                "client_id": "a",
                "client_secret": "b",
                "refresh_token": "c",
            }
        )
    )
    env = {"GOOGLE_APPLICATION_CREDENTIALS": str(login), "REQUESTS_CA_BUNDLE": PEM}
    done = await command("token", "https://orders.example", env=env)

    assert done.code == 1
    assert "REQUESTS_CA_BUNDLE" in done.err
    assert CANARY not in done.err
