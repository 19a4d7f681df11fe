#!/usr/bin/env bash
# Sets up the clients that only the slow tests of the endpoint need, outside the project's own environment, which some of
# them do not fit: litellm, schemathesis and playwright in .venv-clients, the npm packages in tests/clients where node is.
set -euo pipefail
cd "$(dirname "$0")/.."
"${EELIB_PYTHON:-.venv/bin/python}" -m venv --clear .venv-clients
.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-clients.lock
if command -v npm >/dev/null; then
    npm ci --prefix tests/clients --ignore-scripts --no-fund --no-audit
else
    echo "node is not installed: the tests of the npm clients will be skipped."
fi
