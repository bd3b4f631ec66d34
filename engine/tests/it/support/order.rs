//! A backing as a cut left it, against the partial order that the drain promises (`docs`: "what the drain keeps").
//!
//! 1. The entries of each directory are those it had after some prefix of the changes in it; an object that was made
//!    and removed and nothing else may be missing. A change of two directories is in both or in neither.
//! 2. Under a name that a rename or link gave, a file's content is not older than at its last close before; nor is that
//!    of a file below a directory that was renamed.
//! 3. What was synced is there: contents, entries, and the names that lead to them.
//! 4. A file that the backing had, and that was only ever replaced whole, has one of its contents, exactly.
//!
//! Whatever else was being written is a mix of contents that the file had: each byte is a byte of one of them. After a
//! loss of power it may be zero, too, where one of them was shorter: the size came, the page didn't.

use super::compare::user_attributes;
use super::disk::Order;
use super::ground::Ground;
use super::model::{Entries, Id, Model, ROOT, id_of};
use aimss_engine::Timestamp;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What lies on the backing.
#[derive(Debug, Default)]
struct Lying {
    directories: BTreeMap<Id, Entries>,
    /// Of directories but the root.
    places: BTreeMap<Id, (Id, String)>,
    files: BTreeMap<Id, Vec<(Id, String, PathBuf)>>,
}

/// How a backing came to be as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The drain was stopped.
    Stopped,
    /// The power went, on a disk that keeps this order.
    PowerCut(Order),
}

/// Panics where the order is broken.
pub fn check(model: &Model, ground: &Ground) {
    check_at(model, &ground.backing(), Left::Stopped);
}

/// The same of the directory `root`.
pub fn check_at(model: &Model, root: &Path, left: Left) {
    let mut lying = Lying::default();
    walk(model, &mut lying, ROOT, root);
    let fitting = prefixes(model, &lying, left);
    for (&id, places) in &lying.files {
        for (dir, name, path) in places {
            let least = fitting[dir].first().copied().expect("a prefix fits");
            let carried = carried(model, &lying, &fitting, id, *dir);
            content(model, id, (*dir, name, path), (least, carried), left);
        }
    }
}

fn walk(model: &Model, lying: &mut Lying, dir: Id, path: &Path) {
    let mut entries = Entries::new();
    for entry in std::fs::read_dir(path).expect("a listing") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("names of the tests");
        if dir == ROOT && name == ".aimss" {
            continue;
        }
        let m = std::fs::symlink_metadata(entry.path()).expect("an object");
        let id = id_of(m.uid())
            .unwrap_or_else(|| panic!("{}: nobody's object, uid {}", entry.path().display(), m.uid()));
        assert!(id < model.objects.len(), "{}: no object has the owner {}", entry.path().display(), m.uid());
        entries.insert(name.clone(), id);
        durable(model, id, &m, &entry.path());
        if m.is_dir() {
            lying.places.insert(id, (dir, name));
            walk(model, lying, id, &entry.path());
        } else if m.is_file() {
            lying.files.entry(id).or_default().push((dir, name, entry.path()));
        }
    }
    assert!(lying.directories.insert(dir, entries).is_none(), "a directory is in one place");
}

/// Attributes that were synced, and not changed since.
fn durable(model: &Model, id: Id, m: &std::fs::Metadata, path: &Path) {
    let durable = &model.get(id).durable;
    let shown = format!("rule 3: {} (#{id})", path.display());
    let found = m.mode() & 0o7777;
    assert!(durable.mode.is_none_or(|mode| mode == found), "{shown} has mode {found:o}, synced: {durable:?}");
    assert!(
        durable.gid.is_none_or(|gid| gid == m.gid()),
        "{shown} has group {}, synced: {durable:?}",
        m.gid()
    );
    if m.is_file() {
        let found = Timestamp { seconds: m.mtime(), nanoseconds: m.mtime_nsec() as u32 };
        assert!(
            durable.mtime.is_none_or(|mtime| mtime == found),
            "{shown} has the time {found:?}, synced: {durable:?}"
        );
    }
    if !durable.xattrs.is_empty() {
        let found = user_attributes(path);
        for (name, value) in &durable.xattrs {
            assert_eq!(found.get(name), value.as_ref(), "{shown}: the attribute {name} was synced");
        }
    }
}

/// For each directory, the states that it can be in.
fn prefixes(model: &Model, lying: &Lying, left: Left) -> BTreeMap<Id, Vec<usize>> {
    let nothing = Entries::new();
    let mut fitting: BTreeMap<Id, Vec<usize>> = BTreeMap::new();
    for id in (0..model.objects.len()).filter(|&id| model.get(id).is_dir()) {
        let object = model.get(id);
        let all = 0..object.states.len();
        let fits = |state: &Entries, entries: &Entries| fits(model, state, entries, lying, left);
        let states = match lying.directories.get(&id) {
            Some(entries) => all.filter(|&k| fits(&object.states[k], entries)).collect::<Vec<_>>(),
            // Removed there, in whatever state it was.
            None if object.removed => all.collect(),
            None => all.filter(|&k| fits(&object.states[k], &nothing)).collect(),
        };
        assert!(
            !states.is_empty(),
            "rule 1: the entries of directory {:?} (#{id}) were never these: {:?}\nit had {:?}",
            model.path(id),
            lying.directories.get(&id),
            object.states
        );
        let synced: Vec<usize> = states.iter().copied().filter(|&k| k >= object.states_floor).collect();
        assert!(
            !synced.is_empty(),
            "rule 3: directory {:?} (#{id}) lacks entries that were synced: states {states:?} fit, {} was synced: \
             {:?}\nit had {:?}",
            model.path(id),
            object.states_floor,
            lying.directories.get(&id),
            object.states
        );
        fitting.insert(id, synced);
    }
    // Where each directory keeps its own order, a rename may show in one of two.
    if left == Left::PowerCut(Order::Directory) { fitting } else { consistent(model, fitting) }
}

fn fits(model: &Model, state: &Entries, entries: &Entries, lying: &Lying, left: Left) -> bool {
    // A directory has one name, whatever each of two others says.
    let elsewhere = |id: &Id| left == Left::PowerCut(Order::Directory) && lying.directories.contains_key(id);
    let missing = |(name, id): (&String, &Id)| {
        !entries.contains_key(name)
            && (!model.get(*id).cancellable || !model.get(*id).removed)
            && !elsewhere(id)
    };
    entries.iter().all(|(name, id)| state.get(name) == Some(id)) && !state.iter().any(missing)
}

/// Strikes states that no state of the other directory of a change agrees with.
fn consistent(model: &Model, mut fitting: BTreeMap<Id, Vec<usize>>) -> BTreeMap<Id, Vec<usize>> {
    loop {
        let mut struck = false;
        for (one, other) in model.crossings.iter().flat_map(|&(a, b)| [(a, b), (b, a)]) {
            let done: Vec<bool> = fitting[&other.0].iter().map(|&k| k >= other.1).collect();
            let states = fitting.get_mut(&one.0).expect("a directory");
            let before = states.len();
            states.retain(|&k| done.contains(&(k >= one.1)));
            struck |= states.len() != before;
            assert!(!states.is_empty(), "rule 1: a rename is half done, between #{} and #{}", one.0, other.0);
        }
        if !struck {
            return fitting;
        }
    }
}

/// The oldest content that a file may have by the names of the directories that it is below.
fn carried(model: &Model, lying: &Lying, fitting: &BTreeMap<Id, Vec<usize>>, id: Id, mut dir: Id) -> usize {
    let mut floor = 0;
    while let Some((parent, name)) = lying.places.get(&dir) {
        let least = fitting[parent].first().copied().expect("a prefix fits");
        let by_this = model.get(id).carried.iter().filter(|(moved, named)| {
            (*moved, named.dir, &named.name) == (dir, *parent, name) && named.state <= least
        });
        floor = by_this.map(|(_, named)| named.version).fold(floor, usize::max);
        dir = *parent;
    }
    floor
}

fn content(model: &Model, id: Id, place: (Id, &String, &Path), (least, carried): (usize, usize), left: Left) {
    let (dir, name, path) = place;
    let object = model.get(id);
    let named = object.named.iter().rev().find(|n| n.dir == dir && n.name == *name && n.state <= least);
    // A name that was gone by the time of an fsync may still be there, if it was in a directory that was not synced: with
    // what it stood for then.
    let synced = if left == Left::PowerCut(Order::Directory) {
        let by_this = object.synced.iter().filter(|n| n.dir == dir && n.name == *name && n.state <= least);
        by_this.map(|synced| synced.version).max().unwrap_or(0)
    } else {
        object.floor
    };
    let floor = synced.max(named.map_or(0, |named| named.version)).max(carried);
    let allowed = &object.versions[floor..];
    let found = std::fs::read(path).expect("a content");
    let shown = path.display();
    if object.only_replaced || allowed.len() == 1 {
        let exact = allowed.iter().any(|version| **version == found);
        assert!(
            exact,
            "rules 2 to 4: {shown} (#{id}) holds {} bytes that it never held from version {floor} on (fsync {}, \
             rename {:?}, of a directory {carried}, replaced whole {}): {:?}",
            found.len(),
            synced,
            named.map(|named| named.version),
            object.only_replaced,
            object.versions.iter().map(|version| version.len()).collect::<Vec<_>>()
        );
        return;
    }
    let least_bytes = allowed.iter().map(|version| version.len()).min().unwrap_or(0);
    assert!(found.len() >= least_bytes, "rule 2 or 3: {shown} (#{id}) is shorter than it ever was since");
    let most_bytes = allowed.iter().map(|version| version.len()).max().unwrap_or(0);
    assert!(
        found.len() <= most_bytes || left == Left::Stopped,
        "rule 2 or 3: {shown} (#{id}) is longer than it ever was since version {floor}"
    );
    for (at, byte) in found.iter().enumerate() {
        let grown = left != Left::Stopped && *byte == 0 && least_bytes <= at;
        let held = grown || allowed.iter().any(|version| version.get(at) == Some(byte));
        assert!(held, "rule 2 or 3: byte {at} of {shown} (#{id}) is older than version {floor}");
    }
}
