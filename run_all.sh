#!/usr/bin/env bash
# The main job: regenerate every figure and table. `./run_all.sh --help` says what can be chosen.
set -euo pipefail
cd "$(dirname "$0")"
source scripts/environment.sh
use_environment "$@"
exec "$PYTHON" -m eelib.study.run "$@"
