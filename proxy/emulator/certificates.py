"""A certificate authority made on the spot, for the protected service's TLS."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# TLS libraries compare with the machine's clock, whatever clock a test injects.  A day of
# slack for containers whose clock is off.
BACKDATED = dt.timedelta(days=1)
LASTING = dt.timedelta(days=30)

# What the certificate of the authority, and of a server, may be used for (RFC 5280, 4.2.1.3).
_AUTHORITY_USAGE = {"key_cert_sign", "crl_sign"}
_SERVER_USAGE = {"digital_signature"}


def _usage(allowed: set[str]) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in allowed for name in names})


class Authority:
    """Issues server certificates; `pem` is what a client has to trust."""

    __slots__ = ("_certificate", "_key", "pem")

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "emulator's authority")])
        public = self._key.public_key()
        self._certificate = (
            _started(name, public, issuer=name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(_AUTHORITY_USAGE), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def server_context(self, names: Iterable[str]) -> ssl.SSLContext:
        """Return a context that serves HTTP/1.1 under `names`: host names or IP addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        chain = self._leaf(key, list(names)).public_bytes(serialization.Encoding.PEM)
        chain += key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        with tempfile.TemporaryDirectory() as directory:
            # Python's ssl takes a key from a file only.
            file = Path(directory) / "chain.pem"
            file.write_bytes(chain)
            context.load_cert_chain(file)
        return context

    def _leaf(self, key: ec.EllipticCurvePrivateKey, names: list[str]) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        public = key.public_key()
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            _started(subject, public, issuer=self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(_SERVER_USAGE), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName(map(_general, names)), critical=False)
            .add_extension(issuer_key, critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _started(
    subject: x509.Name, public: ec.EllipticCurvePublicKey, *, issuer: x509.Name
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + LASTING)
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
