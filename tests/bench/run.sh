#!/usr/bin/env bash
# `make bench`: the gateway with everything on, beside a plain nginx proxy and no proxy at all, in front of the same
# mock, in one run: rounds of all targets in turn, so that what disturbs the machine disturbs them alike.
#
# BENCH_ROUNDS (5; 0 measures memory only), BENCH_REQUESTS (20000 a cell at concurrency 64; a fifth of it at 1), BENCH_QUEUED (10000),
# BENCH_TOKENIZER (o200k_base), BENCH_PROFILE (release), BENCH_BIN to measure the programs of a folder and build nothing,
# BENCH_STRICT=1 to fail when an aim is missed.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
DIR=$(mktemp -d)
. "$HERE/lib.sh"
trap cleanup EXIT
trap 'exit 130' INT TERM

ROUNDS=${BENCH_ROUNDS:-5}
REQUESTS=${BENCH_REQUESTS:-20000}
QUEUED=${BENCH_QUEUED:-10000}
TOKENIZER=${BENCH_TOKENIZER:-o200k_base}
PROFILE=${BENCH_PROFILE:-release}
NGINX_PID=""
KEY=""

[ -r /proc/self/stat ] || die "needs /proc: CPU and memory are read there"
command -v curl >/dev/null || die "needs curl (apt-get install curl)"
ulimit -n "$(ulimit -Hn)"

cd "$ROOT"
BIN=${BENCH_BIN:-}
if [ -z "$BIN" ]; then
    say "bench: building ($PROFILE)"
    if [ "$PROFILE" = debug ]; then flag=dev; else flag=$PROFILE; fi
    cargo build --quiet --profile "$flag" -p tokligence-node -p tokligence-test-support --bins
    BIN=${CARGO_TARGET_DIR:-$ROOT/target}/$PROFILE
fi

# measure ROUND CELL TARGET ADDRESS PID CONCURRENCY PROMPT_BYTES REQUESTS: one cell, appended to the rows.
measure() {
    local round=$1 cell=$2 target=$3 address=$4 pid=$5 concurrency=$6 bytes=$7 requests=$8
    local out=$DIR/$cell-$target-$round.json before=0 after=0 mock_before mock_after ok
    load "$address" "$DIR/warm.json" --model bench -c "$concurrency" -n $((concurrency * 4 + 50)) --prompt-bytes "$bytes"
    [ -z "$pid" ] || before=$(cpu_us "$pid")
    mock_before=$(cpu_us "$UPSTREAM_PID")
    load "$address" "$out" --model bench -c "$concurrency" -n "$requests" --prompt-bytes "$bytes"
    [ -z "$pid" ] || after=$(cpu_us "$pid")
    mock_after=$(cpu_us "$UPSTREAM_PID")
    ok=$(number "$out" ok)
    [ "$ok" = "$requests" ] || die "$target answered $ok of $requests requests properly in $cell: $(cat "$out")"
    printf '%s %s %s %s %s %s %s %s\n' "$round" "$cell" "$target" "$(number "$out" latency p50_ms)" \
        "$(number "$out" latency p99_ms)" "$(number "$out" requests_per_sec)" \
        "$(awk "BEGIN {print ($after - $before) / $requests}")" \
        "$(awk "BEGIN {print ($mock_after - $mock_before) / $requests}")" >>"$DIR/rows"
}

# round N: every cell against every target, the order of the targets turning with the round.
round() {
    local cell name concurrency bytes requests targets target
    case $(($1 % 3)) in
        0) targets="direct nginx gateway" ;;
        1) targets="nginx gateway direct" ;;
        *) targets="gateway direct nginx" ;;
    esac
    for cell in "1k-c1 1 900 $((REQUESTS / 5))" "1k-c64 64 900 $REQUESTS" \
        "16k-c1 1 16384 $((REQUESTS / 5))" "16k-c64 64 16384 $((REQUESTS / 2))"; do
        read -r name concurrency bytes requests <<<"$cell"
        for target in $targets; do
            case $target in
                direct) measure "$1" "$name" direct "$UPSTREAM" "" "$concurrency" "$bytes" "$requests" ;;
                nginx) [ -z "$NGINX_PID" ] \
                    || measure "$1" "$name" nginx "$NGINX" "$NGINX_PID" "$concurrency" "$bytes" "$requests" ;;
                gateway) measure "$1" "$name" gateway "$GATEWAY" "$GATEWAY_PID" "$concurrency" "$bytes" "$requests" ;;
            esac
        done
    done
}

queue_depth() {
    curl -fsS "http://$GATEWAY/metrics" | awk '/^tokligence_scheduling_queue_depth/ {sum += $NF} END {print sum + 0}'
}
queue_is_full() { [ "$(queue_depth)" -ge "$QUEUED" ]; }

# memory NAME ARGS..: a fresh gateway, idle and with requests queued behind one that is never answered; ARGS say how the
# load speaks HTTP. Sets IDLE_KB and FULL_KB.
memory() {
    local name=$1 loader
    shift
    start_gateway "$name"
    load "$GATEWAY" "$DIR/warm.json" --model bench -c 1 -n 100 --prompt-bytes 900
    IDLE_KB=$(rss_kb "$GATEWAY_PID")
    bench "$GATEWAY" --model queued -c $((QUEUED + 1)) -n $((QUEUED + 1)) --prompt-bytes 900 "$@" >"$DIR/queued.log" 2>&1 &
    loader=$!
    PIDS="$PIDS $loader"
    wait_for "the load that fills the queue" "$loader" queue_is_full
    FULL_KB=$(rss_kb "$GATEWAY_PID")
    say "bench: $name: idle $IDLE_KB KB, with $QUEUED queued $FULL_KB KB"
    stop "$GATEWAY_PID"
    stop "$loader"
}

# The mock answers `queued` never and everything else at once, with 16 tokens.
cat >"$DIR/script.json" <<'JSON'
{"rules": [{"model": "queued", "reply": {"act": "hang"}}], "otherwise": {"output_tokens": 16}}
JSON

start_upstream
if [ "$ROUNDS" -gt 0 ] && ensure_nginx; then start_nginx; fi
most=$(($(ulimit -n) - 200))
if [ "$QUEUED" -ge "$most" ]; then
    say "bench: only $most open files allowed, so only $most requests are queued (ulimit -n)"
    QUEUED=$most
fi
memory memory-http2 --http2
FULL2_KB=$((FULL_KB - IDLE_KB))
memory memory-http1
if [ "$ROUNDS" -eq 0 ]; then exit; fi
start_gateway speed
for ((n = 1; n <= ROUNDS; n++)); do
    say "bench: round $n of $ROUNDS"
    round "$n"
done

mkdir -p bench-results
RESULT=bench-results/bench-$(date -u +%Y%m%dT%H%M%SZ).json
MACHINE="$(nproc) cores, Linux $(uname -r)"
status=0
awk -f "$HERE/report.awk" -v json="$RESULT" -v machine="$MACHINE" -v rounds="$ROUNDS" -v tokenizer="$TOKENIZER" \
    -v idle_kb="$IDLE_KB" -v full_kb="$FULL_KB" -v added2_kb="$FULL2_KB" -v queued="$QUEUED" -v strict="${BENCH_STRICT:-0}" "$DIR/rows" || status=$?
[ -s "$RESULT" ] || die "the report could not be written"
printf '\n%s, %s rounds, tokenizer %s; written to %s\n' "$MACHINE" "$ROUNDS" "$TOKENIZER" "$RESULT"
exit "$status"
