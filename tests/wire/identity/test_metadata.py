"""The metadata server over sockets: what is asked, what is taken, and what is said instead."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
from collections.abc import AsyncIterator, Sequence

import pytest
from google.auth.transport.requests import Request
from google.oauth2 import id_token

from proxy.clock import Clocks
from proxy.config.model import Service, Upstream
from proxy.emulator.claims import CALLER, Instance
from proxy.emulator.faults import Answer, Held, Minted, NoFlavor, Reset
from proxy.emulator.metadata import MetadataServer
from proxy.errors import TokenUnavailable
from proxy.identity.access_token import Scopes, read_access_token
from proxy.identity.cache import Outcome, State, TokenCache
from proxy.identity.metadata import Metadata, MetadataSource
from proxy.identity.names import Names
from proxy.identity.source import TokenSourceError
from proxy.identity.token import read_token
from proxy.resolver import AddressInfo, Resolver
from proxy.unreached import CHECK_DNS
from tests.fakes.raw_server import raw_server
from tests.fakes.steering import Time, jitter, settle

AUDIENCE = "https://orders-abc123-uc.a.run.app/päth?a=b&c"


@pytest.fixture
async def server() -> AsyncIterator[MetadataServer]:
    async with MetadataServer() as server:
        yield server


class Pauses(list[float]):
    """Takes the place of `asyncio.sleep`: remembers, and does not wait."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def metadata(server: MetadataServer, pauses: Pauses) -> Metadata:
    return Metadata(server.environ, jitter(), pauses)


@pytest.fixture
def source(metadata: Metadata) -> MetadataSource:
    return MetadataSource(metadata)


async def refusal(source: MetadataSource) -> TokenSourceError:
    with pytest.raises(TokenSourceError) as failure:
        await source.fetch(AUDIENCE)
    return failure.value


async def test_googles_own_verifier_accepts_the_token(
    server: MetadataServer, source: MetadataSource
) -> None:
    token = await source.fetch(AUDIENCE)

    claims = await asyncio.to_thread(
        id_token.verify_token, token, Request(), AUDIENCE, server.certs_url
    )
    assert claims["email"] == CALLER.email
    assert claims["google"]["compute_engine"]["project_id"] == "emulated-project"


async def test_the_request_is_the_documented_one_and_carries_nothing_else(
    server: MetadataServer, source: MetadataSource
) -> None:
    await source.fetch(AUDIENCE)

    [request] = server.requests
    assert request.path == "/computeMetadata/v1/instance/service-accounts/default/identity"
    assert request.query == {"audience": AUDIENCE, "format": "full"}
    assert set(request.headers) == {
        "host",
        "metadata-flavor",
        "user-agent",
        "accept",
        "connection",
    }


async def test_an_http_proxy_in_the_environment_is_not_used(
    server: MetadataServer, source: MetadataSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy":
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    await source.fetch(AUDIENCE)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_statuses_that_pass_are_asked_again(
    server: MetadataServer, source: MetadataSource, pauses: Pauses, status: int
) -> None:
    server.inject(Answer(status=status), times=2)

    await source.fetch(AUDIENCE)
    assert len(server.requests) == 3
    assert 0.05 <= pauses[0] <= 0.1 <= pauses[1] <= 0.2


async def test_pauses_between_attempts_are_spread(
    server: MetadataServer, source: MetadataSource, pauses: Pauses
) -> None:
    """The containers of an instance start together and must not ask in step."""
    for _ in range(5):
        server.inject(Answer(status=503))
        await source.fetch(AUDIENCE)

    assert all(0.05 <= pause <= 0.1 for pause in pauses)
    assert len(set(pauses)) == 5


async def test_a_status_that_does_not_pass_soon_is_told_with_the_first_words(
    server: MetadataServer, source: MetadataSource
) -> None:
    server.inject(Answer(status=503), times=3)

    error = await refusal(source)
    assert error.detail == (
        "status 503, text/html, '<html><title>Error</title><body>Try again later.</body></ht…'"
    )
    assert error.retryable
    assert len(server.requests) == 3


async def test_a_status_that_stays_is_not_asked_again(
    server: MetadataServer, source: MetadataSource
) -> None:
    server.inject(Answer(status=403, body="endpoint is disabled", content_type="text/plain"))

    error = await refusal(source)
    assert error.detail == "status 403, text/plain, 'endpoint is disabled'"
    assert not error.retryable
    assert len(server.requests) == 1


async def test_404_is_explained_as_a_missing_service_account() -> None:
    async with MetadataServer(account=None) as server:
        source = MetadataSource(Metadata(server.environ, jitter()))
        error = await refusal(source)

        assert error.detail.startswith("this instance has no service account (status 404, ")
        assert error.hint is not None
        assert "--service-account=" in error.hint
        assert await source.account() is None


async def test_a_right_answer_without_the_flavor_is_taken(
    server: MetadataServer, source: MetadataSource, metadata: Metadata
) -> None:
    """GKE's server has left the header out of tokens alone."""
    server.inject(NoFlavor(), times=5)

    token = read_token(await source.fetch(AUDIENCE), AUDIENCE, Clocks().wall())
    assert token.email == CALLER.email
    assert (await source.authorize()).member == f"serviceAccount:{CALLER.email}"
    service = Service("orders")
    assert (await Names(metadata).resolve(service)).host.startswith("orders-123456789012.us-")
    assert len(server.requests) == 5


@pytest.mark.parametrize("body", ["<html>Sign in</html>", "ok", "", "a b", '{"access_token": 1}'])
async def test_an_answer_without_the_flavor_that_is_not_right_is_another_servers(
    server: MetadataServer, source: MetadataSource, metadata: Metadata, body: str
) -> None:
    """A captive portal, say, that answers every request by 200."""
    server.inject(Answer(status=200, body=body, headers={"Metadata-Flavor": "Portal"}), times=3)

    errors = [await refusal(source)]
    for attempt in (source.authorize(), Names(metadata).resolve(Service("orders"))):
        with pytest.raises(TokenSourceError) as failure:
            await attempt
        errors.append(failure.value)
    for error in errors:
        assert "some other server answered: status 200, text/html, " in error.detail
        assert error.detail.endswith("without Metadata-Flavor: Google")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("numeric-project-id", "12345.evil.example/"),
        ("numeric-project-id", "emulated-project"),
        ("region", "us-central1"),
        ("region", "projects/1/regions/evil.example/x"),
    ],
)
async def test_a_name_is_made_of_nothing_but_a_number_and_a_region(
    server: MetadataServer, metadata: Metadata, key: str, value: str
) -> None:
    server.inject(Answer(status=200, body=value, content_type="text/plain"), path=f"/{key}")

    with pytest.raises(TokenSourceError, match=f"no value of [a-z]+/{key} came but status 200"):
        await Names(metadata).resolve(Service("orders"))


SENTENCE = (
    "Unable to generate identity token; the Kubernetes service account default/orders has no "
    "annotation iam.gke.io/gcp-service-account, which names the IAM service account that this "
    "pod acts as.\nFor more information, refer to the Workload Identity documentation:\n\t"
    "https://cloud.google.com/kubernetes-engine/docs/how-to/workload-identity\n"
)


@pytest.mark.parametrize("status", [403, 404])
async def test_what_the_server_says_of_a_failure_is_told_whole(
    server: MetadataServer, source: MetadataSource, status: int
) -> None:
    server.inject(Answer(status=status, body=SENTENCE, content_type="text/plain"))

    error = await refusal(source)
    assert f"status {status}, text/plain, '{' '.join(SENTENCE.split())}'" in error.detail
    if status == 404:
        assert error.hint is not None
        assert "`kubectl annotate serviceaccount NAME " in error.hint


@pytest.mark.parametrize(("length", "shown"), [(800, 800), (801, 800)])
async def test_what_the_server_says_is_cut_where_nobody_reads_on(
    server: MetadataServer, source: MetadataSource, length: int, shown: int
) -> None:
    body = ("why " * 300)[: length - 1] + "!"
    server.inject(Answer(status=403, body=body, content_type="text/plain"))

    said = (await refusal(source)).detail.partition(", '")[2]
    assert len(said) == shown + 1
    assert said.endswith("!'" if length == shown else "…'")


@pytest.mark.parametrize(("status", "passes"), [(503, True), (404, False), (200, False)])
async def test_another_server_that_is_overloaded_may_be_asked_again(
    server: MetadataServer, source: MetadataSource, *, status: int, passes: bool
) -> None:
    """A mesh's own proxy may answer while the way to the metadata server is not open yet."""
    server.inject(Answer(status=status, headers={"Metadata-Flavor": "Mesh"}), times=3)

    error = await refusal(source)
    assert error.detail.startswith(f"some other server answered: status {status}, ")
    assert error.retryable is passes


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<html>Sign in</html>", "'<html>Sign in</html>'"),
        ("", "nothing"),
        ("hunter2", "one word of 7 characters"),
        ('{"access_token": "ya29.abcdef"}', '\'{"access_token": "[redacted]"}\''),
    ],
)
async def test_a_200_that_is_no_token_is_named(
    server: MetadataServer, source: MetadataSource, body: str, said: str
) -> None:
    server.inject(Answer(status=200, body=body))

    assert (await refusal(source)).detail == f"no ID token came but status 200, text/html, {said}"


async def test_a_connection_that_is_torn_down_is_told(
    server: MetadataServer, source: MetadataSource
) -> None:
    server.inject(Reset(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"))

    error = await refusal(source)
    assert error.detail == "the connection ended before the answer was complete"
    assert error.retryable


async def test_a_refused_connection_is_told_with_what_to_do() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
        source = MetadataSource(Metadata({"GCE_METADATA_HOST": host}, jitter()))
        error = await refusal(source)

    assert source.describe() == f"metadata server at {host}"
    said = "connection refused: nothing listens there"
    assert (error.detail, error.retryable) == (said, True)
    assert error.hint is not None
    assert "gcloud auth application-default login" in error.hint


async def test_a_network_that_cannot_be_reached_is_told() -> None:
    environ = {"GCE_METADATA_HOST": "255.255.255.255"}
    error = await refusal(MetadataSource(Metadata(environ, jitter())))

    assert error.detail.endswith(": there is no way there from here")
    assert error.retryable


async def test_a_connection_that_does_not_come_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.identity.metadata.CONNECT_WITHIN", 0.05)
    answer = threading.Event()

    def hanging(host: str) -> Sequence[AddressInfo]:
        answer.wait()
        raise socket.gaierror(socket.EAI_NONAME, host)

    resolver = Resolver(look_up=hanging)
    error = await refusal(MetadataSource(Metadata({}, jitter(), resolver=resolver)))
    answer.set()

    assert (error.detail, error.slow) == ("no connection within 0 s", True)


async def test_an_answer_that_does_not_come_is_told(
    server: MetadataServer, source: MetadataSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.identity.metadata.ANSWER_WITHIN", 0.05)
    answer = asyncio.Event()
    server.inject(Held(answer))
    error = await refusal(source)
    answer.set()

    assert (error.detail, error.slow) == ("no answer within 0 s", True)


async def test_a_name_that_does_not_resolve_is_told_with_what_to_do() -> None:
    def no_such_name(host: str) -> Sequence[AddressInfo]:
        assert host == "metadata.google.internal"
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    resolver = Resolver(look_up=no_such_name)
    error = await refusal(MetadataSource(Metadata({}, jitter(), resolver=resolver)))

    said = "Name or service not known: the name does not exist"
    assert (error.detail, error.retryable) == (said, False)
    assert error.hint is not None
    assert "not look like Google Cloud" in error.hint


async def test_a_name_server_that_does_not_answer_is_told_from_a_name_that_is_not_there() -> None:
    def nobody(_host: str) -> Sequence[AddressInfo]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    error = await refusal(MetadataSource(Metadata({}, jitter(), resolver=Resolver(look_up=nobody))))

    said = "Temporary failure in name resolution: no name server has answered"
    assert (error.detail, error.retryable, error.hint) == (said, True, CHECK_DNS)


async def test_gkes_server_is_told_by_its_name_where_it_leaves_the_flavor_out(
    server: MetadataServer, source: MetadataSource
) -> None:
    body = "IAM returned 403 Forbidden: permission iam.serviceAccounts.getOpenIdToken denied on it"
    headers = {"Metadata-Flavor": "", "Server": "GKE Metadata Server"}
    server.inject(Answer(status=403, body=body, content_type="text/plain", headers=headers))

    error = await refusal(source)
    assert error.detail == f"status 403, text/plain, '{body}'"


@pytest.mark.parametrize(
    ("environ", "host", "address"),
    [
        ({}, "metadata.google.internal", ("metadata.google.internal", 80)),
        ({"GCE_METADATA_HOST": "a:8"}, "a:8", ("a", 8)),
        ({"GCE_METADATA_HOST": "a"}, "a", ("a", 80)),
        ({"GCE_METADATA_ROOT": "b:9"}, "b:9", ("b", 9)),
        ({"GCE_METADATA_HOST": "a:8", "GCE_METADATA_ROOT": "b:9"}, "a:8", ("a", 8)),
        ({"GCE_METADATA_HOST": "[::1]:8"}, "[::1]:8", ("::1", 8)),
        ({"GCE_METADATA_HOST": "[::1]"}, "[::1]", ("::1", 80)),
        ({"GCE_METADATA_HOST": "http://a:8"}, "a:8", ("a", 8)),
        ({"GCE_METADATA_HOST": "http://a/"}, "a", ("a", 80)),
        ({"GCE_METADATA_HOST": "http://[::1]:8/"}, "[::1]:8", ("::1", 8)),
        ({"GCE_METADATA_HOST": "a:65535"}, "a:65535", ("a", 65535)),
        ({"GCE_METADATA_HOST": ""}, "metadata.google.internal", ("metadata.google.internal", 80)),
    ],
)
def test_the_environment_may_name_the_server(
    environ: dict[str, str], host: str, address: tuple[str, int]
) -> None:
    metadata = Metadata(environ, jitter())

    assert (metadata.host, metadata._address) == (host, address)


@pytest.mark.parametrize("name", ["GCE_METADATA_HOST", "GCE_METADATA_ROOT"])
@pytest.mark.parametrize(
    "place",
    [
        *("https://a", "a:65536", "a:0", "a:", "a b", "a\r\nX: y", "::1", "http://", "hôte"),
        *("http://user:hunter2@a", "a/computeMetadata", "a?b", "unix:/run/a"),
        '{"private_key": "hunter2"}',
    ],
)
async def test_what_is_no_place_of_a_server_is_told_and_not_shown(name: str, place: str) -> None:
    source = MetadataSource(Metadata({name: place}, jitter()))
    error = await refusal(source)

    assert source.describe() == f"metadata server at what {name} names"
    assert (error.detail, error.retryable) == (f"{name} does not name a server", False)
    assert error.hint is not None
    assert "127.0.0.1:8080" in error.hint


async def test_the_account_is_asked_for_once(
    server: MetadataServer, source: MetadataSource
) -> None:
    server.inject(Answer(status=404))

    assert await source.account() is None
    assert await source.account() == CALLER.email
    assert await source.account() == CALLER.email
    assert len(server.requests) == 2


async def test_it_authorizes_as_the_instances_account(source: MetadataSource) -> None:
    authority = await source.authorize()

    assert authority.headers["Authorization"].startswith("Bearer ya29.")
    assert authority.member == f"serviceAccount:{CALLER.email}"
    assert "ya29." not in repr(authority)


@pytest.mark.parametrize("body", ["[]", '{"token": "a"}', '{"access_token": 1}', "ya29.abc"])
async def test_an_answer_without_access_token_is_named(
    server: MetadataServer, source: MetadataSource, body: str
) -> None:
    server.inject(Answer(status=200, body=body))

    with pytest.raises(TokenSourceError, match="no access token came but status 200") as failure:
        await source.authorize()
    assert "ya29.a" not in failure.value.detail


@pytest.mark.parametrize(
    ("scopes", "query"), [((), {}), (("https://a/b", "email"), {"scopes": "https://a/b,email"})]
)
async def test_scopes_are_asked_for_in_a_list(
    server: MetadataServer,
    source: MetadataSource,
    scopes: tuple[str, ...],
    query: dict[str, str],
) -> None:
    authority = await source.authorize(scopes)

    assert server.requests[0].query == query
    assert authority.token_type == "Bearer"
    assert authority.expires_in == pytest.approx(3599, abs=1)
    assert authority.quota_project == ""


@pytest.mark.parametrize(
    "body",
    [
        '{"access_token": "a", "expires_in": 3599}',
        '{"access_token": "a", "expires_in": "3599", "token_type": "Bearer"}',
        '{"access_token": "a", "expires_in": true, "token_type": "Bearer"}',
        '{"access_token": "a", "expires_in": 1e999, "token_type": "Bearer"}',
        '{"access_token": "a b", "expires_in": 3599, "token_type": "Bearer"}',
        '{"access_token": "a", "expires_in": 30, "token_type": "Bearer"}',
        '{"access_token": "a", "expires_in": 3599, "token_type": "mac"}',
    ],
)
async def test_an_access_token_without_type_or_time_is_not_used(
    server: MetadataServer, source: MetadataSource, body: str
) -> None:
    server.inject(Answer(status=200, body=body))

    with pytest.raises(TokenSourceError, match=r"access token|more than 30 s"):
        read_access_token(await source.authorize(("a",)), Scopes(("a",)), Clocks().wall())


# --- the cache on top


class Traffic:
    """A cache on the emulated server, both on one clock that the test moves."""

    def __init__(self, server: MetadataServer, time: Time, source: MetadataSource) -> None:
        self.server = server
        self.time = time
        self.cache = TokenCache(
            AUDIENCE,
            source,
            clocks=time.clocks,
            jitter=jitter(),
            gate=asyncio.Semaphore(4),
            later=time.later,
            on_fetch=lambda *_: self._ended.set(),
        )
        self._ended = asyncio.Event()

    async def landed(self) -> None:
        """Wait until the fetch that is running, if any, has ended."""
        if self.cache.state.is_fetching:
            self._ended.clear()
            await self._ended.wait()

    async def call(self, patience: float = 0.05) -> str:
        """Make one call; return ``sent`` or the reason for which nothing was sent."""
        caller = asyncio.get_running_loop().create_task(self.cache.get("orders", patience))
        await settle()
        while not caller.done():
            await self.landed()
            await self.time.advance(0.01)
        try:
            token = await caller
        except TokenUnavailable as error:
            return error.reason
        assert self.time.wall < token.expires_at - 30
        return "sent"


@pytest.fixture
async def traffic(pauses: Pauses) -> AsyncIterator[Traffic]:
    time = Time()
    async with MetadataServer(clock=time.clocks.wall) as server:
        metadata = Metadata(server.environ, jitter(), pauses)
        yield Traffic(server, time, MetadataSource(metadata))


async def test_a_thousand_cold_calls_cause_one_fetch(traffic: Traffic) -> None:
    calls = [
        asyncio.get_running_loop().create_task(traffic.cache.get("orders", 10)) for _ in range(1000)
    ]
    tokens = {(await call).value for call in calls}

    assert len(tokens) == 1
    assert traffic.server.asked == {AUDIENCE: 1}


async def test_ten_minutes_without_metadata_server_fail_no_call_while_the_token_is_good(
    traffic: Traffic,
) -> None:
    assert await traffic.call() == "sent"
    # The outage begins 5 minutes before the token expires, and lasts for 10.
    await traffic.time.advance(3300)
    traffic.server.inject(Answer(status=503), times=math.inf)
    outcomes: list[tuple[float, str]] = []
    for second in range(600):
        outcomes.append((second, await traffic.call()))
        await traffic.landed()
        await traffic.time.advance(1)

    good_for = 300 - 30
    assert {outcome for second, outcome in outcomes if second < good_for - 10} == {"sent"}
    assert {outcome for second, outcome in outcomes if second > good_for} == {"token_unavailable"}
    assert traffic.cache.stats["orders", Outcome.FAILED] < 50

    traffic.server.clear_faults()
    waited = 0.0
    while await traffic.call() != "sent":
        await traffic.time.advance(0.5)
        waited += 0.5
    assert waited <= 31


async def test_a_day_of_traffic_renews_each_token_in_the_background(traffic: Traffic) -> None:
    assert await traffic.call() == "sent"
    for _ in range(24 * 60):
        await traffic.time.advance(60)
        assert traffic.cache.current("orders") is not None
        await settle()
        await traffic.landed()

    # Cloud Run's server repeats a token until 100 s before its end, so each is asked for twice.
    assert traffic.server.mint.minted[AUDIENCE] <= 26
    assert len(traffic.server.requests) <= 4 * 26
    assert traffic.cache.last_error is None


async def test_an_expired_token_from_the_server_is_never_used(traffic: Traffic) -> None:
    traffic.server.inject(Minted(lifetime=30))

    assert await traffic.call() == "token_unavailable"
    assert traffic.cache.state is State.BACKING_OFF
    assert traffic.cache.last_error is not None
    assert "expires in 30 s" in traffic.cache.last_error.detail


async def test_a_slow_server_is_asked_once_and_serves_those_who_come_later(
    traffic: Traffic,
) -> None:
    answer = asyncio.Event()
    traffic.server.inject(Held(answer))
    early = asyncio.get_running_loop().create_task(traffic.cache.get("orders", 1))
    await traffic.server.requests.reached(1)
    await traffic.time.advance(1)
    with pytest.raises(Exception, match="no answer in 1"):
        await early
    answer.set()
    await traffic.landed()

    assert await traffic.call() == "sent"
    assert traffic.server.asked == {AUDIENCE: 1}


# --- names


@pytest.mark.parametrize(
    ("service", "host"),
    [
        (Service("orders"), "orders-123456789012.us-central1.run.app"),
        (Service("orders", "europe-west1"), "orders-123456789012.europe-west1.run.app"),
        (Service("orders", "europe-west1", "42"), "orders-42.europe-west1.run.app"),
    ],
)
async def test_a_service_name_becomes_its_deterministic_url(
    metadata: Metadata, service: Service, host: str
) -> None:
    assert await Names(metadata).resolve(service) == Upstream("https", host, 443)


async def test_what_a_name_needs_is_asked_for_once(
    server: MetadataServer, metadata: Metadata
) -> None:
    names = Names(metadata)
    await asyncio.gather(*(names.resolve(Service(f"service-{n}")) for n in range(20)))

    assert [request.path.rpartition("/")[2] for request in server.requests] == [
        "numeric-project-id",
        "region",
    ]


async def test_the_project_is_read(server: MetadataServer, metadata: Metadata) -> None:
    server.instance = Instance(project_id="example.com:shop-1")

    assert await Names(metadata).project() == "example.com:shop-1"


async def test_what_is_no_project_is_refused(server: MetadataServer, metadata: Metadata) -> None:
    server.inject(Answer(status=200, body="Shop/1", headers={"Metadata-Flavor": "Google"}))

    with pytest.raises(TokenSourceError, match="project/project-id"):
        await Names(metadata).project()


async def test_a_full_name_needs_no_metadata_server() -> None:
    names = Names(Metadata({"GCE_METADATA_HOST": "127.0.0.1:1"}, jitter()))

    assert (await names.resolve(Service("a", "b", "3"))).host == "a-3.b.run.app"


async def test_where_there_is_no_region_the_zone_tells_it(
    server: MetadataServer, metadata: Metadata
) -> None:
    server.instance = Instance(region="europe-west4")
    server.inject(Answer(status=404), path="/region")

    upstream = await Names(metadata).resolve(Service("orders"))
    assert upstream.host == "orders-123456789012.europe-west4.run.app"


async def test_a_name_that_cannot_be_resolved_says_what_to_write_and_is_tried_again(
    server: MetadataServer, metadata: Metadata
) -> None:
    server.inject(Answer(status=403, body="no way"))
    names = Names(metadata)

    with pytest.raises(TokenSourceError) as failure:
        await names.resolve(Service("orders"))
    assert failure.value.detail == (
        "service orders cannot be resolved: metadata server: status 403, text/html, 'no way'"
    )
    assert failure.value.hint is not None
    assert "orders.REGION.PROJECT_NUMBER" in failure.value.hint
    assert not failure.value.retryable
    assert (await names.resolve(Service("orders"))).host.startswith("orders-")


async def test_a_name_that_cannot_be_resolved_for_now_says_so(
    server: MetadataServer, metadata: Metadata
) -> None:
    server.inject(Answer(status=503), times=3)

    with pytest.raises(TokenSourceError, match="status 503") as failure:
        await Names(metadata).resolve(Service("orders"))
    assert failure.value.retryable


@pytest.mark.parametrize(("length", "fits"), [(49, True), (50, True), (51, False)])
async def test_a_name_too_long_for_dns_has_no_deterministic_url(
    metadata: Metadata,
    length: int,
    fits: bool,  # noqa: FBT001 (a table)
) -> None:
    service = Service("s" * length)
    if fits:
        assert len((await Names(metadata).resolve(service)).host.partition(".")[0]) == length + 13
    else:
        with pytest.raises(TokenSourceError, match="longer than 63 characters"):
            await Names(metadata).resolve(service)


async def test_a_server_that_speaks_something_else_is_told() -> None:
    async with raw_server(b"220 mail.example ESMTP\r\n\r\n") as other:
        environ = {"GCE_METADATA_HOST": f"127.0.0.1:{other.port}"}
        error = await refusal(MetadataSource(Metadata(environ, jitter())))

    assert error.detail == "what came is no valid HTTP response"
