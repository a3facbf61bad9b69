#!/usr/bin/env bash
# Proof and speed on a card, on a machine without network, within six minutes:
#   bench/gpu/run.sh [OUT.json]
# Needs nvcc, cmake, ninja and a C++ compiler. With Node (PALIGEMMA_NODE names another), dist/ and node_modules it
# measures models, with PyTorch the peer and the card's limits, with compute-sanitizer it looks for bad accesses. What is
# missing is left out, what time does not allow is skipped, and the JSON says so. Without Node,
# build/gpu/kernels.ptx must be there. Keep the JSON as bench/gpu/results/CARD.json.
#   PALIGEMMA_BENCH_SECONDS=360 PALIGEMMA_BENCH_SIZES="3b-224 3b-448" PALIGEMMA_BENCH_TYPES="BF16 Q8_0 Q4_0"
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PALIGEMMA_PTX=$PWD/build/gpu/kernels.ptx   # for the native tests
node=$(command -v "${PALIGEMMA_NODE:-node}" || true)
if [[ -n $node ]]; then
  # cmake asks "node" for Node's headers
  mkdir "$work/bin" && ln -s "$(realpath "$node")" "$work/bin/node"
  export PATH="$work/bin:$PATH"
fi

build() {
  local addon=OFF
  nvcc --version >/dev/null || return 1
  mkdir -p build/gpu
  if [[ -n $node ]]; then node scripts/build-ptx.mjs --fast --text "$PALIGEMMA_PTX" || return 1; fi
  [[ -f $PALIGEMMA_PTX ]] || return 1
  if [[ -n $node && -d node_modules/node-api-headers ]]; then addon=ON; fi
  cmake -S . -B build/gpu -G Ninja -DCMAKE_BUILD_TYPE=Release -DPALIGEMMA_TESTS=ON -DPALIGEMMA_TEST_CARD=ON \
    -DPALIGEMMA_ADDON="$addon" && cmake --build build/gpu
}

# By itself, for timeout knows programs alone.
if [[ ${1:-} == --build ]]; then
  build
  exit
fi

out=${1:-bench/gpu/results/latest.json}
budget=${PALIGEMMA_BENCH_SECONDS:-360}
failed=0

# What may stand in a JSON string: the last line that a step wrote.
last_line() {
  # shellcheck disable=SC1003 # quotes and backslashes go
  cat "$1.err" "$1.log" 2>/dev/null | tail -n 1 | tr -d '"\\' | tr -cd '[:print:]' | cut -c 1-300
}

# name, seconds, command...: its output goes to $work/NAME.log, what it came to into the JSON
step() {
  local name=$1 seconds=$2 begin=$SECONDS left=$((budget - SECONDS)) code=0
  shift 2
  echo "=== $name"
  if ((left < 5)); then
    printf '{"name":"%s","skipped":true}\n' "$name" >>"$work/steps"
    failed=1
    return 1
  fi
  timeout $((seconds < left ? seconds : left)) "$@" >"$work/$name.log" 2>"$work/$name.err" || code=$?
  last_line "$work/$name"
  echo
  printf '{"name":"%s","exit":%d,"seconds":%d,"last":"%s"}\n' "$name" "$code" $((SECONDS - begin)) \
    "$(last_line "$work/$name")" >>"$work/steps"
  ((code == 0)) || failed=1
  return "$code"
}

# The last line of a log, where it is an object of JSON.
object_of() {
  tail -n 1 "$1" 2>/dev/null | grep '^{.*}$'
}

measure() {
  local size type streams name
  for size in ${PALIGEMMA_BENCH_SIZES:-3b-224 3b-448}; do
    for type in ${PALIGEMMA_BENCH_TYPES:-BF16 Q8_0 Q4_0}; do
      for streams in 1 8 32; do
        [[ $streams == 1 || $size != *-448 ]] || continue
        name=$size-$type-$streams
        step "$name" 60 node dist/cli/main.js bench --synthetic "$size" --type "$type" --device cuda \
          --concurrency "$streams" --runs 3 --json
        object_of "$work/$name.log" >>"$work/models"
      done
    done
  done
}

: >"$work/models"
peer=null
card=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 1)
if step build 240 env PALIGEMMA_NODE="$node" bash bench/gpu/run.sh --build; then
  # The table of the ops and a reference model on the card; then each kind of product and attention under the sanitizer.
  step ops 120 build/gpu/native_tests ops_ grad far_device
  if command -v compute-sanitizer >/dev/null; then
    step sanitizer 45 compute-sanitizer --error-exitcode 9 build/gpu/native_tests ops_norms as_precise_as
  fi
  # the first size before the peer, so that neither goes without a figure
  if [[ -n $node && -f dist/cli/main.js && -f build/Release/paligemma.node ]]; then
    all=${PALIGEMMA_BENCH_SIZES:-3b-224 3b-448}
    PALIGEMMA_BENCH_SIZES=${all%% *} measure
  fi
  if python3 -c 'import torch' 2>/dev/null; then
    step peer 150 python3 bench/gpu/peer.py
    peer=$(object_of "$work/peer.log" || echo null)   # it prints what it has so far, again and again
  fi
  if [[ -n ${all:-} && $all == *' '* ]]; then PALIGEMMA_BENCH_SIZES=${all#* } measure; fi
fi

{
  printf '{"card":"%s","commit":"%s","seconds":%d,"steps":[' "$card" \
    "$(git rev-parse --short HEAD 2>/dev/null)" "$SECONDS"
  paste -sd, "$work/steps"
  printf '],"models":['
  paste -sd, "$work/models"
  printf '],"peer":%s}\n' "$peer"
} | tr -d '\n' >"$out"
echo "$out"
exit "$failed"
