from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.config.loading import load
from proxy.config.model import TokenFile
from tests.fakes.secrets import SECRETS
from tests.unit.config.reading import UPSTREAM, read, route, told, told_of_route


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """Write a certificate authority's PEM file, and return its folder."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path


def test_a_ca_file_is_found_beside_the_configuration(ca: Path) -> None:
    (ca / "sub").mkdir()
    path = ca / "sub" / "proxy.yaml"
    path.write_text(f"routes: {{a: {{upstream: '{UPSTREAM}', ca_file: ../ca.pem}}}}")

    found = load(path, {}).routes[0].ca_file

    assert found is not None
    assert found.is_absolute()
    assert found.resolve() == (ca / "ca.pem").resolve()


def test_a_relative_configuration_still_names_absolute_files(
    ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ca / "proxy.yaml").write_text(f"routes: {{a: {{upstream: '{UPSTREAM}', ca_file: ca.pem}}}}")
    monkeypatch.chdir(ca)

    assert load(Path("proxy.yaml"), {}).routes[0].ca_file == ca / "ca.pem"


def test_inline_text_names_files_from_the_working_directory(
    ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ca)
    text = f"routes: {{a: {{upstream: '{UPSTREAM}', ca_file: ca.pem}}}}"

    assert read(text).routes[0].ca_file == ca / "ca.pem"


def refused(keys: str, directory: Path) -> str:
    """Return the only problem of a route with `keys`, without the directory's name."""
    (message,) = told_of_route(keys, directory=directory)
    return message.replace(str(directory), "DIR")


def test_a_file_that_is_not_there_is_told_at_its_key(tmp_path: Path) -> None:
    for key in ("ca_file: x", "credentials: {token_file: x}"):
        said = refused(key, tmp_path)
        assert ": 'DIR/x' cannot be read: No such file or directory; " in said
        assert said.endswith("; check the path and its permissions")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    message = "routes.a.ca_file: 'DIR' is not a file; name a regular file"
    assert refused("ca_file: .", tmp_path) == message


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    message = "routes.a.credentials.token_file: 'DIR/pipe' is not a file; name a regular file"
    assert refused("credentials: {token_file: pipe}", tmp_path) == message


def test_an_empty_credentials_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "key.json").touch()
    message = "routes.a.credentials.service_account_file: 'DIR/key.json' is empty"
    assert refused("credentials: {service_account_file: key.json}", tmp_path) == message


@pytest.mark.parametrize("name", ["''", '"a\\0b"'])
def test_an_empty_or_impossible_name_is_told(name: str, tmp_path: Path) -> None:
    message = "routes.a.ca_file: is not the name of a file; write a path"
    assert refused(f"ca_file: {name}", tmp_path) == message


@pytest.mark.parametrize(
    "content",
    ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
    ids=["empty", "text", "broken"],
)
def test_a_ca_file_without_certificates_is_told(content: str, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(content)
    said = refused("ca_file: ca.pem", tmp_path)
    assert said.startswith("routes.a.ca_file: 'DIR/ca.pem' holds no PEM certificates (")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_ca_file_of_which_the_first_certificate_would_not_be_read_is_told(
    ca: Path, encoding: str
) -> None:
    path = ca / "ca.pem"
    path.write_text(path.read_text() * 2, encoding=encoding)
    said = "begins with a byte order mark; save it as ASCII or plain UTF-8"

    assert refused("ca_file: ca.pem", ca) == f"routes.a.ca_file: 'DIR/ca.pem' {said}"


def test_a_ca_file_with_revocation_lists_only_is_told(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ca")])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateRevocationListBuilder(name, now, now + dt.timedelta(days=1))
    crl = builder.sign(key, hashes.SHA256())
    (tmp_path / "ca.pem").write_bytes(crl.public_bytes(serialization.Encoding.PEM))

    said = "routes.a.ca_file: 'DIR/ca.pem' holds no PEM certificate, only revocation lists"
    assert refused("ca_file: ca.pem", tmp_path) == said


@pytest.mark.parametrize(
    "key",
    [
        "ca_file: '${SECRET}'",
        "credentials: {token_file: '${SECRET}'}",
        "credentials: {service_account_file: '${SECRET}'}",
        "credentials: {impersonate: a@b.example, source: {service_account_file: '${SECRET}'}}",
    ],
)
@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
def test_a_secret_in_place_of_a_files_name_is_not_shown(
    key: str, secret: str, tmp_path: Path
) -> None:
    (message,) = told_of_route(key, {"SECRET": secret}, tmp_path)

    _, _, said = message.partition("_file: ")
    assert said == (
        f"looks like {SECRETS[secret]}, not like the name of a file; "
        "write it into a file, and the file's path here"
    )


@pytest.mark.parametrize("key", ["upstream", "listen", "header", "protocol", "service", "path"])
@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
def test_a_secret_in_place_of_anything_else_is_not_shown(key: str, secret: str) -> None:
    said = "\n".join(told(f"routes: {{a: {{{key}: '${{SECRET}}'}}}}", {"SECRET": secret}))

    assert said
    assert secret.strip()[:20] not in said


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    name = "0123456789abcdef0123456789abcdef01234567"
    (tmp_path / name).write_text("a token")
    credentials = route(f"credentials: {{token_file: {tmp_path / name}}}").credentials

    assert credentials == TokenFile(tmp_path / name)


def test_a_file_is_checked_once_however_many_routes_name_it(
    ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = Path.is_file

    def is_file(path: Path) -> bool:
        opened.append(path.name)
        return real(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    routes = "".join(
        f"  r{n}: {{upstream: '{UPSTREAM}', path: /{n}, ca_file: ca.pem}}\n" for n in range(3)
    )
    read(f"routes:\n{routes}", directory=ca)

    assert opened == ["ca.pem"]


def test_the_next_reading_checks_the_file_again(ca: Path) -> None:
    text = f"routes: {{a: {{upstream: '{UPSTREAM}', ca_file: ca.pem}}}}"
    assert read(text, directory=ca).routes
    (ca / "ca.pem").unlink()
    assert "cannot be read" in refused("ca_file: ca.pem", ca)
