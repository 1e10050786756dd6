# Parts of run.sh: processes started and ended, what they cost, numbers out of JSON. Sourced, never run.

say() { printf '%s\n' "$*" >&2; }
die() { say "bench: $*"; exit 1; }

PIDS=""

# Ends what was started, and only that.
cleanup() {
    set +e
    for pid in $PIDS; do kill "$pid" 2>/dev/null; done
    for pid in $PIDS; do wait "$pid" 2>/dev/null; done
    rm -rf "$DIR"
}

# stop PID: ends one of them early.
stop() {
    kill "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
    PIDS=${PIDS/ $1/}
}

# wait_for WHAT PID COMMAND..: until COMMAND succeeds, for 30 s at the most, as long as PID lives.
wait_for() {
    local what=$1 pid=$2 i
    shift 2
    for ((i = 0; i < 600; i++)); do
        if "$@" 2>/dev/null; then return 0; fi
        kill -0 "$pid" 2>/dev/null || die "$what ended; its log: $(tail -n 20 "$DIR"/*.log 2>/dev/null)"
        sleep 0.05
    done
    die "$what was not ready in 30 s; its log: $(tail -n 20 "$DIR"/*.log 2>/dev/null)"
}

port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A port of loopback that nobody listens on right now.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 10000))
        port_answers "$port" || { echo "$port"; return; }
    done
}

# descendants PID: it and its children, which for nginx are the workers.
descendants() { echo "$1"; cat "/proc/$1/task/$1/children" 2>/dev/null | tr ' ' '\n' | grep . || true; }

# cpu_us PID: user and system time of it and its children so far, in microseconds.
cpu_us() {
    local pid sum=0 ticks
    for pid in $(descendants "$1"); do
        # Behind the command's closing bracket utime and stime are fields 12 and 13.
        ticks=$(sed 's/.*) //' "/proc/$pid/stat" | awk '{print $12 + $13}')
        sum=$((sum + ticks))
    done
    echo $((sum * 1000000 / $(getconf CLK_TCK)))
}

# rss_kb PID: memory in use.
rss_kb() { awk '/^VmRSS:/ {print $2}' "/proc/$1/status"; }

# number FILE [OBJECT] KEY: a number out of the pretty JSON that `gateway bench` writes.
number() {
    if [ $# -eq 2 ]; then
        awk -F'[:,]' -v key="\"$2\"" 'index($1, key) && $1 ~ /^  "/ {gsub(/ /, "", $2); print $2; exit}' "$1"
    else
        awk -F'[:,]' -v object="\"$2\":" -v key="\"$3\"" '
            !inside && index($0, "  " object) == 1 {inside = 1; next}
            inside && /}/ {exit}
            inside && index($1, key) {gsub(/ /, "", $2); print $2; exit}' "$1"
    fi
}

# ensure_nginx: finds nginx or installs it; says why when it cannot.
ensure_nginx() {
    command -v nginx >/dev/null && return 0
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        say "bench: nginx is not installed and cannot be installed from here (needs root and apt):"
        say "       sudo apt-get install nginx-light   to see the ratio to it; going on without"
        return 1
    fi
    say "bench: installing nginx-light"
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nginx-light >"$DIR/apt.out" 2>&1 \
        || { apt-get update >>"$DIR/apt.out" 2>&1 \
            && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nginx-light >>"$DIR/apt.out" 2>&1; } \
        || { say "bench: nginx-light could not be installed, going on without: $(tail -n 3 "$DIR/apt.out")"; return 1; }
    # The package starts a server of its own; the benchmark brings its own configuration.
    if [ -d /run/systemd/system ]; then systemctl stop nginx >/dev/null 2>&1 || true; fi
    command -v nginx >/dev/null
}

# start_upstream: the mock, on a free port; sets UPSTREAM and UPSTREAM_PID.
start_upstream() {
    "$BIN/scripted-upstream" --listen 127.0.0.1:0 --lean --script "$DIR/script.json" \
        --address-file "$DIR/upstream.addr" >"$DIR/upstream.log" 2>&1 &
    UPSTREAM_PID=$!
    PIDS="$PIDS $UPSTREAM_PID"
    wait_for "the scripted upstream" "$UPSTREAM_PID" test -s "$DIR/upstream.addr"
    UPSTREAM=$(cat "$DIR/upstream.addr")
}

# start_nginx: sets NGINX and NGINX_PID.
start_nginx() {
    local port user=""
    port=$(free_port)
    NGINX=127.0.0.1:$port
    if [ "$(id -u)" -eq 0 ]; then user="user root;"; fi
    sed -e "s|@DIR@|$DIR|g" -e "s|@LISTEN@|$NGINX|" -e "s|@UPSTREAM@|$UPSTREAM|" -e "s|@USER@|$user|" \
        "$HERE/nginx.conf.in" >"$DIR/nginx.conf"
    nginx -e "$DIR/nginx-error.log" -c "$DIR/nginx.conf" >"$DIR/nginx.log" 2>&1 &
    NGINX_PID=$!
    PIDS="$PIDS $NGINX_PID"
    wait_for nginx "$NGINX_PID" port_answers "$port"
}

# start_gateway NAME: one node on a data directory of its own; sets GATEWAY, GATEWAY_PID and KEY.
start_gateway() {
    local data=$DIR/$1 admin
    admin=adm_$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    mkdir -p "$data"
    sed -e "s|@DATA@|$data|g" -e "s|@UPSTREAM@|$UPSTREAM|g" -e "s|@ADMIN_KEY@|$admin|" -e "s|@TOKENIZER@|$TOKENIZER|" \
        "$HERE/gateway.toml.in" >"$data.toml"
    "$BIN/gatewayd" serve --config "$data.toml" >"$data.log" 2>&1 &
    GATEWAY_PID=$!
    PIDS="$PIDS $GATEWAY_PID"
    wait_for gatewayd "$GATEWAY_PID" test -s "$data/ready.json"
    GATEWAY=$(sed 's/.*"address" *: *"\([^"]*\)".*/\1/' "$data/ready.json" | head -n 1)
    KEY=$(curl -fsS -X POST "http://$GATEWAY/api/v1/admin/keys" -H "Authorization: Bearer $admin" \
        -H 'content-type: application/json' -d '{"name":"bench"}' | grep -o 'tok_[A-Za-z0-9_-]\{20,\}' | head -n 1)
    [ -n "$KEY" ] || die "gatewayd made no key; its log: $(tail -n 20 "$data.log")"
}

# bench ADDRESS ARGS..: becomes the load generator; the one place that knows how it is called. Only in subshells.
bench() {
    local address=$1
    shift
    exec "$BIN/gateway" --endpoint "http://$address" --output json bench --api-key "${KEY:-none}" --quiet "$@"
}

# load ADDRESS OUT ARGS..: runs it to its end.
load() {
    local address=$1 out=$2
    shift 2
    (bench "$address" "$@") >"$out" 2>"$out.err" || die "gateway bench failed against $address: $(cat "$out.err")"
}
