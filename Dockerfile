# Two stages on one base: the first has pip and what it needs, the second only what runs.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" -t cloud-run-auth-proxy .
#
# --build-arg EXTRAS=[otel] brings along what `pip install cloud-run-auth-proxy[otel]` would.
# The image listens on nothing but loopback unless its configuration says otherwise.

# By digest, so that the same sources make the same image: the index of all architectures, as
# `docker buildx imagetools inspect python:3.13.15-slim-bookworm` names it.  The tag says what it is,
# and has no effect beside a digest; Dependabot moves both.
FROM python:3.13.15-slim-bookworm@sha256:ed86c82274b3c69b52fb5820f358f0bd7df0b603332063cb5c6e32bd220c3e6e AS base

FROM base AS build
ARG EXTRAS=
WORKDIR /src
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY locks ./locks
COPY proxy ./proxy
COPY cloud_run_auth_proxy ./cloud_run_auth_proxy
# For the data path; of the dependencies only ready-made wheels are taken.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
# What runs and what builds, by version and hash: an index that serves anything else fails here.
RUN pip --no-cache-dir download --only-binary :all: --require-hashes --dest /wheels -r locks/run.txt \
 && python -m venv /opt/build \
 && /opt/build/bin/pip --no-cache-dir install --only-binary :all: --require-hashes \
      -r locks/build.txt
# The time in what is built, so that the same commit makes the same wheel.
ARG SOURCE_DATE_EPOCH=1580601600
RUN HATCH_BUILD_HOOKS_ENABLE=1 \
    /opt/build/bin/pip --no-cache-dir wheel --no-build-isolation --no-deps \
      --wheel-dir /wheels . \
 && python -m venv --without-pip /opt/auth-proxy \
 && pip --python /opt/auth-proxy/bin/python install --no-cache-dir --no-index \
      --find-links /wheels "cloud-run-auth-proxy${EXTRAS}" \
# Bytecode that is valid whatever happens to file times on the way into a registry.
 && python -m compileall -q -f --invalidation-mode unchecked-hash /opt/auth-proxy/lib

FROM base
ARG REVISION=unknown
ARG VERSION=unknown
ARG SOURCE=https://github.com/cloud-run-auth-proxy/cloud-run-auth-proxy
LABEL org.opencontainers.image.title="cloud-run-auth-proxy" \
      org.opencontainers.image.description="A sidecar that adds Google ID tokens to calls between Cloud Run services" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.url="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/auth-proxy /opt/auth-proxy
ENV PATH=/opt/auth-proxy/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    # The user below has no home; without one, libraries that look for settings would fail.
    HOME=/nonexistent
# The base image comes without bytecode of the standard library and the user below could not
# write any: starting would compile it each time.  Loading the program once keeps what it needs.
# An image without CA certificates would build and then trust nobody.
RUN test -s /etc/ssl/certs/ca-certificates.crt \
 && python -c "import uvloop, proxy.cli, proxy.demo, proxy.ops.admin, proxy.ops.metrics" \
 && cloud-run-auth-proxy --version
# By number: Kubernetes' runAsNonRoot cannot judge a name.
USER 65532:65532
WORKDIR /
EXPOSE 8081 9090
STOPSIGNAL SIGTERM
ENTRYPOINT ["cloud-run-auth-proxy"]
