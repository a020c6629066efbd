"""The key that stands in for Google's: signs ID tokens and publishes its public half.

RS256 (RFC 7518, 3.3) with a 2048-bit RSA key, published in the two forms that Google
publishes: a JWK set (RFC 7517), as at https://www.googleapis.com/oauth2/v3/certs, and
X.509 certificates by key id, as at https://www.googleapis.com/oauth2/v1/certs.
"""

from __future__ import annotations

import base64
import datetime as dt
import functools
import hashlib
import json
from collections.abc import Mapping

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

# Wide enough for every clock that a test may inject; verifiers of tokens look at the
# tokens' own times, not at these.
CERTIFICATE_FROM = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
CERTIFICATE_UNTIL = dt.datetime(2200, 1, 1, tzinfo=dt.UTC)


def base64url(data: bytes) -> str:
    """Encode without padding, as every part of a JWT is (RFC 7515, 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


class Keys:
    """One RSA key pair with its key id.

    Making one takes 10 to 300 ms, so `shared` makes one for the whole process; a second
    `Keys()` is a stranger whose signatures the first one does not accept.
    """

    __slots__ = ("_private", "_public", "key_id")

    def __init__(self) -> None:
        self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._public = self._private.public_key()
        self.key_id = hashlib.sha256(self._spki()).hexdigest()[:40]

    def __repr__(self) -> str:
        return f"Keys({self.key_id[:8]}…)"

    @staticmethod
    @functools.cache
    def shared() -> Keys:
        """Return the process's key pair."""
        return Keys()

    def sign(
        self, claims: Mapping[str, object], *, header: Mapping[str, object] | None = None
    ) -> str:
        """Return `claims` as a signed JWT in compact form (RFC 7515, 3.1).

        `header` replaces members of the regular header, for tokens that must be refused.
        """
        parts = {"alg": "RS256", "kid": self.key_id, "typ": "JWT", **(header or {})}, claims
        signed = ".".join(
            base64url(json.dumps(part, separators=(",", ":")).encode()) for part in parts
        )
        signature = self._private.sign(signed.encode("ascii"), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{base64url(signature)}"

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        """Return whether `signature` over `signed`, a token's first two parts, is this key's."""
        try:
            self._public.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the JWK set (RFC 7517, 5) with the one public key."""
        numbers = self._public.public_numbers()
        key = {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": self.key_id,
            "n": base64url(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8)),
            "e": base64url(numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8)),
        }
        return {"keys": [key]}

    def x509_certificates(self) -> dict[str, str]:
        """Return the self-signed certificate in PEM, by key id."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "emulated token signer")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._public)
            .serial_number(1)
            .not_valid_before(CERTIFICATE_FROM)
            .not_valid_after(CERTIFICATE_UNTIL)
            .sign(self._private, hashes.SHA256())
        )
        return {self.key_id: certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")}

    def _spki(self) -> bytes:
        return self._public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
