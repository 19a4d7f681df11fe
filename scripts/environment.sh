# Sourced by run_all.sh and run_tests.sh: sets PYTHON to an interpreter that has the locked packages.
#
# Makes .venv from requirements.lock, or finds the one made from this very lock. With --no-venv the active conda or virtual
# environment is used as it is.

use_environment() {
    export TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1 HF_HUB_DISABLE_TELEMETRY=1
    for argument in "$@"; do
        if [ "$argument" = "--no-venv" ]; then
            if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
                echo "error: --no-venv needs an active conda or virtual environment, and none is active." >&2
                exit 2
            fi
            PYTHON=python
            return
        fi
    done
    PYTHON=.venv/bin/python
    local made_from=.venv/made-from.lock
    if [ -x "$PYTHON" ] && cmp -s requirements.lock "$made_from"; then
        return
    fi
    if [ -L .venv ]; then  # clearing it would clear another tree's environment
        echo "error: .venv is a link to an environment that was made from another lock; remove the link, or set that one up." >&2
        exit 2
    fi
    # tree-sitter has wheels up to Python 3.12; a newer Python builds it, which needs a C compiler, so it comes last.
    local base newest
    for base in "${EELIB_PYTHON:-}:99" python3:12 python3.12:12 python3.11:12 python3:99; do
        newest=${base##*:} base=${base%:*}
        if [ -n "$base" ] && "$base" -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, $newest + 1))" 2>/dev/null; then
            break
        fi
        base=""
    done
    if [ -n "${EELIB_PYTHON:-}" ] && [ "$base" != "$EELIB_PYTHON" ]; then
        echo "error: EELIB_PYTHON is $EELIB_PYTHON, which is no Python 3.11 or newer." >&2
        exit 2
    fi
    if [ -z "$base" ]; then
        echo "error: no Python 3.11 or newer was found; set EELIB_PYTHON to one." >&2
        exit 2
    fi
    echo "Setting up .venv from requirements.lock (once, some minutes) ..."
    "$base" -m venv --clear .venv
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -r requirements.lock
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
    cp requirements.lock "$made_from"  # last, so that an interrupted set-up starts over
}
