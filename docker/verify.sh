#!/usr/bin/env bash
# Build the image, run it, use it over HTTP, and start it again on the same volume.
#
#   docker/verify.sh [docker | podman | buildah]      (without a word: the first that is there)
#
# Needs curl, and one of:
#   docker, podman   an engine that builds with BuildKit or Buildah; it may pull the base image
#   buildah          no engine at all: root, buildah, and debootstrap to make a base image of Debian
#                    (apt-get install buildah debootstrap). 5 to 10 minutes, 3 GB in $TMPDIR.
#
# Reads from the environment, all optional:
#   BASE                        the base image, instead of the Dockerfile's or of debootstrap's
#   PIP_CONFIG_FILE, PIP_CERT   as pip reads them: given to the build as secrets, so that it can
#                               use this machine's package index; they do not stay in the image
#   VERIFY_STORAGE              buildah: a directory that keeps the images from run to run
#
# The server is reached on a loopback port. Without an engine it also listens on loopback alone, is
# in the host's network and keeps the host's kernel limits: what only an engine can do (a read-only
# root, dropped capabilities, the memory limit) is then left out, and said so.
set -euo pipefail
cd "$(dirname "$0")/.."

uid=10001
name=closeby-verify-$$
image=localhost/closeby:verify
scratch=$(mktemp -d "${TMPDIR:-/tmp}/closeby-verify.XXXXXX")
server_job=

say() { printf 'verify: %s\n' "$*"; }
fail() {
  printf 'verify: FAILED: %s\n' "$*" >&2
  exit 1
}

engine=${1:-}
if [ -z "$engine" ]; then
  for candidate in docker podman buildah; do
    if [ "$candidate" = buildah ] || "$candidate" info > /dev/null 2>&1; then
      engine=$candidate
      break
    fi
  done
fi
command -v "$engine" > /dev/null || fail "$engine is not installed"
command -v curl > /dev/null || fail "curl is not installed"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

build_options=(--file docker/Dockerfile --tag "$image")
[ -z "${PIP_CONFIG_FILE:-}" ] || build_options+=(--secret "id=pip.conf,src=$PIP_CONFIG_FILE")
[ -z "${PIP_CERT:-}" ] || build_options+=(--secret "id=ca.pem,src=$PIP_CERT")

# --- the same few verbs for an engine, and for buildah alone ------------------------------------
case $engine in
  docker | podman)
    [ -z "${BASE:-}" ] || build_options+=(--build-arg "BASE=$BASE")
    build() { "$engine" build "${build_options[@]}" .; }
    start() {
      "$engine" run --detach --name "$name" --volume "$name:/data" --publish "127.0.0.1:$port:8080" \
        --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --memory 2g \
        "$image" > /dev/null
    }
    inside() { "$engine" exec "$name" "$@"; }
    stop() {
      "$engine" stop --time 45 "$name" > /dev/null
      local code
      code=$("$engine" inspect --format '{{.State.ExitCode}}' "$name")
      "$engine" rm "$name" > /dev/null
      [ "$code" = 0 ] || fail "the server exited with $code after SIGTERM"
    }
    written_outside_data() { :; } # the root is read-only: the server would have failed
    clean() {
      "$engine" logs "$name" 2> /dev/null | tail -20 || true
      "$engine" rm --force "$name" > /dev/null 2>&1 || true
      "$engine" volume rm "$name" > /dev/null 2>&1 || true
    }
    ;;
  buildah)
    storage=${VERIFY_STORAGE:-$scratch}
    base=localhost/closeby-base:bookworm
    buildah() { command buildah --storage-driver vfs --root "$storage/storage" --runroot "$storage/run" "$@"; }
    make_base() {
      BASE=$base
      ! buildah inspect --type image "$base" > /dev/null 2>&1 || return 0
      command -v debootstrap > /dev/null || fail "give BASE, or install debootstrap"
      say "making a base image with debootstrap (Debian bookworm, python3)"
      debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
        bookworm "$scratch/base" > "$scratch/debootstrap.log" \
        || { tail -5 "$scratch/debootstrap.log"; fail "debootstrap"; }
      rm -rf "$scratch"/base/var/cache/apt/archives/*.deb "$scratch"/base/var/lib/apt/lists/*
      tar --create --directory "$scratch/base" --file "$scratch/base.tar" .
      local container
      container=$(buildah from scratch)
      buildah add --quiet "$container" "$scratch/base.tar" / > /dev/null
      buildah commit --quiet --rm --format docker "$container" "$base" > /dev/null
      rm -rf "$scratch/base" "$scratch/base.tar"
    }
    build() {
      [ -n "${BASE:-}" ] || make_base
      buildah bud --isolation chroot --format docker --build-arg "BASE=$BASE" "${build_options[@]}" .
      buildah from --name "$name" "$image" > /dev/null
      # Else a volume of buildah's own is laid over the one that is given below.
      buildah config --volume /data- "$name"
      install --directory --owner="$uid" --group="$uid" --mode=0750 "$scratch/data"
    }
    run_in_container() { buildah run --isolation chroot --volume "$scratch/data:/data" "$name" -- "$@"; }
    start() {
      touch "$scratch/started"
      # There is no namespace of processes here: the shell's number becomes the server's by exec.
      run_in_container sh -c 'echo "pid $$"; exec env CLOSEBY_HOST=127.0.0.1 CLOSEBY_PORT='"$port"' closeby serve' \
        > "$scratch/server.log" 2>&1 &
      server_job=$!
    }
    signal_server() { kill "-$1" "$(sed -n '1s/^pid //p' "$scratch/server.log")"; }
    inside() { run_in_container env CLOSEBY_PORT="$port" "$@"; }
    stop() {
      signal_server TERM
      local code=0
      wait "$server_job" || code=$?
      server_job=
      [ "$code" = 0 ] || fail "the server exited with $code after SIGTERM"
      [ -n "$(ls "$scratch/data")" ] || fail "the volume is empty"
    }
    written_outside_data() {
      # Only what its user could have written: buildah itself touches files as root.
      find "$(buildah mount "$name")" -xdev -newer "$scratch/started" -user "$uid" -not -path '*/data' -print
    }
    clean() {
      if [ -n "$server_job" ]; then
        signal_server KILL || true
        wait "$server_job" 2> /dev/null || true
        tail -20 "$scratch/server.log" || true
      fi
      buildah umount "$name" > /dev/null 2>&1 || true
      buildah rm "$name" > /dev/null 2>&1 || true
    }
    ;;
  *) fail "unknown engine: $engine" ;;
esac
trap 'clean; rm -rf "$scratch"' EXIT

url=http://127.0.0.1:$port
call() { curl --silent --show-error --fail-with-body --noproxy '*' --max-time 20 --header 'content-type: application/json' "$@"; }
wait_until_ready() {
  for _ in $(seq 120); do
    call "$url/readyz" > /dev/null 2>&1 && return
    sleep 0.5
  done
  fail "$url/readyz did not answer within a minute"
}
expect() {
  local what=$1 pattern=$2 answer
  shift 2
  answer=$(call "$@") || fail "$what: $answer"
  [[ ${answer//[[:space:]]/} == *"$pattern"* ]] || fail "$what: expected $pattern in $answer"
  say "$what: $pattern"
}
query() {
  expect "$1" '"id":2' "$url/v1/collections/names/query" \
    --data '{"text": "near neighbour searching", "limit": 1}'
}

# --- the run ------------------------------------------------------------------------------------
started=$SECONDS
say "building with $engine"
build
say "built in $((SECONDS - started)) s"

start
wait_until_ready
[ "$(inside id -u)" = "$uid" ] || fail "the container's user is not $uid"
say "runs as user $uid"
inside python /opt/closeby/healthcheck.py || fail "the health check"
say "the health check passes"
inside sh -c '! touch /opt/closeby/x /usr/x /etc/x 2> /dev/null' || fail "the user can write to the image"
inside python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("pip") is not None)' \
  || fail "pip is in the image"
inside sh -c '! ls /etc/pip.conf /run/secrets /src 2> /dev/null' \
  || fail "something of the build was left in the image"

expect "create" '"metric":"jaccard"' --request PUT "$url/v1/collections/names" \
  --data '{"metric": "jaccard", "features": {"kind": "shingles", "unit": "char", "n": 3}}'
expect "upsert" '"upserted":3' "$url/v1/collections/names/points:upsert" \
  --data '{"ids": [1, 2, 3], "texts": ["exact cosine similarity", "near neighbour search", "gradient descent"]}'
query "query"

stop
say "stopped cleanly"
outside=$(written_outside_data)
[ -z "$outside" ] || fail "written outside /data: $outside"
start
wait_until_ready
query "query after a restart on the same volume"
stop
[ "$engine" != buildah ] || say "left out, for they need an engine: read-only root, capabilities, memory limit"
say "passed in $((SECONDS - started)) s"
