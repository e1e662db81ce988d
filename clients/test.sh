#!/usr/bin/env bash
# Tests the clients, and the examples that use them, against a real master: `make clients-test` calls
# `clients/test.sh MESOPHYLL FOLDER`. What they need goes into FOLDER and clients/typescript/node_modules.
#
# What a machine has no Python or Node.js for is skipped, loudly, and counted for CI as
# tests/it/support/skip.rs has it.
set -euo pipefail
mkdir -p "$2"
MESOPHYLL=$(realpath "$1")
export MESOPHYLL
venv=$(realpath "$2")/clients-venv
cd "$(dirname "$0")"

skipped() {
    echo "SKIPPED: make clients-test: $1" | tee -a "${MESOPHYLL_TEST_SKIPPED_FILE:-/dev/null}" >&2
}

if python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    cd python
    "$venv/bin/python" -m pip install -q --disable-pip-version-check -r tests/requirements.txt
    "$venv/bin/python" ../generate.py --check "$MESOPHYLL"
    "$venv/bin/python" -m unittest -b
    cd ..
else
    skipped "its Python part needs Python 3.11 or newer with venv (apt install python3-venv)"
fi

node_version=$(node --version 2>/dev/null || echo v0)
node_version=${node_version#v}
if [ "${node_version%%.*}" -ge 20 ] && command -v npm >/dev/null; then
    cd typescript
    [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --no-audit --no-fund --silent
    npm test --silent
else
    skipped "its TypeScript part needs Node.js 20 or newer with npm"
fi
