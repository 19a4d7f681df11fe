#!/usr/bin/env bash
# The tests: the quick ones, then the real notebooks under the ci profile. Other arguments go to pytest:
#   ./run_tests.sh -m slow        the slow tests
#   ./run_tests.sh -k reward      some tests, without the notebooks
#   ./run_tests.sh --no-venv      in the active environment
set -euo pipefail
cd "$(dirname "$0")"
source scripts/environment.sh
use_environment "$@"
arguments=()
for argument in "$@"; do
    [ "$argument" = "--no-venv" ] || arguments+=("$argument")
done
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
if [ ${#arguments[@]} -eq 0 ]; then
    arguments=(-n auto --dist loadfile)  # all tests, on all cores
fi
exec "$PYTHON" -m pytest "${arguments[@]}"
