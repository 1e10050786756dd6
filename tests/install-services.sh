#!/bin/sh
# Sees to the servers that tests may start: PostgreSQL and Redis. Installs what is missing through apt when it may, else
# says what to install and goes on: a test that needs a server says so by itself.
set -u

have() {
    command -v "$1" >/dev/null 2>&1 && return 0
    # Debian keeps PostgreSQL's servers out of the path.
    [ "$1" = postgres ] && ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1
}

missing=""
have postgres || missing="$missing postgresql"
have redis-server || missing="$missing redis-server"
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # a list of words
    if apt-get update -q >/dev/null && apt-get install -q -y --no-install-recommends $missing >/dev/null; then
        exit 0
    fi
    echo "apt could not install$missing" >&2
fi
echo "not installed:$missing (on Debian and Ubuntu: apt-get install$missing)" >&2
exit 0
