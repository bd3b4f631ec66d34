#!/usr/bin/env bash
# git: clone, work and fsck on a repository with history; make and cargo on what was cloned.
#
# usage: git_tree.sh DIR REF [COMMITS]
#
# What: a repository of COMMITS (default 400) commits is generated in REF and cloned into DIR and REF; in
#       both the same is done: checkouts across the history, branches, a merge, a rebase, stash, gc, repack.
#       Then git fsck must be content, git status clean, commits, index and every file the same in both.
#       A C project in it is built with make in both (the same bytes come out; a second make has nothing to
#       do), and a crate with cargo where there is one (a second build is fresh).
# How:  dates and names are fixed, so the commits have the same hashes wherever they are made. DIR's clone is
#       made both by copying or linking files and through the pack protocol.
# Limits: no network; cargo builds a crate without dependencies.

. "$(dirname "$0")/verdict.sh"
[ $# -ge 2 ] || usage "DIR REF [COMMITS]"
need git python3 make gcc
directories "$1" "$2"
commits=${3:-400}
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null HOME=$WORK_REF
export GIT_AUTHOR_NAME=tester GIT_AUTHOR_EMAIL=tester@example.org GIT_AUTHOR_DATE='1700000000 +0000'
export GIT_COMMITTER_NAME=tester GIT_COMMITTER_EMAIL=tester@example.org GIT_COMMITTER_DATE='1700000000 +0000'
# Nothing in the background: the test compares what is there, and removes it.
git() {
    nice git -c gc.auto=0 -c maintenance.auto=false -c init.defaultBranch=main \
        -c advice.detachedHead=false "$@"
}

origin=$WORK_REF/origin.git
git init -q --bare "$origin" || fail "cannot make a repository on the reference"
python3 - "$commits" <<'STREAM' | git -C "$origin" fast-import --quiet || fail "git fast-import failed"
import random, sys
source, out, mark = random.Random(1), sys.stdout.buffer, 0
def data(text):
    out.write(b"data %d\n%s\n" % (len(text), text))
def change(path, text, mode=b"100644"):
    out.write(b"M %s inline %s\n" % (mode, path))
    data(text)
def function(n):
    numbers = n, source.randrange(99), source.randrange(9999)
    return b"int f%d(int x)\n{\n    return x * %d + %d;\n}\n" % numbers
count, parts = int(sys.argv[1]), 40
for number in range(1, count + 1):
    date = 1600000000 + number * 60
    out.write(b"commit refs/heads/main\ncommitter tester <tester@example.org> %d +0000\n" % date)
    data(b"commit %d" % number)
    if number == 1:
        for n in range(parts):
            change(b"src/part%d.c" % n, function(n))
        calls = b" + ".join(b"f%d(%d)" % (n, n) for n in range(parts))
        declared = b"".join(b"int f%d(int);\n" % n for n in range(parts))
        change(b"src/main.c", b"#include <stdio.h>\n" + declared +
               b"int main(void)\n{\n    printf(\"%d\\n\", " + calls + b");\n    return 0;\n}\n")
        change(b"Makefile", b"OBJECTS := $(patsubst src/%.c,out/%.o,$(sort $(wildcard src/*.c)))\n"
               b"out/program: $(OBJECTS)\n\t$(CC) -o $@ $^\n"
               b"out/%.o: src/%.c\n\t@mkdir -p out\n\t$(CC) -O1 -c -o $@ $<\n")
        change(b"Cargo.toml", b"[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n")
        change(b"src/main.rs", b"mod numbers;\nfn main() {\n    println!(\"{}\", numbers::sum());\n}\n")
        change(b".gitignore", b"out/\ntarget/\nCargo.lock\n")
        change(b"run.sh", b"#!/bin/sh\nexec out/program\n", b"100755")
        change(b"link", b"src/main.c", b"120000")
    change(b"src/part%d.c" % (number % parts), function(number % parts))
    change(b"src/numbers.rs", b"pub fn sum() -> u64 {\n    (0..%d).sum()\n}\n" % number)
    for _ in range(3):
        path = b"text/%d/%d/file-%d.txt" % (source.randrange(12), source.randrange(12), source.randrange(20))
        change(path, b"".join(b"line %d of %d\n" % (source.randrange(1000), number) for _ in range(60)))
    if number % 50 == 0:
        change(b"blob-%d.bin" % number, source.randbytes(300000))
    if number % 60 == 0:
        out.write(b"D blob-%d.bin\n" % (number // 60 * 50))
    out.write(b"\n")
STREAM

work() {
    local clone=$1
    cd "$clone" || return 1
    for step in 350 200 10 1 0 120; do
        git checkout -q "main~$((step < commits ? step : commits - 1))" || return 1
        if [ -n "$(git status --porcelain)" ]; then
            echo "not clean after the checkout of main~$step" >&2
            return 1
        fi
    done
    git checkout -q main
    git checkout -q -b side main~30 || return 1
    for n in 1 2 3 4 5; do
        echo "side $n" >"side-$n" && git add "side-$n" && git commit -q -m "side $n" || return 1
    done
    git checkout -q main && git merge -q --no-edit side || return 1
    git checkout -q side && git rebase -q main~20 || return 1
    git checkout -q main
    echo changed >>src/main.rs && git stash -q && git stash pop -q || return 1
    git checkout -q -- src/main.rs || return 1
    git mv text moved && git commit -q -m moved || return 1
    git worktree add -q ../worktree side && git worktree remove ../worktree || return 1
    # One thread and no luck from the machine's load: the same pack in both places.
    git -c pack.threads=1 gc -q --prune=now && git -c pack.threads=1 repack -q -a -d -f || return 1
    git fsck --full --strict --no-dangling >&2 || return 1
    [ -z "$(git status --porcelain)" ] || { echo "git status is not clean at the end" >&2; return 1; }
    git diff-index --quiet HEAD
}

build() {
    local clone=$1
    cd "$clone" || return 1
    nice make -s -j2 >&2 || return 1
    make -q || { echo "make has something to do again" >&2; return 1; }
    ./run.sh >out/result || return 1
    sleep 0.05
    touch src/part7.c
    [ "$(make -n | wc -l)" = 3 ] || { echo "make does not see that one source is newer" >&2; return 1; }
}

clone_and_work() {
    local place=$1
    git clone -q "$origin" "$place/local" || return 1
    rm -rf "$place/local" || return 1
    git clone -q "file://$origin" "$place/clone" || return 1
    (work "$place/clone") || return 1
    (build "$place/clone") || return 1
}

clone_and_work "$WORK_REF" || fail "git or make fails on the reference itself"
clone_and_work "$WORK" || fail "git or make fails on the file system under test"

files() {
    local wanted=(-path ./.git -prune -o)
    cd "$1" || fail "there is no $1"
    find . "${wanted[@]}" -type f -print0 | sort -z | xargs -0 sha256sum
    find . "${wanted[@]}" \( -type f -printf '%m %s %p\n' -o -type l -printf '%l %p\n' \) | sort
}
for command in "rev-parse HEAD side" "ls-files -s" "for-each-ref" "log --format=%H --all" "count-objects"; do
    # shellcheck disable=SC2086 # the command is words
    [ "$(git -C "$WORK/clone" $command)" = "$(git -C "$WORK_REF/clone" $command)" ] ||
        fail "git $command says something else than on the reference"
done
(files "$WORK/clone") >"$WORK_REF/files.here"
(files "$WORK_REF/clone") >"$WORK_REF/files.there"
diff "$WORK_REF/files.there" "$WORK_REF/files.here" | head -n 20 >&2
cmp -s "$WORK_REF/files.there" "$WORK_REF/files.here" || fail "files differ from those on the reference"

built="make"
if command -v cargo >/dev/null; then
    # The toolchain's own files are found through the caller's home.
    caller=$(getent passwd "$(id -u)" | cut -d: -f6)
    cargo_build() { env -u CARGO_TARGET_DIR HOME="$caller" nice cargo build --offline --manifest-path "$1/Cargo.toml" 2>&1; }
    said=$(cargo_build "$WORK/clone") || fail "cargo build failed: $said"
    [ "$("$WORK/clone/target/debug/small")" = "$((commits * (commits - 1) / 2))" ] ||
        fail "the crate that cargo built computes wrong"
    # An unchanged crate built again must not be compiled: cargo goes by times and its own files.
    said=$(cargo_build "$WORK/clone") || fail "the second cargo build failed: $said"
    [[ $said != *Compiling* ]] || fail "cargo compiles an unchanged crate again"
    built="make and cargo"
fi
count=$(grep -c '^[0-9]* [0-9]* ' "$WORK_REF/files.here")
pass "$commits commits cloned, worked on and checked, $count files the same, built with $built"
