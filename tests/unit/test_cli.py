"""The command without a process of its own; the installed one is in tests/e2e."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from proxy import __version__, build, cli
from proxy.complaints import PLATFORMS
from proxy.config.model import Address, Config
from proxy.config.overrides import NAMES
from proxy.config.problems import ConfigError
from proxy.config.schema import schema

NO_AUDIENCE = "AUDIENCE|ROUTE: an audience is one line of text, such as https://billing.example.com"
COMMANDS = "run, check, doctor, token, wait, shutdown, emulator, demo, schema, completion"

Reload = Callable[[], Config] | None


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start in an empty folder, without variables of the proxy."""
    for name in os.environ:
        if name.startswith("AUTH_PROXY_") or name in PLATFORMS:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **functions: object) -> None:
    """Put a module with only these functions in the place of the module `name`."""
    module = ModuleType(name)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Config, Reload]]:
    """Stand in for the process, which is tests/e2e's; what it was given is appended here."""
    calls: list[tuple[Config, Reload]] = []

    def serve(config: Config, reload: Reload) -> int:
        calls.append((config, reload))
        return 0

    stand_in(monkeypatch, "proxy.process", serve=serve)
    return calls


def fails_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make serving raise `error`."""

    def serve(config: Config, reload: Reload) -> int:
        del config, reload
        raise error

    stand_in(monkeypatch, "proxy.process", serve=serve)


# run


def test_run_is_the_default_command(served: list[tuple[Config, Reload]]) -> None:
    assert cli.main(["https://a.example"]) == 0
    assert cli.main(["run", "https://a.example"]) == 0

    first, second = (config for config, _ in served)
    assert first == second
    assert str(first.routes[0].first.upstream) == "https://a.example"


def test_run_takes_its_arguments_from_the_command_line(
    served: list[tuple[Config, Reload]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["cloud-run-auth-proxy", "https://a.example"])

    assert cli.main() == 0
    assert len(served) == 1


def test_every_flag_of_run_reaches_the_configuration(
    served: list[tuple[Config, Reload]],
) -> None:
    flags = {
        "--listen": "127.0.0.1:7001",
        "--audience": "me",
        "--admin": "7002",
        "--auth": "id_token",
        "--header": "Authorization",
        "--workers": "2",
        "--log-format": "json",
        "--log-level": "debug",
    }
    assert {f"--{name.replace('_', '-')}" for name in NAMES} == set(flags)

    assert cli.main(["https://a.example", *(word for flag in flags.items() for word in flag)]) == 0

    config, reload = served[0]
    only = config.routes[0]
    assert config.listeners == (Address("127.0.0.1", 7001),)
    assert only.first.audience == "me"
    assert config.admin is not None
    assert config.admin.listen.port == 7002
    assert only.header.value == "Authorization"
    assert (config.workers, config.log.format, config.log.level) == (2, "json", "debug")
    assert reload is None


def test_every_flag_of_run_has_its_variable(
    served: list[tuple[Config, Reload]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_PROXY_LISTEN", "7001")
    monkeypatch.setenv("AUTH_PROXY_ADMIN", "off")
    monkeypatch.setenv("AUTH_PROXY_WORKERS", "2")

    assert cli.main(["https://a.example", "--workers", "3"]) == 0

    config, _ = served[0]
    assert config.listeners == (Address("localhost", 7001),)
    assert (config.admin, config.workers) == (None, 3)


def test_a_file_can_be_read_again(nowhere: Path, served: list[tuple[Config, Reload]]) -> None:
    path = nowhere / "f.yaml"
    path.write_text("routes: {a: {service: b}}")
    assert cli.main(["--config", "f.yaml", "--workers", "2"]) == 0
    _, reload = served[0]
    assert reload is not None

    path.write_text("routes: {c: {service: b}}")

    again = reload()
    assert (again.routes[0].name, again.workers) == ("c", 2)
    path.write_text("routes: {}")
    with pytest.raises(ConfigError):
        reload()


def test_the_file_in_the_usual_place_is_found(
    nowhere: Path, served: list[tuple[Config, Reload]]
) -> None:
    (nowhere / "config").mkdir()
    (nowhere / "config" / "proxy.yaml").write_text("routes: {a: {service: b}}")

    assert cli.main([]) == 0
    assert served[0][0].source == "config/proxy.yaml"


# Exit codes


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["ftp://x"], "URL: 'ftp' cannot be called; write https:// or http://"),
        (
            ["https://a", "--config", "f"],
            "URL: stands beside --config; give one of them",
        ),
        (
            ["https://a", "--workers", "0"],
            "--workers: 0 is too few; write 1 or more",
        ),
        (
            ["https://a", "--nope"],
            (
                "cloud-run-auth-proxy run: unrecognized arguments: --nope; "
                "see cloud-run-auth-proxy run --help"
            ),
        ),
        (
            ["https://a", "--work", "1"],
            (
                "cloud-run-auth-proxy run: unrecognized arguments: --work 1; "
                "see cloud-run-auth-proxy run --help"
            ),
        ),
        (
            ["--listen"],
            (
                "cloud-run-auth-proxy run: argument --listen: expected one argument; "
                "see cloud-run-auth-proxy run --help"
            ),
        ),
        (
            ["check", "--format", "xml"],
            (
                "cloud-run-auth-proxy check: argument --format: invalid choice: 'xml' "
                "(choose from 'text', 'json'); see cloud-run-auth-proxy check --help"
            ),
        ),
        (
            ["chek"],
            (
                f"chek: is neither a command ({COMMANDS}) nor a URL such as "
                "https://HOST; did you mean 'check'?"
            ),
        ),
        (
            ["orders.example.com"],
            (
                f"orders.example.com: is neither a command ({COMMANDS}) "
                "nor a URL such as https://HOST"
            ),
        ),
        ([""], f"'': is neither a command ({COMMANDS}) nor a URL such as https://HOST"),
        (["--config", ""], "--config: is not the name of a file; write a path"),
        (["check", "--config="], "--config: is not the name of a file; write a path"),
        (["token", "a", "--config", ""], "--config: is not the name of a file; write a path"),
        (["token", ""], "AUDIENCE|ROUTE: is empty; write what the token is for"),
        (["token", " "], "AUDIENCE|ROUTE: is empty; write what the token is for"),
        (["token", "a\nb"], NO_AUDIENCE),
        (["token", "\udcff"], NO_AUDIENCE),
        (
            ["--config", "f", "check"],
            "check: a command comes first: cloud-run-auth-proxy check ...",
        ),
        (["demo", "--port", "99999"], "--port: '99999' is not a port; write 0 to 65535"),
        (
            ["demo", "--admin", "x"],
            (
                "--admin: 'x' is not an address; "
                "write localhost:8081, 8081, [::1]:8081 or unix:/run/proxy.sock"
            ),
        ),
        (
            [],
            (
                "no configuration: give a URL, --config FILE, AUTH_PROXY_CONFIG or "
                "AUTH_PROXY_CONFIG_YAML, or write config/proxy.yaml or "
                "/etc/cloud-run-auth-proxy/config.yaml"
            ),
        ),
    ],
)
def test_what_cannot_be_used_is_one_line_and_64(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = cli.main(arguments)
    except SystemExit as exit_:  # argparse ends by itself.
        code = exit_.code

    out, err = capsys.readouterr()
    # Python 3.12 writes the choices of argparse without quotes.
    assert err.replace("(choose from text, json)", "(choose from 'text', 'json')") == f"{line}\n"
    assert (code, out) == (64, "")


def test_an_unreadable_file_is_one_line_and_69(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", "none.yaml"]) == 69
    assert capsys.readouterr().err == "none.yaml: cannot be read: No such file or directory\n"


def test_what_the_machine_refuses_is_one_line_and_69(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(monkeypatch, OSError(errno.EADDRINUSE, "address already in use"))

    assert cli.main(["https://a.example"]) == 69
    assert capsys.readouterr().err == "cloud-run-auth-proxy: address already in use\n"


def test_a_bug_is_a_traceback_and_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(monkeypatch, RuntimeError("never"))

    assert cli.main(["https://a.example"]) == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2] == "RuntimeError: never"
    assert lines[-1] == (
        "cloud-run-auth-proxy: this is a bug; please report it with the traceback above"
    )


MISTAKES = "routes: {a: {service: b, pth: /x}, c: {path: /c, service: d, auht: none}}"
PLACES = ["f.yaml:1:26", "f.yaml:1:62"]

Refuse = Callable[[list[str], dict[str, str]], list[str]]


@pytest.fixture
def refused(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refuse:
    """Start with `MISTAKES`, flags and variables; the value is what it says, by lines."""

    def refuse(flags: list[str], env: dict[str, str]) -> list[str]:
        (nowhere / "f.yaml").write_text(MISTAKES)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        assert cli.main(["--config", "f.yaml", *flags]) == 64
        return capsys.readouterr().err.splitlines()

    return refuse


@pytest.mark.parametrize(
    ("flags", "env"),
    [
        (["--log-format", "json"], {}),
        (["--log-format=json"], {}),
        ([], {"AUTH_PROXY_LOG_FORMAT": "json"}),
        (["--log-format", "json"], {"AUTH_PROXY_LOG_FORMAT": "text"}),
        *(([], {name: "orders"}) for name in PLATFORMS),
    ],
)
def test_where_the_log_is_json_a_refused_start_is_as_well(
    refused: Refuse, flags: list[str], env: dict[str, str]
) -> None:
    lines = [json.loads(line) for line in refused(flags, env)]

    assert [line["severity"] for line in lines] == ["ERROR", "ERROR"]
    assert [line["message"].partition(": ")[0] for line in lines] == PLACES


@pytest.mark.parametrize(
    ("flags", "env"),
    [
        ([], {}),
        (["--log-format", "text"], {"K_SERVICE": "orders"}),
        ([], {"K_SERVICE": "orders", "AUTH_PROXY_LOG_FORMAT": "text"}),
    ],
)
def test_elsewhere_a_refused_start_is_lines_for_a_person(
    refused: Refuse, flags: list[str], env: dict[str, str]
) -> None:
    assert [line.partition(": ")[0] for line in refused(flags, env)] == PLACES


def test_a_person_at_a_terminal_reads_lines_on_any_platform(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (nowhere / "f.yaml").write_text(MISTAKES)
    monkeypatch.setenv("K_SERVICE", "orders")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    assert cli.main(["--config", "f.yaml"]) == 64
    assert capsys.readouterr().err.startswith("f.yaml:1:26: ")


@pytest.mark.parametrize("command", [[], ["run"]])
def test_an_unusable_flag_is_json_as_well_and_64(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("K_SERVICE", "orders")
    with pytest.raises(SystemExit) as caught:
        cli.main([*command, "--lisen", "8081"])

    assert caught.value.code == 64
    (line,) = capsys.readouterr().err.splitlines()
    assert "unrecognized arguments: --lisen" in json.loads(line)["message"]


def test_other_commands_speak_to_a_person_everywhere(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (nowhere / "f.yaml").write_text(MISTAKES)
    monkeypatch.setenv("K_SERVICE", "orders")

    assert cli.main(["check", "--config", "f.yaml"]) == 64
    assert capsys.readouterr().err.startswith("f.yaml:1:26: ")


def test_a_bug_is_one_json_line_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(monkeypatch, RuntimeError("never"))

    assert cli.main(["https://a.example", "--log-format", "json"]) == 70
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert record["message"].startswith("cloud-run-auth-proxy: this is a bug")
    assert record["stack_trace"].endswith("RuntimeError: never")


def test_an_interrupt_before_serving_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    fails_with(monkeypatch, KeyboardInterrupt())

    assert cli.main(["https://a.example"]) == 130


# check, schema, version, help


def test_check_shows_the_routes(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (nowhere / "f.yaml").write_text("routes: {a: {service: b}}")

    assert cli.main(["check", "--config", "f.yaml"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["ROUTE", "a"]
    assert "service b (unresolved)" in out
    assert err == ""


def test_check_shows_the_routes_as_json(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (nowhere / "f.yaml").write_text("routes: {a: {service: b}}")

    assert cli.main(["check", "--config", "f.yaml", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["routes"][0]["service"] == "b"


def test_check_tells_every_problem(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (nowhere / "f.yaml").write_text("workrs: 1\nroutes: {a: {service: B}}")

    assert cli.main(["check", "--config", "f.yaml"]) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(": ")[0] for line in err.splitlines()] == ["f.yaml:1:1", "f.yaml:2:23"]


def test_check_tells_every_problem_as_json(
    nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (nowhere / "f.yaml").write_text("workrs: 1\nroutes: {a: {service: b}}")

    assert cli.main(["check", "--config", "f.yaml", "--format", "json"]) == 64
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "problems": [
            {
                "file": "f.yaml",
                "line": 1,
                "column": 1,
                "message": "unknown key 'workrs'; did you mean 'workers'?",
            }
        ]
    }


def test_check_reads_what_run_would(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTH_PROXY_CONFIG_YAML", "routes: {a: {service: b}}")
    monkeypatch.setenv("AUTH_PROXY_LISTEN", "unix:/run/x")

    assert cli.main(["check"]) == 0
    assert "unix:/run/x" in capsys.readouterr().out


def test_schema_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["--version"])

    assert raised.value.code == 0
    assert capsys.readouterr().out == f"cloud-run-auth-proxy {__version__} ({build()})\n"


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_the_commands(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main([flag])

    assert raised.value.code == 0
    out = capsys.readouterr().out
    for command in cli.COMMANDS.values():
        assert f"  {command.name} " in out
        assert command.help in out


def test_the_help_of_run_names_every_flag_with_its_variable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])

    out = " ".join(capsys.readouterr().out.split())
    for name in ("config", *NAMES):
        assert f"--{name.replace('_', '-')} " in out
        assert f"[AUTH_PROXY_{name.upper()}]" in out


def test_demo_gets_its_port_and_admin_address(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, Address | None, int, Address | None]] = []

    def demo(port: int, admin: Address | None, regions: int, app: Address | None) -> int:
        given.append((port, admin, regions, app))
        return 0

    stand_in(monkeypatch, "proxy.demo", main=demo)

    assert cli.main(["demo"]) == 0
    assert cli.main(["demo", "--port", "0", "--admin", "off"]) == 0
    assert cli.main(["demo", "--regions", "2", "--app", "http://localhost:3001"]) == 0
    assert given == [
        (8081, Address("localhost", 9090), 1, None),
        (0, None, 1, None),
        (8081, Address("localhost", 9090), 2, Address("localhost", 3001)),
    ]


def test_demo_ends_no_region_where_there_are_no_signals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "SWITCHES", ())
    assert cli.main(["demo", "--regions", "2"]) == 64
    assert capsys.readouterr().err == (
        "--regions: a region is ended by a signal, which this system lacks\n"
    )


@pytest.mark.parametrize("columns", ["", "0", "40", "100", "wide"])
def test_help_is_as_wide_as_argparse_would_make_it(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    printed = []
    for _ in range(2):
        with pytest.raises(SystemExit):
            cli.main(["doctor", "--help"])
        printed.append(capsys.readouterr().out)
        monkeypatch.setattr(cli, "_Formatter", argparse.HelpFormatter)

    assert printed[0] == printed[1]
