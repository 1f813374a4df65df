# What the scripts share, sourced by them: they run in the project's folder, untouched by the settings of the caller's
# other work, and whatever they start ends with them.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset "${!KVPOC_@}"

say() { echo "scripts/$(basename "$0"): $*" >&2; }
have() { command -v "$1" >/dev/null; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
# The comment that a script begins with.
help() { sed -n '1d; /^#/!q; s/^# \{0,1\}//p' "$0"; }
unknown() { say "unknown argument $1; see scripts/$(basename "$0") --help"; exit 64; }

work=$(mktemp -d)
pids=()
clean_up() {
  for pid in ${pids[@]+"${pids[@]}"}; do kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Packages of a Debian's; what cannot be had is missing afterwards. They would start services of their own, which are
# not ours to run.
installed=""
install() {
  have apt-get || return 0
  [ -n "$installed" ] || as_root apt-get update -qq >&2
  installed=yes
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "$@" >&2 || true
}

# A Python of its own in this folder, to install into.
python_in() {
  python3 -c 'import ensurepip' 2>/dev/null || install python3-venv
  python3 -m venv "$1"
}

build() {
  cargo build --release --locked "$@"
  kvpoc=${CARGO_TARGET_DIR:-target}/release/kvpoc
}

# Below the ports that the system gives away itself.
a_port() { echo $((20000 + RANDOM % 10000)); }

# The first server of the Redis protocol that is here.
a_server() {
  command -v dragonfly || command -v valkey-server || command -v redis-server ||
    { say "install dragonfly, valkey or redis"; exit 69; }
}

# Starts this server of the Redis protocol on loopback, with what flags come behind it, and sets `port`.
start_store() {
  local server=$1 flags
  shift
  case "$server" in
    *dragonfly) flags=(--bind=127.0.0.1 --dbfilename=) ;;
    *) flags=(--bind 127.0.0.1 --save '' --appendonly no) ;;
  esac
  for _ in 1 2 3; do
    port=$(a_port)
    "$server" "${flags[@]}" --port "$port" "$@" >"$work/store.log" 2>&1 &
    pids+=($!)
    # One whose port is taken ends at once.
    while sleep 0.1 && kill -0 "${pids[-1]}" 2>/dev/null; do
      if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
    done
  done
  cat "$work/store.log" >&2
  exit 69
}

# Starts a serve with these flags, and sets `serve_pid` and `target`. Its log goes to the file that `serve_log` names.
start_serve() {
  local log=${serve_log:-$work/serve.log}
  rm -f "$work/serve.out"
  "$kvpoc" serve --port 0 "$@" >"$work/serve.out" 2>"$log" &
  serve_pid=$!
  pids+=("$serve_pid")
  # The first line comes when every thread answers; a serve that ended instead has said why.
  until [ -s "$work/serve.out" ]; do
    kill -0 "$serve_pid" 2>/dev/null || { cat "$log" >&2; exit 69; }
    sleep 0.05
  done
  target=$(grep -o 'http://[0-9.:]*' "$work/serve.out")
}
