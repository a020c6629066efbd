"""Whom the proxy trusts to be an upstream: the roots that certificates are verified with."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
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


@lru_cache(maxsize=64)
def tls_context(ca_file: Path | None, protocols: tuple[str, ...]) -> ssl.SSLContext:
    """Return the context that verifies an upstream: the system's roots, and those of `ca_file`.

    Cached: loading the system's roots takes some 30 ms; see `load_roots`.
    """
    context = ssl.create_default_context()
    if not has_roots(context):
        _add_certifi(context)
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # So that writing never has to wait for something to read. TLS 1.3 has no renegotiation; its
    # use was to ask for a client's certificate later, and we have none.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(list(protocols))
    return context


def has_roots(context: ssl.SSLContext) -> bool:
    """Tell whether the context trusts anybody; Python on macOS trusts nobody at first."""
    if context.cert_store_stats()["x509_ca"]:
        return True
    # OpenSSL looks into its directory only when it needs a root.
    folder = ssl.get_default_verify_paths().capath
    try:
        files = list(Path(folder).iterdir()) if folder else []
    except OSError:
        return False
    return any(_HASHED.fullmatch(file.name) for file in files)


def hint_for(ca_file: Path | None) -> str | None:
    """Return what to do where an issuer is unknown because nobody is trusted, else None."""
    if ca_file is not None or has_roots(tls_context(None, HTTP1)):
        return None
    return NO_ROOTS


def fingerprint(ca_file: Path | None) -> bytes:
    """Return what differs when other roots verify an upstream: a digest of their files.

    A file that cannot be read is one of its own kind: whoever dials is told.
    """
    return _digest(ca_file) + _system_digest()


def load_roots(
    ca_files: Iterable[Path | None], protocols: Sequence[tuple[str, ...]] = (HTTP1,)
) -> None:
    """Have the roots ready that upstreams are verified with; in a thread, not on the loop.

    What fails here fails again, and is told, when somebody dials.
    """
    for ca_file in ca_files:
        for each in protocols:
            with suppress(OSError):
                tls_context(ca_file, each)


def read_anew(ca_files: Collection[Path | None]) -> None:
    """Forget what files held, and take fingerprints of what they hold now; in a thread.

    Roots that were loaded are loaded again: whoever dials next would do it on the loop.
    """
    were_loaded = tls_context.cache_info().currsize
    for remembered in (tls_context, _digest, _system_digest):
        remembered.cache_clear()
    for ca_file in ca_files:
        fingerprint(ca_file)
    if were_loaded:
        load_roots(ca_files, (HTTP1, HTTP2))


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
