//! Building what survived: names, and contents with what was not synced kept, lost or torn.

use super::super::random::Random;
use super::record::{Attributes, Known, Object, ROOT, Record};
use super::survive::{Order, Survivors};
use aimss_engine::Kind;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A disk writes a page or doesn't.
const PAGE_BYTES: usize = 4096;

/// See the module. `into` stands for the root.
pub fn build(record: &Record, survivors: &Survivors, random: &mut Random, into: &Path) {
    let mut placed: BTreeMap<Object, PathBuf> = BTreeMap::from([(ROOT, into.to_owned())]);
    let newest = newest(record, survivors);
    // By their newest names; then those whose newest can't be reached.
    while enter(record, survivors, random, &mut placed, |object, step| step >= newest[&object])
        || enter(record, survivors, random, &mut placed, |_, _| true)
    {}
    for (&object, path) in &placed {
        attributes(&chosen(&record.objects[object], survivors, random), record.objects[object].kind, path);
    }
}

/// The step of each object's newest name.
fn newest(record: &Record, survivors: &Survivors) -> BTreeMap<Object, usize> {
    let mut newest = BTreeMap::new();
    for dir in 0..record.objects.len() {
        for (object, step) in survivors.entries(record, dir).into_values() {
            let known = newest.entry(object).or_insert(step);
            *known = step.max(*known);
        }
    }
    newest
}

/// Makes what is named in directories that are there; whether there was more.
fn enter(
    record: &Record,
    survivors: &Survivors,
    random: &mut Random,
    placed: &mut BTreeMap<Object, PathBuf>,
    wanted: impl Fn(Object, usize) -> bool,
) -> bool {
    let mut entered = false;
    for dir in (0..record.objects.len()).filter(|&dir| record.objects[dir].kind == Kind::Directory) {
        let Some(parent) = placed.get(&dir).cloned() else { continue };
        for (name, (object, step)) in survivors.entries(record, dir) {
            let (known, path) = (&record.objects[object], parent.join(OsStr::from_bytes(&name)));
            let is_dir = known.kind == Kind::Directory;
            match placed.get(&object) {
                _ if is_dir && !wanted(object, step) => {}
                Some(_) if is_dir => {}
                Some(_) if std::fs::symlink_metadata(&path).is_ok() => {}
                Some(first) => std::fs::hard_link(first, path).expect("link"),
                None => {
                    make(known, random, &path);
                    placed.insert(object, path);
                    entered = true;
                }
            }
        }
    }
    entered
}

fn make(known: &Known, random: &mut Random, path: &Path) {
    match known.kind {
        Kind::Directory => std::fs::create_dir(path).expect("mkdir"),
        Kind::Symlink => std::os::unix::fs::symlink(OsStr::from_bytes(&known.target), path).expect("symlink"),
        Kind::File => std::fs::write(path, content(known, random)).expect("write"),
        kind => {
            let kind = FileType::from_raw_mode(kind.mode_bits());
            rustix::fs::mknodat(CWD, path, kind, Mode::empty(), u64::from(known.rdev)).expect("mknod");
        }
    }
}

/// What was synced last, what is newest, or a mix of pages of all versions since.
fn content(known: &Known, random: &mut Random) -> Vec<u8> {
    let versions = &known.contents;
    let one = versions[random.below(versions.len() as u64) as usize].clone();
    match random.below(4) {
        0 => return (*versions[0]).clone(),
        1 => return (**versions.last().expect("a content")).clone(),
        _ => {}
    }
    let mut bytes = vec![0; one.len()];
    for (page, into) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
        let version = &versions[random.below(versions.len() as u64) as usize];
        let from = version.get(page * PAGE_BYTES..).unwrap_or_default();
        let length = into.len().min(from.len());
        into[..length].copy_from_slice(&from[..length]);
    }
    bytes
}

fn chosen(known: &Known, survivors: &Survivors, random: &mut Random) -> Attributes {
    let versions = &known.attributes;
    let at = match survivors.order {
        Order::Log => versions.iter().rposition(|version| version.0 <= survivors.steps).unwrap_or(0),
        Order::Directory => random.below(versions.len() as u64) as usize,
    };
    versions[at].1.clone()
}

fn attributes(attributes: &Attributes, kind: Kind, path: &Path) {
    let (uid, gid) = attributes.owner;
    for (name, value) in &attributes.xattrs {
        rustix::fs::lsetxattr(path, OsStr::from_bytes(name), value, XattrFlags::empty()).expect("setxattr");
    }
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).expect("chown");
    if kind != Kind::Symlink {
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(attributes.mode), AtFlags::empty())
            .expect("chmod");
    }
    let time = Timespec { tv_sec: attributes.mtime.0, tv_nsec: attributes.mtime.1 as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("utimens");
}
