# What a change must pass, piece by piece; `just ci` is all of it, and is what CI runs.

export RUSTDOCFLAGS := "-D warnings"

# The list of recipes.
default:
    @just --list

# Source is as rustfmt writes it.
fmt:
    cargo fmt --all --check

# No warning, pedantic ones included.
clippy:
    cargo clippy --workspace --all-targets -- -D warnings

# All tests; those on real mounts need root and /dev/fuse, and say where they are skipped.
test:
    cargo test --workspace

# Doc comments, and links between the documents.
docs:
    cargo doc --workspace --no-deps
    python3 docs/check.py

# The main job, end to end.
demo size="64M":
    cargo run --release -- demo --size {{size}}

# The figures of docs/benchmarks.md; `just bench --quick` for a smoke run.
bench *arguments:
    cargo run --release -- bench {{arguments}}

# Everything, on a bare machine, as root: installs what the tests need.
ci:
    .ci/run
