"""Whom the proxy trusts: where the system has no roots, and when roots are replaced."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import certifi
import pytest
import trustme

from proxy.config.model import Limits, Upstream
from proxy.errors import UpstreamTlsFailed
from proxy.plane import trust
from proxy.plane.dial import Dialler
from proxy.resolver import Resolver
from tests.fakes import tls
from tests.fakes.lifelines import GET, OK
from tests.fakes.wired import Wired


@pytest.fixture
def without_roots(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine whose Python finds no roots, as python.org's for macOS at first."""
    nothing = ssl.DefaultVerifyPaths(None, None, "SSL_CERT_FILE", "/no", "SSL_CERT_DIR", "/no")  # type: ignore[arg-type]  # typeshed: str
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(variable, raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(ssl, "get_default_verify_paths", lambda: nothing)
        patch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: None)
        trust.read_anew(())
        yield patch
    trust.read_anew(())


async def shake_hands(
    ca_file: Path | None = None, offered: tuple[str, ...] = trust.HTTP1
) -> str | None:
    """Dial an upstream whose certificate is of the tests' own authority; return ALPN's outcome."""
    context = tls.server_context(alpn=tls.HTTP2)
    server = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        dialler = Dialler(Upstream("https", "127.0.0.1", port), ca_file, Resolver(), offered)
        transport, _ = await dialler.dial(asyncio.Protocol, 10)
        session: ssl.SSLObject = transport.get_extra_info("ssl_object")
        transport.abort()
    return session.selected_alpn_protocol()


async def test_a_python_without_roots_uses_certifis(
    without_roots: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_roots.setattr(certifi, "where", lambda: str(tls.ca_file(tmp_path)))

    await shake_hands()


async def test_without_certifi_it_is_said_what_to_install(
    without_roots: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_roots.setitem(sys.modules, "certifi", None)

    with pytest.raises(UpstreamTlsFailed) as caught:
        await shake_hands()
    assert caught.value.hint == trust.NO_ROOTS
    assert "ca-certificates" in trust.NO_ROOTS
    await shake_hands(tls.ca_file(tmp_path))


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_roots_that_the_environment_names_are_not_made_more(
    without_roots: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    """A file that is missing must not let everybody in that certifi trusts."""
    without_roots.setattr(certifi, "where", lambda: str(tls.ca_file(tmp_path)))
    without_roots.setenv(variable, str(tmp_path / "gone"))

    with pytest.raises(UpstreamTlsFailed):
        await shake_hands()


@pytest.mark.parametrize(("name", "found"), [("0a1b2c3d.0", True), ("README", False)])
def test_a_directory_of_hashed_roots_is_enough(
    without_roots: pytest.MonkeyPatch, tmp_path: Path, name: str, *, found: bool
) -> None:
    """OpenSSL reads it only when it needs a root."""
    (tmp_path / name).touch()
    paths = ssl.get_default_verify_paths()._replace(capath=str(tmp_path))
    without_roots.setattr(ssl, "get_default_verify_paths", lambda: paths)

    assert trust.has_roots(ssl.create_default_context()) is found


def test_a_directory_that_cannot_be_read_holds_no_roots(
    without_roots: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paths = ssl.get_default_verify_paths()._replace(capath=str(tmp_path / "gone"))
    without_roots.setattr(ssl, "get_default_verify_paths", lambda: paths)

    assert not trust.has_roots(ssl.create_default_context())


def test_a_machine_with_roots_needs_no_hint() -> None:
    assert trust.hint_for(None) is None


async def test_a_stranger_is_refused_without_a_hint_to_install_anything() -> None:
    with pytest.raises(UpstreamTlsFailed) as caught:
        await shake_hands()
    assert caught.value.hint != trust.NO_ROOTS


# --- fingerprints


def test_a_fingerprint_tells_what_a_file_holds(tmp_path: Path) -> None:
    file = tls.ca_file(tmp_path)
    first = _fingerprint(file)
    another = tmp_path / "another.pem"
    another.write_bytes(file.read_bytes())
    another.replace(file)
    assert _fingerprint(file) == first

    file.write_bytes(tls.foreign_authority().cert_pem.bytes())
    second = _fingerprint(file)
    file.unlink()
    assert len({first, second, _fingerprint(file), _fingerprint(None)}) == 4


def test_a_fingerprint_is_that_of_the_last_reading(tmp_path: Path) -> None:
    file = tls.ca_file(tmp_path)
    before = _fingerprint(file)
    file.write_bytes(b"")

    assert trust.fingerprint(file) == before


def test_the_systems_roots_are_a_part_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = tls.ca_file(tmp_path)
    folder = tmp_path / "certs"
    folder.mkdir()
    paths = ssl.get_default_verify_paths()._replace(cafile=str(bundle), capath=str(folder))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    seen = {_fingerprint(None)}
    bundle.write_bytes(b"")
    seen.add(_fingerprint(None))
    (folder / "0a1b2c3d.0").touch()
    seen.add(_fingerprint(None))
    monkeypatch.undo()
    trust.read_anew(())

    assert len(seen) == 3


async def test_roots_that_were_loaded_are_loaded_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever dials next would have to wait for them."""
    file = tls.ca_file(tmp_path)
    trust.read_anew(())
    made = _count_readings(monkeypatch)
    trust.read_anew([file])
    assert made == []
    roots = await trust.ready(file)

    trust.read_anew([file])
    assert made == [file, file]
    assert await trust.ready(file) is not roots
    assert made == [file, file]


async def test_roots_that_many_ask_for_at_once_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that comes during the start does not read beside it what the start reads."""
    file = tls.ca_file(tmp_path)
    trust.read_anew(())
    made = _count_readings(monkeypatch)

    found = await asyncio.gather(*(trust.ready(file) for _ in range(5)))

    assert made == [file]
    assert len(set(map(id, found))) == 1


# --- a directory beside the bundle


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[System]:
    """Another system's roots: a bundle and a directory, both empty at first."""
    system = System(tmp_path / "bundle.pem", tmp_path / "certs", [])
    system.folder.mkdir()
    system.keep(tls.foreign_authority())
    system.bundle.write_bytes(tls.foreign_authority().cert_pem.bytes())
    # OpenSSL itself reads these.
    monkeypatch.setenv("SSL_CERT_FILE", str(system.bundle))
    monkeypatch.setenv("SSL_CERT_DIR", str(system.folder))
    load = ssl.SSLContext.load_default_certs

    def counted(context: ssl.SSLContext, *purpose: ssl.Purpose) -> None:
        system.bundles_read.append(context)
        load(context, *purpose)

    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", counted)
    trust.read_anew(())
    yield system
    monkeypatch.undo()
    trust.read_anew(())


@dataclass(frozen=True)
class System:
    """Where a system keeps whom it trusts."""

    bundle: Path
    folder: Path
    bundles_read: list[ssl.SSLContext]

    def keep(self, authority: trustme.CA) -> None:
        """Put a root into the directory as c_rehash(1) does."""
        if (openssl := shutil.which("openssl")) is None:
            pytest.skip("openssl is not installed")
        file = self.folder / "root.pem"
        authority.cert_pem.write_to_path(file)
        command = [openssl, "x509", "-hash", "-noout", "-in", str(file)]
        name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        file.rename(self.folder / f"{name}.0")


async def test_a_root_in_the_directory_is_found_without_the_bundle(system: System) -> None:
    """The bundle takes 30 ms of the start."""
    system.keep(tls.authority())

    await shake_hands()

    assert system.bundles_read == []


async def test_a_root_that_only_the_bundle_has_is_trusted(system: System) -> None:
    """An operator may have appended one; two that dial at once find out together."""
    system.bundle.write_bytes(tls.authority().cert_pem.bytes())

    await asyncio.gather(shake_hands(), shake_hands())
    await shake_hands()

    assert len(system.bundles_read) == 1


async def test_who_is_in_neither_is_refused(system: System) -> None:
    for _ in range(2):
        with pytest.raises(UpstreamTlsFailed, match="not accepted"):
            await shake_hands()

    assert len(system.bundles_read) == 1


async def test_without_hashed_names_the_bundle_is_read_at_once(system: System) -> None:
    for file in system.folder.iterdir():
        file.rename(system.folder / "root.pem")
    system.bundle.write_bytes(tls.authority().cert_pem.bytes())

    await shake_hands()

    assert len(system.bundles_read) == 1


@pytest.mark.parametrize("offered", [trust.HTTP1, trust.HTTP2])
async def test_the_same_roots_serve_whatever_is_offered(
    tmp_path: Path, offered: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tls.ca_file(tmp_path)
    made = _count_readings(monkeypatch)
    for protocols in (trust.HTTP2, trust.HTTP1, offered):
        assert await shake_hands(file, protocols) == protocols[0]

    assert made == [file]


# --- connections that other roots have verified


async def test_connections_that_replaced_roots_had_verified_serve_nobody_any_more(
    tmp_path: Path,
) -> None:
    """Neither the idle one nor the one that is busy, whoever waits for it."""
    file = tls.ca_file(tmp_path)
    more = file.read_bytes() + tls.foreign_authority().cert_pem.bytes()
    limits = Limits(connections=2)
    async with Wired(tls=tls.server_context()) as world:
        await world.serve_tls(file, limits=limits)
        callers = [await world.caller() for _ in range(3)]
        old = []
        for caller in callers[:2]:
            caller.send(GET)
            old.append(await world.upstream.accept())
            await old[-1].request()
        callers[2].send(GET)
        await world.until(lambda: world.connections.waiting == 1, "one who waits")
        old[0].send(OK)
        await callers[0].answer()
        await old[0].serve(OK)
        await callers[2].answer()
        callers[2].send(GET)
        await old[0].request()
        callers[0].send(GET)
        await world.until(lambda: world.connections.waiting == 1, "one who waits")

        file.write_bytes(more)
        trust.read_anew([file])
        await world.serve_tls(file, limits=limits)
        old[0].send(OK)
        assert (await callers[2].answer()).status == 200
        new = await world.upstream.accept()
        await new.serve(OK)
        assert (await callers[0].answer()).status == 200
        await old[0].until(lambda: old[0].ended, "the end of the old connection")
        old[1].send(OK)
        assert (await callers[1].answer()).status == 200
        callers[1].send(GET)
        await (await world.upstream.accept()).serve(OK)
        assert (await callers[1].answer()).status == 200


async def test_connections_survive_a_file_that_holds_what_it_held(tmp_path: Path) -> None:
    file = tls.ca_file(tmp_path)
    async with Wired(automatic=OK, tls=tls.server_context()) as world:
        await world.serve_tls(file)
        caller = await world.caller()
        await caller.ask(GET)
        file.write_bytes(file.read_bytes())
        trust.read_anew([file])
        await world.serve_tls(file)
        await caller.ask(GET)

        assert len(world.upstream.connections) == 1


def _count_readings(monkeypatch: pytest.MonkeyPatch) -> list[Path | None]:
    """Return the list to which every reading of roots adds."""
    made: list[Path | None] = []

    class Counted(trust.Roots):
        def __init__(self, ca_file: Path | None) -> None:
            made.append(ca_file)
            super().__init__(ca_file)

    monkeypatch.setattr(trust, "Roots", Counted)
    return made


def _fingerprint(file: Path | None) -> bytes:
    trust.read_anew([file])
    return trust.fingerprint(file)
