#!/usr/bin/env bash
# Proof and speed on a card, on a machine without network, within six minutes:
#   bench/gpu/run.sh [OUT.json]
# Needs nvcc, cmake, ninja and a C++ compiler; with Node and dist/ (PALIGEMMA_NODE names another node) it measures models,
# with PyTorch the peer and the card's limits, with compute-sanitizer it looks for bad accesses. What is missing is left
# out, and the JSON says so. Keep it as bench/gpu/results/CARD.json.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

node=${PALIGEMMA_NODE:-node}
build() {
  nvcc --version >/dev/null || return 1
  if command -v "$node" >/dev/null; then "$node" scripts/build-ptx.mjs || return 1; fi
  [[ -f native/gpu/cuda/generated/ptx.inc ]] || return 1
  cmake -S . -B build/gpu -G Ninja -DCMAKE_BUILD_TYPE=Release -DPALIGEMMA_TESTS=ON -DPALIGEMMA_TEST_CARD=ON \
    -DPALIGEMMA_ADDON="$(command -v "$node" >/dev/null && echo ON || echo OFF)" &&
    cmake --build build/gpu
}

# By itself, for timeout knows programs alone.
if [[ ${1:-} == --build ]]; then
  build
  exit
fi

out=${1:-bench/gpu/results/latest.json}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# name, seconds, command...: its output goes to $work/NAME.log, what it came to into the JSON
step() {
  local name=$1 seconds=$2 begin=$SECONDS code=0
  shift 2
  echo "=== $name"
  timeout "$seconds" "$@" >"$work/$name.log" 2>&1 || code=$?
  tail -n 3 "$work/$name.log"
  # shellcheck disable=SC1003 # quotes and backslashes go
  printf '{"name":"%s","exit":%d,"seconds":%d,"last":"%s"}\n' "$name" "$code" $((SECONDS - begin)) \
    "$(tail -n 1 "$work/$name.log" | tr -d '"\\' | tr -cd '[:print:]')" >>"$work/steps"
  ((code == 0)) || failed=1
  return "$code"
}

card=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 1)
step build 240 bash bench/gpu/run.sh --build || exit 1

# The table of the ops on the card, then products under the sanitizer.
step ops 120 build/gpu/native_tests ops_ grad
if command -v compute-sanitizer >/dev/null; then
  step sanitizer 60 compute-sanitizer --error-exitcode 9 build/gpu/native_tests ops_rope ops_norms
fi

: >"$work/models"
if command -v "$node" >/dev/null && [[ -f dist/cli/main.js && -f build/Release/paligemma.node ]]; then
  for size in 3b-224 3b-448; do
    for type in BF16 Q8_0 Q4_0; do
      for streams in 1 8 32; do
        [[ $streams == 1 || $size == 3b-224 ]] || continue
        if step "$size-$type-$streams" 60 "$node" dist/cli/main.js bench --synthetic "$size" --type "$type" \
          --device cuda --concurrency "$streams" --runs 3 --json; then
          cat "$work/$size-$type-$streams.log" >>"$work/models"
        fi
      done
    done
  done
fi

peer=null
if python3 -c 'import torch' 2>/dev/null && step peer 150 python3 bench/gpu/peer.py; then
  peer=$(tail -n 1 "$work/peer.log")
fi

{
  printf '{"card":"%s","commit":"%s","steps":[' "$card" "$(git rev-parse --short HEAD 2>/dev/null)"
  paste -sd, "$work/steps"
  printf '],"models":['
  paste -sd, "$work/models"
  printf '],"peer":%s}\n' "$peer"
} | tr -d '\n' >"$out"
echo "$out"
exit "$failed"
