"""What a shell and man(1) know of the program, made of its flags: ``make manual`` writes it.

The scripts that complete a command line come from shtab, which the program itself does not need.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import shtab

from proxy import PROGRAM, __version__
from proxy.cli import COMMANDS, SHELLS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "proxy" / "shell"
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]

DESCRIPTION = """\
A sidecar that adds a Google-signed ID token to each request, so that a service on Cloud Run can
call a private one as if it were open.  It listens on localhost:8081, chooses the route by host and
path, and forwards over TLS.  Without a token nothing is sent."""

EXIT_STATUS = (
    ("0", "Done; of run: asked to end, and drained."),
    ("1", "Of doctor, token, wait and shutdown: it has failed."),
    ("64", "Flags or configuration cannot be used; one line per problem on standard error."),
    ("69", "A port in use, or an unreadable file."),
    ("70", "A bug."),
    ("128 + signal", "A second signal ended it at once."),
)

ENVIRONMENT = (
    ("AUTH_PROXY_CONFIG", "The name of the configuration file."),
    ("AUTH_PROXY_CONFIG_YAML", "A whole configuration, where there is no file."),
    (
        "HTTPS_PROXY, ALL_PROXY, NO_PROXY",
        "An HTTP proxy on the way to upstreams, as curl reads them.",
    ),
    (
        "GOOGLE_APPLICATION_CREDENTIALS",
        "A credentials file; else those of gcloud or of the machine.",
    ),
)

FILES = (
    ("config/proxy.yaml", "Tried first where no configuration is named."),
    ("/etc/cloud-run-auth-proxy/config.yaml", "Tried then."),
)

EXAMPLES = (
    ("https://orders-123456789.europe-west1.run.app", "Serve one service, without a file."),
    ("check --config proxy.yaml", "Show the routes of a file, or every mistake in it."),
    ("doctor --config proxy.yaml orders", "Find out why calls of a route fail."),
    ("demo", "Try everything on this machine, without Google."),
)


class _Flags(argparse.ArgumentParser):
    """A parser without positional arguments."""

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        if names and not names[0].startswith("-"):
            return argparse.Action([], "")
        return super().add_argument(*names, **settings)


def parser() -> argparse.ArgumentParser:
    """Return one parser of all commands; the program has one for each, to start faster."""
    whole = _Flags(prog=PROGRAM, add_help=False)
    whole.add_argument("-h", "--help", action="help", help="list the commands")
    whole.add_argument("--version", action="version", version="", help="print the version")
    # A command line without a command runs.
    COMMANDS["run"].flags(whole)
    commands = whole.add_subparsers(parser_class=argparse.ArgumentParser)
    for each in COMMANDS.values():
        each.flags(command := commands.add_parser(each.name, help=each.help))
        _describe_values(command)
    _describe_values(whole)
    return whole


def _describe_values(command: argparse.ArgumentParser) -> None:
    """Say which values are files, and which are words of a short list."""
    for action in command._actions:  # noqa: SLF001 (argparse has no other list of them)
        metavar = str(action.metavar or "")
        if metavar == "FILE":
            action.complete = shtab.FILE  # type: ignore[attr-defined] # shtab reads it
        elif "|" in metavar and metavar.islower():
            action.choices = metavar.split("|")


def completion(shell: str) -> str:
    """Return the script that completes command lines in a `shell`."""
    script = shtab.complete(parser(), shell).rstrip() + "\n"
    # shtab registers the function within `eval` alone; people also write `source <(... zsh)`.
    return script.replace("$zsh_eval_context[-1] == eval", "$zsh_eval_context[-1] != loadautofunc")


# The page of man(1)


def manual() -> str:
    """Return the page for man(1), in the macros of man(7)."""
    parts = [
        f'.TH {_text(PROGRAM.upper())} 1 "" "{_text(PROGRAM)} {__version__}" "User Commands"',
        ".SH NAME",
        f"{_text(PROGRAM)} \\- add Google's ID tokens to calls between services",
        ".SH SYNOPSIS",
        f".B {_text(PROGRAM)}",
        r"[\fICOMMAND\fR] [\fIFLAGS\fR]",
        ".SH DESCRIPTION",
        _text(DESCRIPTION),
        ".PP",
        rf"Without a command it runs.  {_bold('COMMAND --help')} lists the flags of a command.",
        ".SH COMMANDS",
    ]
    for each in COMMANDS.values():
        command = argparse.ArgumentParser(add_help=False)
        each.flags(command)
        actions = command._actions  # noqa: SLF001 (as above)
        words = [_word(action) for action in actions if not action.option_strings]
        parts += [f".SS {' '.join([_text(each.name), *words])}", _text(_sentence(each.help))]
        parts += _list((_flag(action), _help(action)) for action in actions)
    for title, rows in (
        ("EXIT STATUS", EXIT_STATUS),
        ("ENVIRONMENT", ENVIRONMENT),
        ("FILES", FILES),
    ):
        parts += [f".SH {title}", *_list((_bold(name), text) for name, text in rows)]
    parts.append(".SH EXAMPLES")
    parts += _list((_bold(f"{PROGRAM} {words}"), text) for words, text in EXAMPLES)
    parts += [
        ".SH SEE ALSO",
        _text(f"Reference of the configuration, and all else: {URLS['Source']}"),
    ]
    return "\n".join(parts) + "\n"


def _list(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [line for tag, text in rows for line in (".TP", tag, _text(text))]


def _word(action: argparse.Action) -> str:
    match action.nargs:
        case "*":
            return f"[{_value(action)}...]"
        case "?":
            return f"[{_value(action)}]"
        case _:
            return _value(action)


def _flag(action: argparse.Action) -> str:
    names = [_bold(name) for name in action.option_strings[-1:]]
    return " ".join([*names, *([] if action.nargs == 0 else [_value(action)])])


def _value(action: argparse.Action) -> str:
    value = action.metavar or "|".join(map(str, action.choices or [action.dest.upper()]))
    return rf"\fI{_text(str(value))}\fR"


def _help(action: argparse.Action) -> str:
    return _sentence(action.help or "")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _bold(text: str) -> str:
    return rf"\fB{_text(text)}\fR"


def _text(text: str) -> str:
    r"""Return `text` as roff shows it: ``\`` and ``-`` as they are, no line that is a request."""
    plain = text.replace("\\", r"\e").replace("-", r"\-")
    return "\n".join(rf"\&{line}" if line[:1] in {".", "'"} else line for line in plain.split("\n"))


def files() -> dict[Path, str]:
    """Return what each file of proxy/shell should hold."""
    scripts = {FOLDER / shell: completion(shell) for shell in SHELLS}
    return {**scripts, FOLDER / f"{PROGRAM}.1": manual()}


if __name__ == "__main__":
    for file, content in files().items():
        file.write_text(content, encoding="utf-8")
        sys.stdout.write(f"{file.relative_to(ROOT)}\n")
