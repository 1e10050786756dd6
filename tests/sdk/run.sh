#!/bin/sh
# Runs openai_sdk.py with the newest SDK in a virtual environment that is thrown away.
# OPENAI_SDK=openai==X.Y.Z pins another one; BIN=target/release takes binaries that are built already.
set -eu
cd "$(dirname "$0")/../.."

skip() { echo "make sdk: skipped: $*"; exit 0; }

command -v python3 >/dev/null || skip "python3 is not installed"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv" >"$dir/venv.log" 2>&1 || skip "python3 has no venv module (Debian: apt-get install python3-venv)"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check "${OPENAI_SDK:-openai}" >"$dir/pip.log" 2>&1 \
    || skip "pip cannot install ${OPENAI_SDK:-openai}: $(tail -n 1 "$dir/pip.log")"
if [ -z "${BIN:-}" ]; then
    ${CARGO:-cargo} build --quiet -p tokligence-node -p tokligence-test-support --bins
    BIN=${CARGO_TARGET_DIR:-target}/debug
fi
"$dir/venv/bin/python" tests/sdk/openai_sdk.py --bin "$BIN"
