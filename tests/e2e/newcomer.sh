#!/bin/sh
# A newcomer's first hour, as one script: install the wheel into an empty environment, start what the
# Compose file starts, call, make a mistake, let doctor find it, mend it, call again.
#
#   newcomer.sh WHEEL LOCK COMPOSE_APP...
#
# LOCK has the versions of what the wheel needs.  COMPOSE_APP is what the app of deploy/compose runs,
# with the ports below in place of its own.  It works in the current folder, which is empty.
# LISTEN, ADMIN, FRONT, METADATA: ports that are free.  PYTHON: what makes the environment.
set -eu

say() { printf '\n== %s\n' "$*"; }

started=
# A program in the background, which ends with this script.
begin() { "$@" & started="$started $!"; }
trap 'kill $started 2>/dev/null || true; wait' EXIT

# Wait at most 60 s until a text is in a file.
appears() {
  tries=600
  until grep -qs "$1" "$2"; do
    tries=$((tries - 1))
    test $tries -gt 0 || { echo "$2 does not say: $1" >&2; cat "$2" >&2; exit 1; }
    sleep 0.1
  done
}

wheel=$1 lock=$2
shift 2

say "an empty environment, and the wheel"
# With a pip from outside, without byte code, and nothing to resolve: half of the time.
"$PYTHON" -m venv --without-pip env
install() { "$PYTHON" -m pip --python env --disable-pip-version-check --quiet install --no-compile "$@"; }
install --no-deps --require-hashes --requirement "$lock"
install --no-deps "$wheel"
PATH="$PWD/env/bin:$PATH"
cloud-run-auth-proxy --version

say "the services of the Compose file, as processes"
begin cloud-run-auth-proxy demo --port "$LISTEN" --admin "localhost:$ADMIN" >demo.log 2>&1
cloud-run-auth-proxy wait --admin "localhost:$ADMIN" --timeout 60s
curl "$@"
kill $started
wait
started=

say "a service of one's own, behind a front that wants tokens"
begin cloud-run-auth-proxy emulator --listen "localhost:$FRONT" --metadata "localhost:$METADATA" >emulator.env 2>front.log
appears "Ctrl-C" emulator.env
. ./emulator.env
cat >proxy.yaml <<END
routes:
  orders:
    path: /orders
    upstream: https://localhost:$FRONT
    audience: https://orders.example.com
END
cloud-run-auth-proxy check --config proxy.yaml
begin cloud-run-auth-proxy run --config proxy.yaml --listen "localhost:$LISTEN" --admin "localhost:$ADMIN" 2>proxy.log
proxy=$!
cloud-run-auth-proxy wait --admin "localhost:$ADMIN" --timeout 60s

call() { curl --silent --output answer --write-out '%{http_code}\n' "http://localhost:$LISTEN/orders/42"; }

say "a call that fails"
call

say "doctor finds it"
cloud-run-auth-proxy doctor orders --config proxy.yaml && exit 1

say "mended: without the audience, and read again"
sed -i.bak /audience/d proxy.yaml
kill -HUP $proxy
appears "the configuration was taken" proxy.log

say "the same call"
call
cat answer

say "doctor again"
cloud-run-auth-proxy doctor orders --config proxy.yaml

say "the end"
kill $proxy
wait $proxy
