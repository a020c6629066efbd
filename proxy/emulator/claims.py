"""Who the emulated workload is, and what Google would say about it in an ID token."""

from __future__ import annotations

from typing import Any

from proxy.frozen import frozen

ISSUER = "https://accounts.google.com"

Claims = dict[str, Any]
"""The JSON object that a token carries (RFC 7519, 4)."""


@frozen(kw_only=True)
class ServiceAccount:
    """The identity that a workload runs as."""

    email: str = "caller@emulated-project.iam.gserviceaccount.com"
    unique_id: str = "100000000000000000001"
    """What ``sub`` and ``azp`` say: the account's numeric id, which never changes."""
    scopes: tuple[str, ...] = ("https://www.googleapis.com/auth/cloud-platform",)


@frozen(kw_only=True)
class Instance:
    """Where a workload runs: what the metadata server tells about project and place."""

    project_id: str = "emulated-project"
    project_number: int = 123456789012
    region: str = "us-central1"
    instance_id: str = "00c61b117c0d4e5f"

    @property
    def zone(self) -> str:
        """The zone's name: Cloud Run always says ``REGION-1``."""
        return f"{self.region}-1"


CALLER = ServiceAccount()
SOMEWHERE = Instance()


def id_token_claims(
    account: ServiceAccount,
    audience: str,
    *,
    now: float,
    lifetime: float,
    instance: Instance | None = None,
) -> Claims:
    """Return the claims of an ID token minted at `now` (Unix seconds) for `lifetime` seconds.

    `instance` adds what ``format=full`` adds.  Source:
    https://cloud.google.com/compute/docs/instances/verifying-instance-identity.
    ``email`` is always there, as on Cloud Run; Compute Engine leaves it out of the short form.
    """
    claims: Claims = {
        "aud": audience,
        "azp": account.unique_id,
        "email": account.email,
        "email_verified": True,
        "exp": int(now + lifetime),
        "iat": int(now),
        "iss": ISSUER,
        "sub": account.unique_id,
    }
    if instance is not None:
        claims["google"] = {
            "compute_engine": {
                "instance_id": instance.instance_id,
                "instance_name": instance.instance_id,
                "project_id": instance.project_id,
                "project_number": instance.project_number,
                "zone": instance.zone,
            }
        }
    return claims
