"""What shells complete and man(1) shows is what the program takes."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from proxy import PROGRAM, cli
from proxy.cli import COMMANDS, SHELLS
from tools.commands import FOLDER, files, parser

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}


def flags(command: str) -> set[str]:
    """Return every flag that the program's own parser of a command takes."""
    own = argparse.ArgumentParser()
    COMMANDS[command].flags(own)
    return set(own._option_string_actions)


def run(*argv: str | Path, at: Path | None = None) -> str:
    """Run a program, which must be content; or skip the test where it is not installed."""
    program = shutil.which(str(argv[0]), path=ENVIRONMENT["PATH"])
    if program is None:
        pytest.skip(f"{argv[0]} is not installed")
    done = subprocess.run(
        [program, *argv[1:]],
        cwd=at,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_shtab_cloud_run_auth_proxy
printf '%s\\n' "${COMPREPLY[@]}"
"""


def bash(*words: str, at: Path | None = None) -> set[str]:
    """Return what bash offers for the last of the words behind the program's name."""
    return set(run("bash", "-c", BASH, "bash", FOLDER / "bash", PROGRAM, *words, at=at).split())


def fish(line: str, at: Path | None = None) -> set[str]:
    """Return what fish offers at the end of a command line."""
    script = f"source {FOLDER / 'fish'}; complete -C '{PROGRAM} {line}'"
    offered = run("fish", "--no-config", "-c", script, at=at)
    return {each.split("\t")[0] for each in offered.splitlines()}


@pytest.mark.parametrize("file", list(files()), ids=lambda file: file.name)
def test_what_is_kept_is_made_of_the_flags(file: Path) -> None:
    assert file.read_text() == files()[file], "make manual writes it anew"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_the_script_of_a_shell(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["completion", shell]) == 0
    assert capsys.readouterr().out == (FOLDER / shell).read_text()


def test_the_one_parser_takes_what_those_of_the_commands_take() -> None:
    """`run` is what happens without a command, so its flags may stand first."""
    assert set(parser()._option_string_actions) == {*flags("run"), "--version"}


# bash


def test_bash_offers_the_commands() -> None:
    assert bash("") == set(COMMANDS)
    assert bash("sh") == {"shutdown"}


@pytest.mark.parametrize("command", COMMANDS)
def test_bash_offers_every_flag_of_a_command(command: str) -> None:
    assert bash(command, "-") == flags(command)


def test_bash_offers_flags_where_the_command_is_left_out() -> None:
    assert bash("--") == {flag for flag in flags("run") if flag.startswith("--")} | {"--version"}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["check", "--format", ""], {"text", "json"}),
        (["run", "--auth", ""], {"auto", "id_token", "access_token", "none"}),
        (["--log-level", ""], {"debug", "info", "warning", "error"}),
        (["completion", ""], set(SHELLS)),
        (["run", "--config", "my-p"], {"my-proxy.yaml"}),
        (["--config", "my-p"], {"my-proxy.yaml"}),
    ],
)
def test_bash_offers_values(words: list[str], offered: set[str], tmp_path: Path) -> None:
    (tmp_path / "my-proxy.yaml").touch()

    assert bash(*words, at=tmp_path) == offered


# fish and zsh


def test_fish_offers_commands_flags_and_values(tmp_path: Path) -> None:
    (tmp_path / "my-proxy.yaml").touch()

    assert fish("") == set(COMMANDS)
    assert fish("doctor --") == {flag for flag in flags("doctor") if flag.startswith("--")}
    assert fish("check --format ") == {"text", "json"}
    assert fish("check --config my-p", at=tmp_path) == {"my-proxy.yaml"}


@pytest.mark.parametrize("how", ["source {}", 'eval "$(<{})"'])
def test_zsh_learns_of_the_function_and_its_flags(how: str) -> None:
    told = run(
        "zsh",
        "-f",
        "-c",
        f"autoload -Uz compinit; compinit -u -D; {how.format(FOLDER / 'zsh')}; "
        f"print $_comps[{PROGRAM}]; print -l $_shtab_cloud_run_auth_proxy_doctor_options",
    )

    assert told.startswith("_shtab_cloud_run_auth_proxy\n")
    assert set(re.findall(r"--[a-z]+", told)) == {
        flag for flag in flags("doctor") if flag.startswith("--")
    }


# man


def test_the_manual_has_no_fault_and_shows_every_command_with_its_flags() -> None:
    shown = run("groff", "-man", "-Tascii", "-P-c", "-ww", FOLDER / f"{PROGRAM}.1")

    plain = re.sub(".\b", "", shown)  # What is bold is printed twice.
    sections = re.split(r"^   (?=[a-z]+)", plain.partition("COMMANDS\n")[2], flags=re.MULTILINE)
    assert [section.split()[0] for section in sections[1:]] == list(COMMANDS)
    for command, section in zip(COMMANDS, sections[1:], strict=True):
        told = set(re.findall(r"^ +(--[a-z-]+)", section.partition("EXIT STATUS")[0], re.MULTILINE))
        assert told == flags(command) - {"-h", "--help"}
