from __future__ import annotations

import pytest

from proxy.doctor.again import again
from tests.unit.doctor.patients import URL, patient


@pytest.mark.parametrize(
    ("source", "doctor", "token"),
    [
        ("/etc/a b.yaml", "doctor a --config '/etc/a b.yaml'", "token a --config '/etc/a b.yaml'"),
        ("AUTH_PROXY_CONFIG_YAML", "doctor a", "token a"),
        (f"{URL}/v1", f"doctor {URL}/v1", f"token {URL}"),
    ],
)
def test_the_same_configuration_is_named_again(source: str, doctor: str, token: str) -> None:
    assert again("doctor", patient(), source) == f"cloud-run-auth-proxy {doctor}"
    assert again("token", patient(), source) == f"cloud-run-auth-proxy {token}"
