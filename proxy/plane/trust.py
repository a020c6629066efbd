"""Whom the proxy trusts to be an upstream: the roots that certificates are verified with."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import ssl
import threading
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

HTTP1 = ("http/1.1",)
"""What ALPN offers unless HTTP/2 is wanted (RFC 7301)."""

HTTP2 = ("h2", "http/1.1")
"""What it offers where it is."""

NO_ROOTS = (
    "This machine has no roots to verify certificates with: install its package"
    " (`apt-get install ca-certificates`, `apk add ca-certificates`; on macOS run Python's"
    " `Install Certificates.command`), or `pip install certifi`."
)

# The names by which OpenSSL finds a root in a directory: c_rehash(1).
_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")


class Roots:
    """Whom an upstream's certificate is verified with: the system's roots, and those of a file.

    Where the system keeps a directory of hashed roots, OpenSSL reads from it the one that it needs.
    The bundle beside it mostly holds the same, and reading all of that takes 30 ms: it is left out
    until a certificate fails without it.
    """

    __slots__ = ("context", "is_whole")

    def __init__(self, ca_file: Path | None) -> None:
        """Read the files, which blocks.

        Raises:
            OSError: `ca_file` cannot be read; `ssl.SSLError` where it holds no certificates.
        """
        paths = ssl.get_default_verify_paths()
        folder = paths.capath if paths.cafile and _is_hashed(paths.capath) else None
        self.is_whole = folder is None
        """Whether all that the system trusts is at hand."""
        self.context = ssl.create_default_context(capath=folder)
        if not has_roots(self.context):
            _add_certifi(self.context)
        if ca_file is not None:
            self.context.load_verify_locations(cafile=ca_file)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        # So that writing never has to wait for something to read. TLS 1.3 has no renegotiation; its
        # use was to ask for a client's certificate later, and we have none.
        self.context.options |= ssl.OP_NO_RENEGOTIATION

    def complete(self) -> None:
        """Read what was left out, which blocks."""
        with _reading:
            if not self.is_whole:
                self.context.load_default_certs()
                self.is_whole = True


_loaded: dict[Path | None, Roots] = {}
_reading = threading.Lock()


def load(ca_file: Path | None) -> Roots:
    """Return the roots, read once for all; in a thread, for it blocks.

    Raises:
        OSError: as `Roots` does.
    """
    if (roots := _loaded.get(ca_file)) is None:
        # What two ask for at once is read once.
        with _reading:
            if (roots := _loaded.get(ca_file)) is None:
                roots = _loaded[ca_file] = Roots(ca_file)
    return roots


def whole_context(ca_file: Path | None, protocols: Sequence[str]) -> ssl.SSLContext:
    """Return a context of one's own that trusts the same and offers these; it blocks."""
    roots = Roots(ca_file)
    roots.complete()
    roots.context.set_alpn_protocols(list(protocols))
    return roots.context


async def ready(ca_file: Path | None) -> Roots:
    """Return the roots, as `load` does, without blocking the loop."""
    if (roots := _loaded.get(ca_file)) is not None:
        return roots
    return await asyncio.to_thread(load, ca_file)


def has_roots(context: ssl.SSLContext) -> bool:
    """Tell whether the context trusts anybody; Python on macOS trusts nobody at first."""
    if context.cert_store_stats()["x509_ca"]:
        return True
    # OpenSSL looks into its directory only when it needs a root.
    return _is_hashed(ssl.get_default_verify_paths().capath)


def _is_hashed(folder: str | None) -> bool:
    try:
        files = list(Path(folder).iterdir()) if folder else []
    except OSError:
        return False
    return any(_HASHED.fullmatch(file.name) for file in files)


def hint_for(ca_file: Path | None) -> str | None:
    """Return what to do where an issuer is unknown because nobody is trusted, else None."""
    if ca_file is not None or has_roots(load(None).context):
        return None
    return NO_ROOTS


def fingerprint(ca_file: Path | None) -> bytes:
    """Return what differs when other roots verify an upstream: a digest of their files.

    A file that cannot be read is one of its own kind: whoever dials is told.
    """
    return _digest(ca_file) + _system_digest()


def load_roots(ca_files: Iterable[Path | None]) -> None:
    """Have the roots ready that upstreams are verified with; in a thread, not on the loop.

    What fails here fails again, and is told, when somebody dials.
    """
    for ca_file in ca_files:
        with suppress(OSError):
            load(ca_file)


def read_anew(ca_files: Collection[Path | None]) -> None:
    """Forget what files held, and take fingerprints of what they hold now; in a thread.

    Roots that were loaded are loaded again: whoever dials next would do it on the loop.
    """
    were_loaded = bool(_loaded)
    with _reading:
        _loaded.clear()
    for remembered in (_digest, _system_digest):
        remembered.cache_clear()
    for ca_file in ca_files:
        fingerprint(ca_file)
    if were_loaded:
        load_roots(ca_files)


@lru_cache(maxsize=4096)
def _digest(file: Path | str | None) -> bytes:
    try:
        return hashlib.sha256(Path(file).read_bytes()).digest() if file else b""
    except OSError:
        return b"unreadable"


@lru_cache(maxsize=1)
def _system_digest() -> bytes:
    paths = ssl.get_default_verify_paths()
    # A directory's own time moves when a file in it comes, goes or is replaced.
    folder = b""
    with suppress(OSError):
        folder = b"%d" % Path(paths.capath).stat().st_mtime_ns if paths.capath else b""
    return _digest(paths.cafile) + folder


def _add_certifi(context: ssl.SSLContext) -> None:
    """Add the roots that certifi carries, if it is installed.

    Not where the environment says which roots to use: to trust others as well would widen that.
    """
    paths = ssl.get_default_verify_paths()
    if {paths.openssl_cafile_env, paths.openssl_capath_env} & os.environ.keys():
        return
    try:
        import certifi  # noqa: PLC0415 (needed on machines without roots alone)
    except ImportError:
        return
    context.load_verify_locations(cafile=certifi.where())
