"""How metrics are asked for and read, and which there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_plain

OPEN = "application/openmetrics-text; version=1.0.0"
# What Prometheus 2.42 sends.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)

METRICS: dict[str, tuple[str, set[str]]] = {
    "auth_proxy_requests": ("counter", {"route", "protocol", "code"}),
    "auth_proxy_request_duration_seconds": ("histogram", {"route"}),
    "auth_proxy_upstream_head_seconds": ("histogram", {"route"}),
    "auth_proxy_errors": ("counter", {"route", "reason"}),
    "auth_proxy_in_flight": ("gauge", {"route"}),
    "auth_proxy_retries": ("counter", {"route", "cause"}),
    "auth_proxy_failovers": ("counter", set()),
    "auth_proxy_destination_available": ("gauge", set()),
    "auth_proxy_upstream_connections": ("gauge", {"route", "state"}),
    "auth_proxy_upstream_dials": ("counter", {"route", "outcome"}),
    "auth_proxy_request_bytes": ("counter", {"route"}),
    "auth_proxy_response_bytes": ("counter", {"route"}),
    "auth_proxy_token_fetches": ("counter", {"route", "outcome"}),
    "auth_proxy_token_fetch_seconds": ("histogram", set()),
    "auth_proxy_token_expiry_timestamp_seconds": ("gauge", {"route"}),
    "auth_proxy_config_last_reload_successful": ("gauge", set()),
    "auth_proxy_config_last_reload_success_timestamp_seconds": ("gauge", set()),
    "auth_proxy_build_info": ("gauge", {"version", "python", "build"}),
}
OF_DESTINATIONS: dict[str, tuple[str, set[str]]] = {
    "auth_proxy_failovers": ("counter", {"route", "cause"}),
    "auth_proxy_destination_available": ("gauge", {"route", "destination"}),
    "auth_proxy_upstream_connections": ("gauge", {"route", "state", "destination"}),
    "auth_proxy_upstream_dials": ("counter", {"route", "outcome", "destination"}),
    "auth_proxy_token_fetches": ("counter", {"route", "outcome", "destination"}),
    "auth_proxy_token_expiry_timestamp_seconds": ("gauge", {"route", "destination"}),
}
"""What differs where a route has several destinations."""

Parser = Callable[[str], Iterable[Metric]]
FORMATS = pytest.mark.parametrize(("accept", "parser"), [("", read_plain), (OPEN, read_open)])
