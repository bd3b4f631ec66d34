#!/usr/bin/env bash
# What only a machine with a GPU can tell, in one go: what is there, the tests of the CUDA side, the rows about GPUs.
#
#     gpu/on-a-gpu.sh build PROGRAMS       on any machine: builds and strips what is needed into that directory
#     gpu/on-a-gpu.sh run PROGRAMS RESULTS     on the one with the GPU: needs no network, no Rust, and takes five minutes
#
# A step that fails doesn't keep the next ones from running; the exit code says how many did. RESULTS has a file a step.

set -uo pipefail
cd "$(dirname "$0")/.."

build() {
    local programs=$1 test
    mkdir -p "$programs"
    cargo build --release --quiet -p aimss
    cp target/release/aimss "$programs/aimss"
    test=$(cargo test --release --quiet -p aimss-gpu --test gpu --no-run --message-format json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
    cp "$test" "$programs/gpu-tests"
    strip "$programs"/*
}

failed=0
step() {
    local name=$1
    shift
    echo "== $name"
    timeout 240 "$@" 2>&1 | tee "$results/$name.txt" || failed=$((failed + 1))
}

run() {
    local programs=$1
    results=$2
    mkdir -p "$results"
    step machine nvidia-smi
    step doctor "$programs/aimss" doctor /var/tmp
    AIMSS_NO_SKIPS=1 step tests "$programs/gpu-tests" --nocapture
    step rows "$programs/aimss" bench --only gpu-copy,gpu-checksum --pairs 7
    exit "$failed"
}

case ${1-} in
    build) build "${2:?where to}" ;;
    run) run "${2:?which programs}" "${3:?where the results go}" ;;
    *) sed -n 's/^#     //p' "$0" >&2; exit 2 ;;
esac
