"""Files that the configuration names: checked while it is read, so that `check` reports them.

A relative path is taken from the folder of the configuration file, so that a file and what it
names can move together; without a file (inline text), from the working directory.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path

from proxy.config.kinds import Reader, ScalarKind, Schema, or_variable
from proxy.config.misplaced import no_file_name
from proxy.config.model import Stamp
from proxy.config.tree import ScalarNode
from proxy.frozen import frozen

# Editors on Windows write the first, PowerShell's > and Out-File the second.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(data: bytes) -> str:
    """Return the codec of a text file: by its byte order mark, else UTF-8."""
    return next((codec for mark, codec in _MARKS if data.startswith(mark)), "utf-8")


def stamp(path: Path) -> Stamp:
    """Return what changes when the file does, behind links: volumes of Kubernetes swap one."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


@frozen
class File(ScalarKind):
    """A file that must be readable, and fit for its purpose."""

    check: Callable[[Path], str | None]
    """Returns what is wrong with the file's content, if anything; raises `OSError`."""

    def label(self) -> str:
        """See `Kind.label`."""
        return "the name of a file"

    def from_text(self, text: str, node: ScalarNode, reader: Reader) -> Path:
        """Return the absolute path, once the file has been opened."""
        del node
        if not text or "\0" in text:
            raise ValueError("is not the name of a file; write a path")
        path = reader.directory / text
        key = (path, self.check)
        if key not in reader.checked_files:
            # First: what is written meanwhile is a change.
            reader.stamps.setdefault(path, stamp(path))
            reader.checked_files[key] = self._fault(path)
        if fault := reader.checked_files[key]:
            if what := no_file_name(text):
                raise ValueError(
                    f"looks like {what}, not like the name of a file; "
                    "write it into a file, and the file's path here"
                )
            raise ValueError(fault)
        return path

    def _fault(self, path: Path) -> str | None:
        shown = repr(str(path))
        try:
            # A named pipe or a device could block the start for ever.
            if path.exists() and not path.is_file():
                return f"{shown} is not a file; name a regular file"
            return self.check(path)
        except OSError as error:
            return f"{shown} cannot be read: {error.strerror}; check the path and its permissions"

    def schema(self) -> Schema:
        """Return any text but the empty one."""
        return or_variable({"type": "string", "minLength": 1})


def check_readable(path: Path) -> str | None:
    """Open the file; whoever uses it judges its content."""
    with path.open("rb") as file:
        return None if file.read(1) else f"{str(path)!r} is empty"


def check_certificates(path: Path) -> str | None:
    """Load the file as trusted roots."""
    import ssl  # noqa: PLC0415 (configurations without ca_file start faster)

    with path.open("rb") as file:
        if encoding_of(file.read(len(codecs.BOM_UTF8))) != "utf-8":
            # OpenSSL passes over a line that does not begin as it should, certificate and all.
            return f"{str(path)!r} begins with a byte order mark; save it as ASCII or plain UTF-8"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        reason = (error.reason or "no certificate").lower().replace("_", " ")
        return f"{str(path)!r} holds no PEM certificates ({reason})"
    if not context.cert_store_stats()["x509"]:
        return f"{str(path)!r} holds no PEM certificate, only revocation lists"
    return None
