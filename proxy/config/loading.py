"""The ways in: a URL, a file, standard input, or a variable; out comes a whole valid `Config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any, BinaryIO

from proxy.config.addresses import address
from proxy.config.checks import check_together
from proxy.config.files import encoding_of, stamp
from proxy.config.ignored import (
    FILE_VARIABLE,
    STANDARD_INPUT,
    TEXT_VARIABLE,
    in_document,
    in_environment,
)
from proxy.config.keys import DEFAULTS, ROUTE, TOP
from proxy.config.kinds import Reader, expect_mapping
from proxy.config.misplaced import no_file_name
from proxy.config.model import Admin, Config, Ignored
from proxy.config.overrides import Override, apply, flag_name
from proxy.config.problems import ConfigError, ConfigUnreadable, Place, Problem
from proxy.config.resolve import Written, make_route
from proxy.config.tree import Entry, MapNode, ScalarNode
from proxy.frozen import frozen
from proxy.system import HAS_WORKERS

PLACES = (Path("config/proxy.yaml"), Path("/etc/cloud-run-auth-proxy/config.yaml"))
"""The files that are tried, in this order, where none is named."""


@frozen
class ConfigSource:
    """A URL, a text, a file, or what came on standard input; SIGHUP reads it again.

    Standard input can be read once only: what came is kept, and with SIGHUP the files that it
    names are read again.
    """

    url: str | None = None
    text: str | None = field(default=None, repr=False)
    file: Path | None = None
    piped: bytes | None = field(default=None, repr=False)

    def read(self, env: Mapping[str, str], overrides: Mapping[str, Override]) -> Config:
        """Return the configuration; raises `ConfigError` and `ConfigUnreadable`."""
        if self.url is not None:
            config = from_url(self.url, env, **overrides)
            ignored = in_environment(env, config.source, "", config.routes)
            return replace(config, ignored=(*config.ignored, *ignored))
        if self.text is not None:
            return parse(self.text, source=TEXT_VARIABLE, env=env, overrides=overrides)
        if self.piped is not None:
            text = _decode(self.piped, STANDARD_INPUT)
            return parse(text, source=STANDARD_INPUT, env=env, overrides=overrides)
        return load(self.file or PLACES[0], env, overrides)


def find(
    url: str | None,
    config: str | None,
    env: Mapping[str, str],
    places: tuple[Path, ...] = PLACES,
) -> ConfigSource:
    """Return the source that the command line or else the environment names, or that exists.

    Raises `ConfigError` where there is none, or two on the command line, and `ConfigUnreadable`
    where standard input is named and cannot be read.
    """
    if url is not None and config is not None:
        raise _refusal("URL", "stands beside --config; give one of them")
    if config == "":
        # An unset variable of a shell leaves this; it must not select another file.
        raise _refusal("--config", "is not the name of a file; write a path")
    if url is not None:
        return ConfigSource(url=url)
    named = config or env.get(FILE_VARIABLE)
    if named == STANDARD_INPUT:
        return ConfigSource(piped=_standard_input())
    if named:
        return ConfigSource(file=_path(named, "--config" if config else FILE_VARIABLE))
    if text := env.get(TEXT_VARIABLE):
        return ConfigSource(text=text)
    for place in places:
        # Whatever stands there counts: a folder or a broken link is reported, not passed over.
        if place.exists() or place.is_symlink():
            return ConfigSource(file=place)
    raise _refusal(
        "no configuration",
        f"give a URL, --config FILE, {FILE_VARIABLE} or {TEXT_VARIABLE}, "
        f"or write {' or '.join(map(str, places))}",
    )


def _standard_input() -> bytes:
    try:
        with open(0, "rb", closefd=False) as file:
            return _all_of(file)
    except OSError as error:
        raise ConfigUnreadable(Path(STANDARD_INPUT), error) from error


def _path(named: str, label: str) -> Path:
    """Return the file's path; refuse what is no name, without showing it."""
    path, what = Path(named), no_file_name(named)
    # A file may have any name: what can be opened is none of the other things.
    if what and not _exists(path):
        raise _refusal(
            label,
            f"looks like {what}, not like the name of a file; "
            f"write a path, or put a whole document into {TEXT_VARIABLE}",
        )
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # Longer than a name can be.
        return False


def _refusal(what: str, message: str) -> ConfigError:
    return ConfigError([Problem(what, 0, 0, message)])


_LARGEST = 4 << 20  # Bytes; 10,000 routes take about one MiB.
_NO_OVERRIDES: Mapping[str, Override] = {}
_NO_VARIABLES: Mapping[str, str] = {}
_DEFAULT_LISTEN = (address(TOP.named("listen").default),)


def parse(
    text: str,
    *,
    source: str,
    env: Mapping[str, str],
    directory: Path | None = None,
    overrides: Mapping[str, Override] = _NO_OVERRIDES,
) -> Config:
    """Return the configuration that `text` says.

    `source` names the text in messages; `env` holds the variables for ``${VAR}``; relative file
    names are taken from `directory`, by default the working directory.  Files that the text
    names are opened to see whether they can be read.  Raises `ConfigError` with every problem.
    """
    from proxy.config.compose import read_tree  # noqa: PLC0415 (`from_url` starts without pyyaml)

    reader = Reader(env, directory or _here())
    root = expect_mapping(read_tree(text, source, reader.problems), "", reader)
    if root is None:
        raise ConfigError(reader.problems)
    config = _config(apply(root, overrides, reader), source, reader)
    ignored = in_environment(env, source, text, config.routes)
    return replace(config, ignored=(*config.ignored, *ignored))


def load(
    path: Path, env: Mapping[str, str], overrides: Mapping[str, Override] = _NO_OVERRIDES
) -> Config:
    """Return the configuration in the file `path`; see `parse`.

    Raises `ConfigUnreadable` where the file itself cannot be read.
    """
    before = stamp(path)
    try:
        with path.open("rb") as file:
            data = _all_of(file)
    except OSError as error:
        raise ConfigUnreadable(path, error) from error
    config = parse(
        _decode(data, str(path)),
        source=str(path),
        env=env,
        directory=path.absolute().parent,
        overrides=overrides,
    )
    return replace(config, files={path: before, **config.files})


def _all_of(file: BinaryIO) -> bytes:
    """Return what `file` holds; raises `OSError`, also where that is too much."""
    data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise OSError(f"larger than {_LARGEST >> 20} MiB")
    return data


def _here() -> Path:
    """Return the working directory; if that was deleted, a path in which nothing is found."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path()


def _decode(data: bytes, source: str) -> str:
    try:
        return data.decode(encoding_of(data))
    except UnicodeDecodeError as error:
        if error.encoding.startswith("utf-16"):
            message = "is no whole UTF-16; save it as UTF-8"
            raise ConfigError([Problem(source, 1, 1, message)]) from None
        # What follows a byte order mark.
        data = error.object
        before = data[: error.start]
        line = before.count(b"\n") + 1
        # Of this line, what stands before the bad byte has just been found to be UTF-8.
        column = len(before[before.rfind(b"\n") + 1 :].decode()) + 1
        message = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise ConfigError([Problem(source, line, column, message)]) from None


def from_url(
    url: str, env: Mapping[str, str] = _NO_VARIABLES, **overrides: str | Override
) -> Config:
    """Return the configuration without a file: one route, ``default``, to `url`.

    `env` tells of egress proxies; nothing is expanded.
    `overrides` are named as in `overrides.NAMES`: ``from_url(url, listen="127.0.0.1:0")``.
    Raises `ConfigError` with every problem.
    """
    place = Place("URL")
    upstream = Entry(place, ScalarNode(url, place, literal=True))
    route = Entry(place, MapNode({"upstream": upstream}, place))
    document = MapNode({"routes": Entry(place, MapNode({"default": route}, place))}, place)
    labelled = {
        name: value if isinstance(value, Override) else Override(flag_name(name), value)
        for name, value in overrides.items()
    }
    reader = Reader(env, _here())
    return _config(apply(document, labelled, reader), url, reader)


def _config(document: MapNode, source: str, reader: Reader) -> Config:
    values = TOP.values(document, "", reader)
    if "routes" not in document.entries:
        message = "routes is missing; write routes: {NAME: {upstream: https://HOST}}"
        reader.complain(document.place, "", message)
    routes = _routes(document, values, reader)
    admin = values.get("admin", Admin())
    admin_entry = document.entries.get("admin")
    check_together(routes, admin, admin_entry.value.place if admin_entry else None, reader)
    if reader.problems:
        raise ConfigError(reader.problems)
    more = {key: values[key] for key in values if key not in ("listen", "defaults", "routes")}
    own = [(each.route, values["routes"][each.route.name]) for each in routes]
    ignored = list(in_document(own, document.entries, values.get("listen", ())))
    if more.get("workers", 1) > 1 and not HAS_WORKERS:
        ignored.append(Ignored("workers", "this system cannot share a port; one process serves"))
        more["workers"] = 1
    return Config(
        routes=tuple(each.route for each in routes),
        source=source,
        ignored=tuple(ignored),
        files=reader.stamps,
        **more,
    )


def _routes(document: MapNode, values: dict[str, Any], reader: Reader) -> list[Written]:
    entry = document.entries.get("defaults")
    defaults = entry.value if entry and isinstance(entry.value, MapNode) else None
    known = {key.name for key in DEFAULTS.keys}
    if defaults is not None:
        # What does not belong there has been reported, and must not come up in each route.
        kept = {name: each for name, each in defaults.entries.items() if name in known}
        defaults = MapNode(kept, defaults.place)
    listen = values.get("listen", () if "listen" in document.entries else _DEFAULT_LISTEN)
    routes: list[Written] = []
    for name, route in values.get("routes", {}).items():
        node = ROUTE.merge(defaults, route.value) if defaults else route.value
        found = ROUTE.values(node, f"routes.{name}", reader)
        routes.append(make_route(name, route, node, found, listen, reader))
    return routes
