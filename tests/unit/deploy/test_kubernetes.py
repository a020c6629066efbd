"""What is meant for Kubernetes: judged by its schemas, and as a whole."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from proxy.config.loading import parse

GKE = Path(__file__).parents[3] / "deploy" / "gke"

# The first with native sidecars, and the newest whose schemas are installed.
VERSIONS = ("1.29", kubernetes_validate.latest_version())


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((GKE / name).read_text()))


def of_kind(kind: str, name: str = "sidecar.yaml") -> dict[str, Any]:
    [found] = (each for each in manifests(name) if each["kind"] == kind)
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", sorted(file.name for file in GKE.glob("*.yaml")))
def test_kubernetes_knows_every_key_and_takes_every_value(name: str, version: str) -> None:
    for manifest in manifests(name):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_key_that_kubernetes_does_not_know_is_found() -> None:
    policy = of_kind("NetworkPolicy", "network-policy.yaml")
    policy["spec"]["policyType"] = ["Egress"]

    with pytest.raises(kubernetes_validate.ValidationError, match="policyType"):
        kubernetes_validate.validate(policy, VERSIONS[0], strict=True)


POLICY = of_kind("NetworkPolicy", "network-policy.yaml")["spec"]
POD = of_kind("Deployment")["spec"]["template"]
CONFIG = parse(
    of_kind("ConfigMap")["data"]["config.yaml"]
    .replace("PROJECT_NUMBER", "1")
    .replace("REGION", "europe-west1"),
    source="config.yaml",
    env={},
    overrides={},
)


def ports(rule: dict[str, Any]) -> set[tuple[str, int]]:
    return {(port["protocol"], port["port"]) for port in rule["ports"]}


def allowed(address: str) -> set[tuple[str, int]]:
    """Return protocols and ports at which the policy lets the pod reach an address."""
    return {
        port
        for rule in POLICY["egress"]
        if any(covers(peer, address) for peer in rule["to"])
        for port in ports(rule)
    }


def covers(peer: dict[str, Any], address: str) -> bool:
    block = peer.get("ipBlock")
    if block is None:
        return False
    return ip_address(address) in ip_network(block["cidr"]) and not any(
        ip_address(address) in ip_network(other) for other in block.get("except", ())
    )


def test_the_policy_is_about_the_pods_of_the_example_both_ways() -> None:
    assert POLICY["podSelector"]["matchLabels"] == POD["metadata"]["labels"]
    assert POLICY["policyTypes"] == ["Ingress", "Egress"]


def test_others_reach_the_app_and_never_the_proxy() -> None:
    [app] = POD["spec"]["containers"]
    everybody, collector = POLICY["ingress"]
    assert CONFIG.admin is not None

    assert "from" not in everybody
    assert ports(everybody) == {("TCP", port["containerPort"]) for port in app["ports"]}
    assert ports(collector) == {("TCP", CONFIG.admin.listen.port)}
    assert len(collector["from"]) == 1
    listeners = {("TCP", address.port) for address in CONFIG.listeners}
    assert listeners.isdisjoint(ports(everybody) | ports(collector))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        # Google's documentation, "Workload Identity Federation for GKE" with a network policy.
        ("169.254.169.254", {("TCP", 80), ("TCP", 8080)}),
        ("169.254.169.252", {("TCP", 987), ("TCP", 988)}),
        ("169.254.20.10", {("UDP", 53), ("TCP", 53)}),
        # A front end of Google's, and the addresses of Private Google Access.
        ("216.239.36.53", {("TCP", 443)}),
        ("199.36.153.8", {("TCP", 443)}),
        ("10.0.0.1", set()),
        ("172.16.0.1", set()),
        ("172.31.255.255", set()),
        ("192.168.0.1", set()),
    ],
)
def test_the_pod_reaches_what_calls_need_and_nothing_else(
    address: str, expected: set[tuple[str, int]]
) -> None:
    assert allowed(address) == expected


def test_names_are_looked_up_at_the_clusters_dns() -> None:
    [dns] = (rule for rule in POLICY["egress"] if ("UDP", 53) in ports(rule))
    selectors = [peer for peer in dns["to"] if "ipBlock" not in peer]

    assert selectors == [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        }
    ]


def test_every_upstream_is_at_the_port_that_the_policy_opens() -> None:
    upstreams = [each.upstream for route in CONFIG.routes for each in route.destinations]

    assert {each.port for each in upstreams if each is not None} == {443}
    assert None not in upstreams
