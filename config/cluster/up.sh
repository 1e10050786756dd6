#!/bin/sh
# Starts three nodes of one cluster on this machine, says how to talk to them, and stops them with Ctrl-C.
set -eu
cd "$(dirname "$0")/../.."
bin=${BIN:-target/release}
mkdir -p data/cluster
key=data/cluster/admin-key
[ -s "$key" ] || (umask 077 && printf 'adm_%s\n' "$(od -An -tx1 -N24 /dev/urandom | tr -d ' \n')" > "$key")
TOKLIGENCE_CLUSTER_ADMIN_KEY=$(cat "$key")
export TOKLIGENCE_CLUSTER_ADMIN_KEY
pids=
stop() { trap - INT TERM EXIT; kill $pids 2>/dev/null || true; wait; }
trap stop INT TERM EXIT
for n in 1 2 3; do
    rm -f "data/cluster/n$n/ready.json"
    "$bin/gatewayd" serve --config "config/cluster/n$n.toml" > "data/cluster/n$n.log" 2>&1 &
    pids="$pids $!"
done
for n in 1 2 3; do
    waited=0
    until [ -s "data/cluster/n$n/ready.json" ]; do
        waited=$((waited + 1))
        if [ "$waited" -gt 300 ]; then echo "node $n is not up: see data/cluster/n$n.log" >&2; exit 1; fi
        sleep 0.1
    done
done
endpoint=http://127.0.0.1:8081,http://127.0.0.1:8082,http://127.0.0.1:8083
cat <<EOF
Three nodes are up: http://127.0.0.1:8081 :8082 :8083 (logs: data/cluster/n1.log ..). Ctrl-C stops them.

  export TOKLIGENCE_ENDPOINT=$endpoint TOKLIGENCE_ADMIN_KEY=\$(cat $key)
  $bin/gateway cluster status
  $bin/gateway key create --name try
  $bin/gateway pool set loopback --rps 5

  curl http://127.0.0.1:8082/v1/chat/completions -H "Authorization: Bearer KEY" -H "Content-Type: application/json" \\
    -d '{"model": "loopback", "messages": [{"role": "user", "content": "hello"}]}'
EOF
wait
