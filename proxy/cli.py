"""The command: flags in, an exit code out. Nothing heavy is imported before a command needs it.

Exit codes are those of sysexits(3): 64 for unusable flags or configuration, 69 for what the
machine refuses (a port in use, an unreadable file), 70 for a bug.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from proxy import PROGRAM, __version__, build
from proxy.complaints import Complaints, format_of, let_go
from proxy.config.addresses import address
from proxy.config.addresses import app as app_address
from proxy.config.ignored import FILE_VARIABLE
from proxy.config.loading import find
from proxy.config.misplaced import looks_like, shown
from proxy.config.model import Address, Admin, Config
from proxy.config.overrides import gather
from proxy.config.problems import ConfigError, ConfigUnreadable, Problem, nearest
from proxy.config.values import METHOD, audience, period, scope
from proxy.frozen import frozen
from proxy.system import SWITCHES

USAGE, UNAVAILABLE, SOFTWARE = 64, 69, 70
SERVICES_WITHIN = 1.0
"""Seconds that `check` waits for the metadata server, which most machines cannot reach."""
EMULATED = ("localhost:8443", "localhost:8988")
"""Where the emulated service and its metadata server listen; 8080, 8081 and 9090 have owners."""
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it.

SHELLS = ("bash", "zsh", "fish")
"""For which proxy/shell has a script that completes command lines."""

_UNKNOWN_COLUMNS = 80


@frozen
class Command:
    """One command: `flags` adds its flags to a parser, `run` returns the exit code."""

    name: str
    help: str
    flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class _Formatter(argparse.HelpFormatter):
    """Help as wide as the terminal.

    argparse makes one for each flag of each start, and would import shutil to learn the width.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size().columns or _UNKNOWN_COLUMNS
    except (OSError, ValueError):  # Standard output is no terminal.
        return _UNKNOWN_COLUMNS


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and exit code 64."""

    complaints: Complaints | None = None

    def error(self, message: str) -> NoReturn:
        complaints = self.complaints or Complaints()
        complaints.tell(f"{self.prog}: {_told(message)}; see {self.prog} --help")
        self.exit(USAGE)


def _told(message: str) -> str:
    """Return argparse's `message` up to the first word that may be a secret."""
    # As in: argument --port: invalid int value: 'WORD'
    about = re.match(r"[^:]*: (invalid [a-z ]+: )?", message)
    before = about[0] if about else ""
    if what := looks_like(message.removeprefix(before).strip("'")):
        return f"{before}[{what}, not shown]"
    words: list[str] = []
    for word in message.split(" "):
        if what := looks_like(word.strip("'")):
            return " ".join([*words, f"[{what}, not shown]"])
        words.append(word)
    return " ".join(words)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code."""
    _have_standard_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in {"-h", "--help", "--version"}:
        _overview().parse_args(arguments[:1])
    name = arguments.pop(0) if arguments and arguments[0] in COMMANDS else "run"
    command = COMMANDS[name]
    # The other commands have no log.
    complaints = Complaints(format_of(arguments, os.environ) if name == "run" else "text")
    parser = _Parser(
        prog=f"{PROGRAM} {name}",
        description=command.help,
        allow_abbrev=False,
        formatter_class=_Formatter,
    )
    parser.complaints = complaints
    command.flags(parser)
    return _guarded(command, parser.parse_args(arguments), complaints)


def _have_standard_streams() -> None:
    """Put the null device where a standard stream is closed.

    The next socket would get the free number: what a library prints would go to a caller, and
    libuv aborts where it closes one of these.  Python has no stream object then.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # open(2): the lowest number that is free, which is this one. Programs that are
            # started later, such as workers, inherit it like any standard stream.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 (its order)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 (a descriptor, for good)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A pipe of Windows' has a code page: a letter that is not in it must not end a command.
        sys.stdout.reconfigure(errors="backslashreplace")


def _guarded(command: Command, flags: argparse.Namespace, complaints: Complaints) -> int:
    """Turn whatever ends a command into its exit code, and one line for a person."""
    try:
        code = command.run(flags)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 (the outermost place: a bug becomes exit code 70)
        return _explain(error, complaints)
    return code


def _explain(error: Exception, complaints: Complaints) -> int:
    match error:
        case ConfigError():
            complaints.tell(*map(str, error.problems))
            return USAGE
        case BrokenPipeError():
            let_go(sys.stdout)  # `schema | head` has read enough.
            return 0
        case ConfigUnreadable():
            complaints.tell(str(error))
            return UNAVAILABLE
        case OSError():
            complaints.tell(f"{PROGRAM}: {error.strerror or error}")
            return UNAVAILABLE
        case _:
            complaints.tell_of_bug(error)
            return SOFTWARE


def _overview() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {each.name:{width}}  {each.help}" for each in COMMANDS.values())
    parser = _Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [COMMAND] [FLAGS]",
        description="A sidecar that adds Google's tokens to calls between services.",
        epilog=f"commands:\n{listed}\n\nCOMMAND --help lists the flags of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"{PROGRAM} {__version__} ({build()})"
    parser.add_argument("--version", action="version", version=version)
    return parser


# Flags


def _config_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the configuration, - for standard input [AUTH_PROXY_CONFIG]",
    )


def _format_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")


_ADMIN = str(Admin().listen)

# Values are read where those of the file are, so that they are refused in the same words.
_OVERRIDES = (
    ("listen", "ADDR", "where to listen, or a list with commas"),
    ("audience", "AUD", "what ID tokens are minted for"),
    ("admin", "ADDR|off", "the admin listener"),
    ("auth", "auto|id_token|access_token|none", "which token requests carry"),
    ("header", "NAME", "the header that carries the token"),
    ("workers", "N", "processes that serve"),
    ("log-format", "auto|json|text", "how the log is written"),
    ("log-level", "debug|info|warning|error", "the least severe record that is written"),
)


def _run_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", nargs="?", help="serve one route to it, without file")
    _config_flag(parser)
    for name, metavar, text in _OVERRIDES:
        variable = f"AUTH_PROXY_{name.upper().replace('-', '_')}"
        parser.add_argument(f"--{name}", metavar=metavar, help=f"{text} [{variable}]")


def _check_flags(parser: argparse.ArgumentParser) -> None:
    _config_flag(parser)
    _format_flag(parser)


def _doctor_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "routes",
        metavar="ROUTE",
        nargs="*",
        help="names of routes, all if none is given; or a URL, without file",
    )
    _config_flag(parser)
    _format_flag(parser)
    parser.add_argument("--path", metavar="/x", default="/", help="what to ask for; default: /")
    parser.add_argument("--method", metavar="GET", default="GET", help="default: GET")


def _token_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("word", metavar="AUDIENCE|ROUTE", nargs="?", help="what the token is for")
    _config_flag(parser)
    parser.add_argument("--access", action="store_true", help="print an access token")
    parser.add_argument(
        "--scopes", metavar="A,B", help="of the access token; default: the route's, or all of Cloud"
    )
    parser.add_argument("--claims", action="store_true", help="print what it says, as JSON")


def _wait_flags(parser: argparse.ArgumentParser) -> None:
    _admin_flag(parser)
    parser.add_argument(
        "--timeout", metavar="TIME", default="30s", help="how long to wait, or off; default: 30s"
    )


def _admin_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--admin",
        metavar="ADDR",
        help=f"the proxy's admin listener [AUTH_PROXY_ADMIN]; default: {_ADMIN}",
    )


def _app_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--app", metavar="ADDR|URL", help="what the emulated service runs; default: an echo"
    )


def _emulator_flags(parser: argparse.ArgumentParser) -> None:
    _app_flag(parser)
    front, metadata = EMULATED
    parser.add_argument(
        "--listen", metavar="ADDR", default=front, help=f"the service's; default: {front}"
    )
    parser.add_argument(
        "--metadata",
        metavar="ADDR",
        default=metadata,
        help=f"the metadata server's; default: {metadata}",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="a proxy's, whose audiences the service admits as well"
    )


def _demo_flags(parser: argparse.ArgumentParser) -> None:
    _app_flag(parser)
    parser.add_argument("--port", type=int, default=8081, help="of the proxy; default: 8081")
    parser.add_argument(
        "--admin",
        metavar="ADDR|off",
        default=_ADMIN,
        help=f"the admin listener; default: {_ADMIN}",
    )
    parser.add_argument(
        "--regions", type=int, choices=(1, 2), default=1, help="of the service; default: 1"
    )


def _completion_flags(parser: argparse.ArgumentParser) -> None:
    names = "|".join(SHELLS)
    parser.add_argument("shell", metavar=names, choices=SHELLS, help="which one reads it")


def _no_flags(parser: argparse.ArgumentParser) -> None:
    del parser


# Commands


def _run(flags: argparse.Namespace) -> int:
    if flags.url is not None and "://" not in flags.url:
        raise _no_command(flags.url)
    source = find(flags.url, flags.config, os.environ)
    overrides = gather(vars(flags), os.environ)
    # Importing makes objects that stay: to look at them again and again takes 8 ms. `serve` has the
    # collector go on.
    gc.disable()
    try:
        config = source.read(os.environ, overrides)
        from proxy.process import serve  # noqa: PLC0415 (the libraries that serve take most of the start)

        def reload() -> Config:
            return source.read(os.environ, overrides)

        # A URL has nothing to be read again.
        return serve(config, None if flags.url else reload)
    finally:
        gc.enable()


def _no_command(word: str) -> ConfigError:
    """Report a word that was meant as a command."""
    if word in COMMANDS:
        return _refusal(word, f"a command comes first: {PROGRAM} {word} ...")
    said = f"is neither a command ({', '.join(COMMANDS)}) nor a URL such as https://HOST"
    # An empty word is what an unset variable of a shell leaves.
    return _refusal(shown(word) or "''", said + nearest(word, COMMANDS))


def _check(flags: argparse.Namespace) -> int:
    from proxy.config import show  # noqa: PLC0415 (for this command only)

    try:
        # With the environment's overrides: what is checked is what would run.
        config = find(None, flags.config, os.environ).read(os.environ, gather({}, os.environ))
    except ConfigError as error:
        if flags.format == "text":
            raise
        _print_json(show.problems_as_json(error.problems))
        return USAGE
    if not all(route.is_resolved for route in config.routes):
        config = _with_services(config)
    if flags.format == "json":
        _print_json(show.routes_as_json(config))
    else:
        sys.stdout.write(show.table(config))
        Complaints().tell(*(f"ignored: {each}" for each in config.ignored))
    return 0


def _with_services(config: Config) -> Config:
    """Ask the metadata server for the parts that services leave out."""
    from proxy.doctor import running  # noqa: PLC0415 (most configurations name no service)
    from proxy.services import resolved_within  # noqa: PLC0415 (as above)

    return running.run(resolved_within(SERVICES_WITHIN, config, os.environ))


def _doctor(flags: argparse.Namespace) -> int:
    method = flags.method.upper()
    if not re.fullmatch(METHOD, method) or method in {"CONNECT", "TRACE"}:
        raise _refusal("--method", "is the method of a request, such as GET or POST")
    if not flags.path.startswith("/"):
        raise _refusal("--path", "begins with a slash, such as /healthz")
    # A URL stands for a configuration of its own, as it does for `run`.
    url = flags.routes[0] if len(flags.routes) == 1 and "://" in flags.routes[0] else None
    names = [] if url else flags.routes
    text = flags.format == "text"
    try:
        config = find(url, flags.config, os.environ).read(os.environ, gather({}, os.environ))
        from proxy.doctor.command import main as doctor  # noqa: PLC0415 (aiohttp takes 150 ms)

        return doctor(config, names, method=method, path=flags.path, as_text=text)
    except ConfigError as error:
        if text:
            raise
        from proxy.config import show  # noqa: PLC0415 (for this command only)

        _print_json(show.problems_as_json(error.problems))
        return USAGE


def _token(flags: argparse.Namespace) -> int:
    scopes = _scopes(flags)
    if flags.word is None and scopes is None:
        raise _refusal("AUDIENCE|ROUTE", "is missing; write what the token is for, or --access")
    if flags.word is not None and not flags.word.strip():
        # A variable that is not set, in most cases.
        raise _refusal("AUDIENCE|ROUTE", "is empty; write what the token is for")
    try:
        audience(flags.word or "default")
    except ValueError as error:
        raise _refusal("AUDIENCE|ROUTE", str(error)) from None
    try:
        source = find(None, flags.config, os.environ)
    except ConfigError:
        if flags.config is not None or os.environ.get(FILE_VARIABLE):
            raise
        config = None  # An audience needs none.
    else:
        config = source.read(os.environ, gather({}, os.environ))
    from proxy.doctor.token import main as token  # noqa: PLC0415 (for this command only)

    return token(flags.word, config, claims=flags.claims, scopes=scopes)


def _scopes(flags: argparse.Namespace) -> tuple[str, ...] | None:
    """Return the scopes that were asked for, none for the default; None for an ID token."""
    if flags.scopes is None:
        return () if flags.access else None
    if not flags.access:
        raise _refusal("--scopes", "are those of an access token; add --access")
    try:
        return tuple(map(scope, flags.scopes.split(",")))
    except ValueError as error:
        raise _refusal("--scopes", str(error)) from None


def _wait(flags: argparse.Namespace) -> int:
    admin = _admin_address(flags)
    try:
        timeout = period(flags.timeout)
    except ValueError as error:
        raise _refusal("--timeout", str(error)) from None
    from proxy.remote import wait  # noqa: PLC0415 (for this command only)

    return wait(admin, timeout)


def _shutdown(flags: argparse.Namespace) -> int:
    admin = _admin_address(flags)
    from proxy.remote import shutdown  # noqa: PLC0415 (for this command only)

    return shutdown(admin)


def _admin_address(flags: argparse.Namespace) -> Address:
    """Return the address of a running proxy's admin listener."""
    variable = "AUTH_PROXY_ADMIN"
    label = "--admin" if flags.admin is not None else variable
    text = flags.admin if flags.admin is not None else os.environ.get(variable) or _ADMIN
    if text == "off":
        raise _refusal(label, "off leaves nothing to ask; write where the admin listener is")
    found = _flag_address(label, text)
    if not found.path and not found.port:
        raise _refusal(label, f"{text} is no place to ask; write the port that the proxy logged")
    return found


def _schema(flags: argparse.Namespace) -> int:
    del flags
    from proxy.config.schema import schema  # noqa: PLC0415 (for this command only)

    _print_json(schema())
    return 0


def _completion(flags: argparse.Namespace) -> int:
    from importlib import resources  # noqa: PLC0415 (for this command only)

    script = resources.files("proxy").joinpath("shell", flags.shell)
    sys.stdout.write(script.read_text(encoding="utf-8"))
    return 0


def _emulator(flags: argparse.Namespace) -> int:
    front, metadata = (
        _tcp_address("--listen", flags.listen),
        _tcp_address("--metadata", flags.metadata),
    )
    app = _app(flags)
    config = None
    if flags.config is not None:
        config = find(None, flags.config, os.environ).read(os.environ, {})
    from proxy.emulate import main as emulate  # noqa: PLC0415 (aiohttp takes 150 ms)

    return emulate(front, metadata, app, config)


def _tcp_address(flag: str, text: str) -> Address:
    found = _flag_address(flag, text)
    if found.path:
        raise _refusal(flag, "a URL leads here; write one such as localhost:8443")
    return found


def _app(flags: argparse.Namespace) -> Address | None:
    """Return where the app of the emulated service listens, None for the one that echoes."""
    if flags.app is None:
        return None
    try:
        return app_address(flags.app)
    except ValueError as error:
        raise _refusal("--app", str(error)) from None


def _demo(flags: argparse.Namespace) -> int:
    port = _flag_address("--port", f":{flags.port}").port
    app = _app(flags)
    admin = None if flags.admin == "off" else _flag_address("--admin", flags.admin)
    from proxy.demo import main as demo  # noqa: PLC0415 (the emulator and a whole proxy)

    if flags.regions > 1 and not SWITCHES:
        raise _refusal("--regions", "a region is ended by a signal, which this system lacks")
    return demo(port, admin, flags.regions, app)


def _flag_address(flag: str, text: str) -> Address:
    try:
        return address(text)
    except ValueError as error:
        raise _refusal(flag, str(error)) from None


def _refusal(what: str, message: str) -> ConfigError:
    return ConfigError([Problem(what, 0, 0, message)])


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


COMMANDS = {
    command.name: command
    for command in (
        Command("run", "serve; what happens without a command", _run_flags, _run),
        Command("check", "validate the configuration and show its routes", _check_flags, _check),
        Command("doctor", "examine routes, and explain what is wrong", _doctor_flags, _doctor),
        Command("token", "print an ID token, or an access token", _token_flags, _token),
        Command("wait", "return once a running proxy has started", _wait_flags, _wait),
        Command("shutdown", "ask a running proxy to drain and exit", _admin_flag, _shutdown),
        Command("emulator", "emulate Cloud Run before an app", _emulator_flags, _emulator),
        Command("demo", "try everything on this machine, without Google", _demo_flags, _demo),
        Command("schema", "print the JSON Schema of the configuration", _no_flags, _schema),
        Command(
            "completion",
            "print a script with which a shell completes command lines",
            _completion_flags,
            _completion,
        ),
    )
}
