"""What is wrong with a configuration, and where: every mistake with its place and its remedy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from proxy.config.misplaced import looks_like, shown, shown_file
from proxy.frozen import frozen


@frozen
class Place:
    """Where a value was written.

    `line` and `column` count from 1.  Line 0 is a value that stands in no file: `source` is
    then the flag or the environment variable that holds it.
    """

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@frozen
class Problem:
    """One mistake, and how it is mended."""

    file: str
    """The document's name, or the flag or environment variable."""
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{Place(self.file, self.line, self.column)}: {self.message}"


def problem_at(place: Place, message: str) -> Problem:
    """Return the problem `message` at `place`."""
    return Problem(place.source, place.line, place.column, message)


class ConfigError(Exception):
    """A configuration that cannot be used; holds all its problems, sorted by place."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(
            sorted(problems, key=lambda each: (each.line > 0, each.file, each.line, each.column))
        )
        super().__init__("\n".join(map(str, self.problems)))


class ConfigUnreadable(OSError):
    """The configuration file cannot be read at all; the message names it and says why."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{shown_file(str(path))}: cannot be read: {error.strerror or error}")


def quoted(text: str) -> str:
    """Return what a message may show of a value: one short line, never anything like a secret."""
    if looks_like(text):
        return shown(text)
    longest = 60  # Enough to recognise a URL by; a problem stays on one line of a terminal.
    return repr(text if len(text) <= longest else text[: longest - 1] + "…")


_LONGEST = 64  # difflib's cost grows with the square; no key comes near.


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?``, or nothing where no word is near."""
    from difflib import get_close_matches  # noqa: PLC0415 (only a mistake needs it)

    spelled = word[:_LONGEST].lower().replace("-", "_")
    words = {each.lower().replace("-", "_"): each for each in known}
    found = get_close_matches(spelled, words, n=1)
    return f"; did you mean '{words[found[0]]}'?" if found else ""
