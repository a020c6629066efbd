"""Where the configuration comes from: a URL, a file, or a variable that holds the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from proxy.config.ignored import FILE_VARIABLE, TEXT_VARIABLE, in_environment
from proxy.config.loading import from_url, load, parse
from proxy.config.misplaced import no_file_name
from proxy.config.model import Config
from proxy.config.overrides import Override
from proxy.config.problems import ConfigError, Problem

PLACES = (Path("config/proxy.yaml"), Path("/etc/cloud-run-auth-proxy/config.yaml"))
"""What is tried, in this order, where nothing is named."""


@dataclass(frozen=True, slots=True)
class Source:
    """One of the three; can be read again, as SIGHUP does."""

    url: str | None = None
    text: str | None = None
    file: Path | None = None

    def read(self, env: Mapping[str, str], overrides: Mapping[str, Override]) -> Config:
        """Return the configuration; raises `ConfigError` and `ConfigUnreadable`."""
        if self.url is not None:
            config = from_url(self.url, **overrides)
            ignored = in_environment(env, config.source, "", config.routes)
            return replace(config, ignored=(*config.ignored, *ignored))
        if self.text is not None:
            return parse(self.text, source=TEXT_VARIABLE, env=env, overrides=overrides)
        return load(self.file or PLACES[0], env, overrides)


def find(
    url: str | None,
    config: str | None,
    env: Mapping[str, str],
    places: tuple[Path, ...] = PLACES,
) -> Source:
    """Return the source that the command line or else the environment names, or that exists.

    Raises `ConfigError` where there is none, or two on the command line.
    """
    if url is not None and config is not None:
        raise _refusal("URL", "stands beside --config; give one of them")
    if config == "":
        # What an unset variable of a shell leaves must not stand for another file.
        raise _refusal("--config", "is not the name of a file; write a path")
    if url is not None:
        return Source(url=url)
    if named := config or env.get(FILE_VARIABLE):
        return Source(file=_path(named, "--config" if config else FILE_VARIABLE))
    if text := env.get(TEXT_VARIABLE):
        return Source(text=text)
    for place in places:
        # Whatever stands there counts: a folder or a broken link is reported, not passed over.
        if place.exists() or place.is_symlink():
            return Source(file=place)
    raise _refusal(
        "no configuration",
        f"give a URL, --config FILE, {FILE_VARIABLE} or {TEXT_VARIABLE}, "
        f"or write {' or '.join(map(str, places))}",
    )


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
