"""A file that somebody else keeps an ID token in."""

from __future__ import annotations

from pathlib import Path

from proxy.config.files import encoding_of
from proxy.config.misplaced import shown_file
from proxy.identity.files import Stamp, read_small, stamp


class TokenFileSource:
    """Reads the token from the file, again whenever the file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: Stamp | None = None

    def describe(self) -> str:
        """Name the file."""
        return f"token file {shown_file(str(self._path))}"

    def changed(self) -> bool:
        """Return whether the file is another one than at the last `fetch`.

        A file that is gone has not changed: the token that was in it may still be good.
        """
        now = stamp(self._path)
        return now is not None and now != self._read

    async def fetch(self, audience: str) -> str:
        """Return what stands in the file."""
        # Before reading: what is written in between is seen as a change afterwards. Kept also
        # if reading fails: one broken file is one error, not one for each request.
        self._read = stamp(self._path)
        hint = f"Whatever renews the token has to keep one for {audience} in this file."
        # Read on the event loop: it is one small file, and only after it has changed.
        content = read_small(self._path, hint)
        return content.decode(encoding_of(content), "replace")

    async def account(self) -> str | None:
        """Return None: only the token itself says whom it is for."""
        return None

    async def close(self) -> None:
        """Nothing is kept open."""
