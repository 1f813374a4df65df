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

# Whether the process $1, and not a stranger, listens on the port $2: one of its files is that socket. Where there is no
# /proc to say so, a store tells its process by INFO.
is_ours() {
  local pid=$1 at socket line
  kill -0 "$pid" 2>/dev/null || return 1
  if [ -r /proc/net/tcp ]; then
    at=$(printf ':%04X' "$2")
    for socket in $(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
      awk -v at="$at" '$4 == "0A" && substr($2, length($2) - 4) == at { print $10 }'); do
      find "/proc/$pid/fd" -lname "socket:\[$socket\]" 2>/dev/null | grep -q . && return 0
    done
    return 1
  fi
  (
    exec 3<>"/dev/tcp/127.0.0.1/$2" && printf 'INFO server\r\n' >&3 || exit 1
    while IFS= read -r -t 2 line <&3; do [ "${line%$'\r'}" != "process_id:$pid" ] || exit 0; done
    exit 1
  ) 2>/dev/null
}
# Ends the script where a stranger answers in the place of what it started.
must_be_ours() {
  is_ours "$1" "$2" || { say "port $2 is not, or no more, that of the server started here: nothing is sent to it"; exit 69; }
}

# User and system time of these processes, in ticks of 10 ms.
ticks() {
  local sum=0 line
  for pid in "$@"; do
    line=$(cat "/proc/$pid/stat")
    # shellcheck disable=SC2086
    set -- ${line##*) }
    sum=$((sum + ${12} + ${13}))
  done
  echo "$sum"
}

# The first server of the Redis protocol that is here.
a_server() {
  command -v dragonfly || command -v valkey-server || command -v redis-server ||
    { say "install dragonfly, valkey or redis"; exit 69; }
}

# Starts this server of the Redis protocol on loopback, with what flags come behind it, and sets `port` and `store_pid`.
# A port that somebody else has, or takes in the same moment, is left to them. The first to be tried is `first_port`,
# where it is set.
start_store() {
  local server=$1 flags own=()
  shift
  case "$server" in
    # As scripts/dragonfly does; for the store alone, as kvpoc heeds the same variable.
    *dragonfly) flags=(--bind=127.0.0.1 --dbfilename=) own=(env MIMALLOC_PURGE_DELAY=-1) ;;
    *) flags=(--bind 127.0.0.1 --save '' --appendonly no) ;;
  esac
  for _ in 1 2 3; do
    port=${first_port:-$(a_port)}
    first_port=""
    ${own[@]+"${own[@]}"} "$server" "${flags[@]}" --port "$port" "$@" >"$work/store.log" 2>&1 &
    store_pid=$!
    pids+=("$store_pid")
    # One whose port is taken ends at once.
    for _ in $(seq 100); do
      sleep 0.1
      kill -0 "$store_pid" 2>/dev/null || break
      if is_ours "$store_pid" "$port"; then return; fi
    done
  done
  cat "$work/store.log" >&2
  exit 69
}

# Starts a serve with these flags, and sets `serve_pid` and `target`. Its log goes to the file that `serve_log` names.
start_serve() {
  local log=${serve_log:-$work/serve.log}
  rm -f "$work/serve.out"
  "$kvpoc" serve --port 0 --wait-for-store 0s "$@" >"$work/serve.out" 2>"$log" &
  serve_pid=$!
  pids+=("$serve_pid")
  # The first line comes when every thread answers; a serve that ended instead has said why.
  until [ -s "$work/serve.out" ]; do
    kill -0 "$serve_pid" 2>/dev/null || { cat "$log" >&2; exit 69; }
    sleep 0.05
  done
  target=$(grep -o 'http://[0-9.:]*' "$work/serve.out")
}
