#!/usr/bin/env bash
# cp, tar, rsync, diff, find and rm on a large and odd tree.
#
# usage: tree.sh DIR REF [FILES]
#
# What: a tree of FILES (default 8,000) files of this machine and of everything odd (odd_tree.py) is made
#       in REF, then copied into DIR by cp -a, by tar and by rsync -aHAX, from there back to REF, and copied
#       and renamed within DIR; after each step compare_trees.py and diff -r must find no difference. The odd
#       tree is made in DIR itself as well, by the same calls. find must count the same and see the same
#       names; rsync must find nothing to do a second time; rm -rf must leave nothing.
# How:  the copies in DIR are compared as the program left them, with modes, owners, times, attributes, ACLs
#       and hard links.
# Limits: root; GNU tar, find and diff. The socket, which tar leaves out, and the file of 4 GiB, whose hole
#       rsync would read for a minute, are then copied by cp. Up to four copies lie in DIR at a time, some
#       300 MB; sparse files are copied as sparse.

. "$(dirname "$0")/verdict.sh"
[ $# -ge 2 ] || usage "DIR REF [FILES]"
need tar rsync diff find python3 setfacl
[ "$(id -u)" = 0 ] || skip "owners and devices need root"
directories "$1" "$2"
files=${3:-8000}
source=$WORK_REF/source

same() {
    local what=$1
    shift
    python3 "$HERE/compare_trees.py" "$@" >&2 || fail "$what: differences above"
}

# diff follows no links and reads no fifos or devices when told not to; -r alone would wait for them.
same_to_diff() {
    diff -r --no-dereference --exclude=special --exclude='beyond 4 GiB' "$1" "$2" >&2 ||
        fail "diff -r finds $1 and $2 different"
}

# left_out COPY ENTRY: brings an entry that the program did not copy, and gives its directory its time again.
left_out() {
    local here=$1/odd/$2 there=$source/odd/$2
    nice cp -a "$there" "$here" || fail "cp -a of $2 failed"
    touch -r "${there%/*}" "${here%/*}" || fail "touch of the directory of $2 failed"
}

mkdir "$source"
# The files of this machine, in a fixed order; small ones, since many matter here and not large.
(cd / && find usr/include usr/share usr/lib -xdev -type f -size -256k -print0 2>/dev/null | sort -z |
    awk -v RS='\0' -v ORS='\0' -v wanted="$files" '{ names[NR] = $0 }
        END { step = NR > wanted ? NR / wanted : 1; for (i = 1; i <= NR; i += step) print names[int(i)] }' |
    tar --null -T - -cf -) | tar -C "$source" -xpf - || fail "cannot copy files of this machine to $source"
python3 "$HERE/odd_tree.py" "$source/odd" || fail "cannot make the odd tree on the reference"
entries=$(find "$source" -printf x | wc -c)

python3 "$HERE/odd_tree.py" "$WORK/odd" || fail "cannot make the odd tree on the file system under test"
# Most files of the two have the times of their making; those that were set are in one directory.
same "the odd tree made in both places" "$source/odd" "$WORK/odd" --ignore mtime
for entry in "$source"/odd/times/*; do
    [ "$(stat -c %y -- "$entry")" = "$(stat -c %y -- "$WORK/odd/times/${entry##*/}")" ] ||
        fail "the time of times/${entry##*/} was not kept"
done
rm -rf "$WORK/odd" || fail "rm -rf of the odd tree failed"

nice cp -a --sparse=auto "$source" "$WORK/cp" || fail "cp -a failed"
same "cp -a into it" "$source" "$WORK/cp"
same_to_diff "$source" "$WORK/cp"

nice rsync -aHAX --sparse --exclude='beyond 4 GiB' "$source/" "$WORK/rsync" || fail "rsync failed"
left_out "$WORK/rsync" "sparse/beyond 4 GiB"
same "rsync -aHAX into it" "$source" "$WORK/rsync"
changes=$(rsync -aHAX --itemize-changes --checksum --exclude='beyond 4 GiB' "$source/" "$WORK/rsync") ||
    fail "the second rsync failed"
[ -z "$changes" ] || fail "a second rsync still has something to do: ${changes:0:300}"

with=(--warning=no-timestamp --acls --xattrs --xattrs-include='*')
nice tar -C "$source" "${with[@]}" --sparse --exclude=socket -cf "$WORK/archive.tar" . ||
    fail "tar could not write its archive"
mkdir "$WORK/tar"
nice tar -C "$WORK/tar" "${with[@]}" --same-owner -xpf "$WORK/archive.tar" ||
    fail "tar could not extract"
nice tar -C "$WORK/cp" "${with[@]}" --compare --exclude='beyond 4 GiB' -f "$WORK/archive.tar" >&2 ||
    fail "tar --compare finds differences"
rm -f "$WORK/archive.tar"
left_out "$WORK/tar" special/socket
same "tar into it" "$source" "$WORK/tar"

mv "$WORK/tar" "$WORK/renamed" || fail "mv of a tree failed"
same "a renamed tree" "$source" "$WORK/renamed"
nice cp -a "$WORK/renamed" "$WORK/copied" || fail "cp -a within it failed"
same "cp -a within it" "$source" "$WORK/copied"
nice rsync -aHAX --sparse --exclude='beyond 4 GiB' "$WORK/copied/" "$WORK_REF/back" ||
    fail "rsync back failed"
left_out "$WORK_REF/back" "sparse/beyond 4 GiB"
same "rsync out of it" "$source" "$WORK_REF/back"

for options in "" "-type f" "-links +1" "-perm -4000" "-newermt 2038-02-01" -empty "-xtype l" "-size +1M"; do
    # shellcheck disable=SC2086 # the options are words
    cmp <(cd "$source" && find . $options ! -path . -print0 2>/dev/null | sort -z) \
        <(cd "$WORK/cp" && find . $options ! -path . -print0 2>/dev/null | sort -z) >&2 ||
        fail "find $options sees other entries than on the reference"
done
for copy in cp rsync renamed copied; do
    rm -rf "${WORK:?}/$copy" || fail "rm -rf of $copy failed"
    [ ! -e "$WORK/$copy" ] || fail "rm -rf left $copy"
done
[ -z "$(ls -A "$WORK")" ] || fail "the directory is not empty after rm -rf: $(ls -A "$WORK" | head)"
pass "$entries entries by cp, tar and rsync, in, within and out"
