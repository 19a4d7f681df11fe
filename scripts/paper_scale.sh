#!/usr/bin/env bash
# Every measurement at the thesis's sizes, on one GPU of 24 GB or more, in calls of under ten minutes each (an hour and a half in all).
#
#   scripts/paper_scale.sh               all calls in order; those whose file is there are passed over, so it may be stopped at any time
#   MINUTES=28 scripts/paper_scale.sh    begin no call that could end later than that
#   PYTHON=python3 DECODER=graphs COMMIT=1a2b3c4 scripts/paper_scale.sh
#
# PYTHON: an interpreter with torch, transformers, pandas, pyarrow and nvidia-ml-py; the project's .venv if there is one.
# DECODER: what replays exits, graphs-compiled (layers through torch.compile, then captured) or graphs.
# COMMIT: named in the results where the tree is a copy without git. More arguments go to every call, e.g. --tiny --window 0.01.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ ! -x .venv/bin/python ] || PYTHON=.venv/bin/python
fi
DECODER="${DECODER:-graphs-compiled}"
export TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
began=$SECONDS

measure() {
    local limit=560
    if [ -n "${MINUTES:-}" ] && [ $((SECONDS - began + limit)) -gt $((MINUTES * 60)) ]; then
        limit=$((MINUTES * 60 - (SECONDS - began)))
        if [ "$limit" -lt 120 ]; then
            echo "Stopped before $*: MINUTES=$MINUTES are over. Call again to go on."
            exit 0
        fi
    fi
    echo "== $*"
    local code=0
    "$PYTHON" benchmarks/paper_scale.py --limit "$limit" ${COMMIT:+--commit "$COMMIT"} "$@" || code=$?
    # 2 says in a sentence what was asked in vain; the other calls do not depend on it.
    [ "$code" -eq 0 ] || failed="${failed:-}"$'\n'"exit code $code: $*"
}

# Captured decoding must give the plain decoder's tokens, or no time of it means anything.
"$PYTHON" benchmarks/paper_scale.py --part check --decoders "$DECODER" ${COMMIT:+--commit "$COMMIT"} "$@"
for geometry in opt-2.7b llama-3.2-3b; do
    measure --geometry $geometry --part reference --context 256 --decoders "$DECODER" graphs "$@"
    for part in traces-python traces-java fixed; do
        measure --geometry $geometry --part $part --context 256 --decoders "$DECODER" "$@"
    done
done
for geometry in opt-2.7b llama-3.2-3b; do
    measure --geometry $geometry --part generate-compiled --context 256 --decoders "$DECODER" "$@"
    for context in 512 128; do
        measure --geometry $geometry --part reference --context $context --decoders "$DECODER" "$@"
    done
    measure --geometry $geometry --part fixed --context 512 --decoders "$DECODER" "$@"
    for dtype in float16 float32; do
        measure --geometry $geometry --part reference --context 256 --dtype $dtype --decoders "$DECODER" "$@"
    done
done
if [ -n "${failed:-}" ]; then
    echo "Not measured:$failed" >&2
    exit 1
fi
