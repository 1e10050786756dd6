#!/bin/sh
# Runs openai_sdk.py and dialects.py with the newest SDKs in a virtual environment that is thrown away.
# OPENAI_SDK=openai==X.Y.Z pins another one, SDKS pins all three; BIN=target/release takes binaries that are built already.
set -eu
cd "$(dirname "$0")/../.."

skip() { echo "make sdk: skipped: $*"; exit 0; }

command -v python3 >/dev/null || skip "python3 is not installed"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
sdks=${SDKS:-${OPENAI_SDK:-openai} anthropic google-genai}
python3 -m venv "$dir/venv" >"$dir/venv.log" 2>&1 || skip "python3 has no venv module (Debian: apt-get install python3-venv)"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check $sdks >"$dir/pip.log" 2>&1 \
    || skip "pip cannot install $sdks: $(tail -n 1 "$dir/pip.log")"
if [ -z "${BIN:-}" ]; then
    ${CARGO:-cargo} build --quiet -p tokligence-node -p tokligence-test-support --bins
    BIN=${CARGO_TARGET_DIR:-target}/debug
fi
"$dir/venv/bin/python" tests/sdk/openai_sdk.py --bin "$BIN"
"$dir/venv/bin/python" tests/sdk/dialects.py --bin "$BIN"
