"""Small files that others write: reading them with explanations, and noticing that they changed."""

from __future__ import annotations

import os
import stat
from dataclasses import field
from pathlib import Path

from proxy.config.misplaced import no_file_name, shown_file
from proxy.frozen import frozen
from proxy.identity.source import TokenSourceError
from proxy.identity.target import TOKEN_ENDPOINT

MOST_BYTES = 64 * 1024
"""A credentials file has 2 to 4 KiB, a token 1 to 2."""


@frozen
class Stamp:
    """What changes when a file is written anew, or replaced by another."""

    modified_ns: int
    size: int
    inode: int


@frozen
class CredentialsFile:
    """A credentials file of Google's, as the configuration or the environment names it."""

    path: Path = field(repr=False)
    """Possibly not a path but a misplaced key: messages show `shown`."""
    if_missing: str
    """What to do if there is no such file."""
    only: str = ""
    """The one ``type`` that is allowed, empty for any."""
    token_endpoint: str = TOKEN_ENDPOINT
    """Where a gcloud login in it is refreshed; other kinds of credentials name their own."""
    quota_project: str = ""
    """Replaces the file's own ``quota_project_id`` if not empty."""

    @property
    def shown(self) -> str:
        """Its name, but nothing like a secret."""
        return shown_file(str(self.path))


def stamp(path: Path) -> Stamp | None:
    """Return the file's stamp, None if there is no such file.  One system call, about 2 µs."""
    try:
        # os.stat, because pathlib's stat takes twice as long and this runs for every request.
        status = os.stat(path)  # noqa: PTH116 (see above)
    except OSError:
        return None
    return Stamp(status.st_mtime_ns, status.st_size, status.st_ino)


def read_small(path: Path, hint: str) -> bytes:
    """Return the content of a regular file; raise `TokenSourceError` that says why not.

    `hint` is what to do where the file is not there.  The caller names the file.
    """
    try:
        return _read_small(path, hint)
    except TokenSourceError:
        # A file may have any name: only what cannot be read may be something else.
        if what := no_file_name(str(path)):
            raise TokenSourceError(
                f"looks like {what}, not like the name of a file",
                hint=f"Write it into a file, and the file's path in its place. {hint}",
            ) from None
        raise


def _open(path: str, flags: int) -> int:
    """Open without waiting: a pipe waits for somebody who writes, before it can be looked at."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_small(path: Path, hint: str) -> bytes:
    try:
        with open(path, "rb", opener=_open) as file:
            # What is not a regular file may never end, or make its reader wait.
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise TokenSourceError("it is not a regular file")
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise TokenSourceError("it does not exist", hint=hint) from None
    except PermissionError:
        raise TokenSourceError(
            "it may not be read by this process", hint=f"Look at `ls -l {path}`, and at `id`."
        ) from None
    except OSError as error:
        raise TokenSourceError(f"it cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise TokenSourceError(f"it is larger than {MOST_BYTES} bytes")
    return content
