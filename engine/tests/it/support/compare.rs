//! The namespace, and the backing after a drain, against the model.

use super::ground::Ground;
use super::model::{Id, ROOT, uid_of};
use super::world::World;
use aimss_engine::{Attr, Engine, Ino, Kind, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// From the writing of a file to its date.
const DATED_WITHIN: Duration = Duration::from_secs(5);

/// All names, types, numbers, attributes and contents that the engine shows.
pub fn namespace(world: &mut World) {
    for id in world.model.live() {
        let ino = world.ino(id);
        if world.model.get(id).is_dir() {
            directory(world, id, ino);
        }
        let attr = world.engine.attr(ino).expect("attributes");
        attributes(world, id, &attr);
        if world.model.get(id).kind == Kind::File {
            let seen = read(world, id, ino, attr.size);
            assert!(seen == **world.model.get(id).content(), "the content of {} differs", world.show(id));
        }
        if matches!(world.model.get(id).kind, Kind::File | Kind::Directory) {
            xattrs(world, id, ino);
        }
        if let Some(target) = &world.model.get(id).target {
            assert_eq!(&*world.engine.read_link(ino).expect("a target"), target.as_bytes());
        }
    }
}

fn directory(world: &mut World, id: Id, ino: Ino) {
    world.engine.load_directory(ino).unwrap_or_else(|e| panic!("listing {}: {e}", world.show(id)));
    let mut listed = BTreeMap::new();
    world
        .engine
        .read_directory(ino, 0, |entry| {
            let name = String::from_utf8(entry.name.to_vec()).expect("names of the tests");
            assert!(listed.insert(name, (entry.kind, entry.ino)).is_none(), "an entry is shown once");
            true
        })
        .expect("a listing");
    let expected: BTreeMap<String, Kind> =
        world.model.get(id).entries().iter().map(|(n, &id)| (n.clone(), world.model.get(id).kind)).collect();
    let shown: BTreeMap<String, Kind> = listed.iter().map(|(n, e)| (n.clone(), e.0)).collect();
    assert_eq!(shown, expected, "the entries of {} differ", world.show(id));
    for (name, (_, ino)) in listed {
        let child = world.model.entry(id, &name).expect("compared");
        world.check_ino(child, ino);
    }
}

fn attributes(world: &World, id: Id, attr: &Attr) {
    let object = world.model.get(id);
    assert_eq!(attr.kind, object.kind);
    if id == ROOT {
        return;
    }
    let shown = (attr.mode, attr.uid, attr.gid);
    assert_eq!(shown, (object.mode, uid_of(id), object.gid), "mode and owner of {}", world.show(id));
    if object.is_dir() {
        let below = object.entries().values().filter(|&&id| world.model.get(id).is_dir()).count();
        assert_eq!(attr.nlink as usize, 2 + below, "links of the directory {}", world.show(id));
    } else {
        assert_eq!(attr.nlink as usize, object.links.len(), "links of {}", world.show(id));
    }
    if object.kind == Kind::File {
        assert_eq!(attr.size as usize, object.content().len(), "size of {}", world.show(id));
    }
    if let Some(mtime) = object.mtime {
        assert_eq!(attr.mtime, mtime, "mtime of {}", world.show(id));
    }
}

fn read(world: &mut World, id: Id, ino: Ino, size: u64) -> Vec<u8> {
    let passthrough = world.random.one_in(2);
    let handle = world.open(id, false, false, passthrough);
    let content = read_all(&world.engine, ino, size);
    world.close(handle);
    content
}

/// What a read of one byte more than the size gives.
pub fn read_all(engine: &Engine, ino: Ino, size: u64) -> Vec<u8> {
    let mut content = vec![0; size as usize + 1];
    let n = engine.read(ino, 0, &mut content).expect("a read");
    content.truncate(n);
    content
}

fn xattrs(world: &World, id: Id, ino: Ino) {
    let mut shown = BTreeMap::new();
    for name in world.engine.xattr_names(ino).expect("names of attributes") {
        if name.starts_with(b"user.") {
            let value = world.engine.xattr(ino, &name).expect("a value").to_vec();
            shown.insert(String::from_utf8(name.to_vec()).expect("names of the tests"), value);
        }
    }
    assert_eq!(shown, world.model.get(id).xattrs, "extended attributes of {}", world.show(id));
}

/// The backing after a drain: names, types, contents, owners, modes, times, extended attributes, links.
pub fn backing(world: &mut World, ground: &Ground) {
    let mut times = BTreeMap::new();
    for id in world.model.live() {
        let ino = world.ino(id);
        times.insert(id, world.engine.attr(ino).expect("attributes").mtime);
    }
    tree(world, ground, &times);
}

/// The same; modification times are compared where `times` or the model knows them.
pub fn tree(world: &World, ground: &Ground, times: &BTreeMap<Id, Timestamp>) {
    let mut numbers: BTreeMap<Id, u64> = BTreeMap::new();
    for id in world.model.live() {
        for path in paths(world, ground, id) {
            let m = std::fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert_eq!(*numbers.entry(id).or_insert(m.ino()), m.ino(), "{} is one object", path.display());
            object(world, id, &path, &m, times);
        }
    }
    let distinct: BTreeSet<u64> = numbers.values().copied().collect();
    assert_eq!(distinct.len(), numbers.len(), "different objects are different on the backing");
    // What has no name and is open is kept there, for a daemon that may have to take over.
    let kept: Vec<String> =
        world.handles.iter().map(|handle| format!("unnamed-{:x}", handle.ino.0)).collect();
    let left: Vec<String> = std::fs::read_dir(ground.backing().join(".aimss"))
        .expect("ours")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !kept.contains(name))
        .collect();
    assert!(left.is_empty(), "left in .aimss: {left:?}");
}

fn paths(world: &World, ground: &Ground, id: Id) -> Vec<std::path::PathBuf> {
    if id == ROOT {
        return vec![ground.backing()];
    }
    let links = &world.model.get(id).links;
    let within = |dir| ground.backing().join(world.model.path(dir).expect("a live directory").join("/"));
    links.iter().map(|link| within(link.dir).join(&link.name)).collect()
}

fn mtime(path: &Path) -> Timestamp {
    let m = std::fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Timestamp { seconds: m.mtime(), nanoseconds: m.mtime_nsec() as u32 }
}

fn object(world: &World, id: Id, path: &Path, m: &std::fs::Metadata, times: &BTreeMap<Id, Timestamp>) {
    let object = world.model.get(id);
    let shown = format!("{} (#{id})", path.display());
    let kind = match m.file_type() {
        t if t.is_file() => Kind::File,
        t if t.is_dir() => Kind::Directory,
        t if t.is_symlink() => Kind::Symlink,
        t if t.is_fifo() => Kind::Fifo,
        _ => Kind::Socket,
    };
    assert_eq!(kind, object.kind, "type of {shown}");
    if id != ROOT {
        assert_eq!(
            (m.mode() & 0o7777, m.uid(), m.gid()),
            (object.mode, uid_of(id), object.gid),
            "owner of {shown}"
        );
    }
    for expected in times.get(&id).copied().into_iter().chain(object.mtime) {
        // What is open for writing is copied again and again beside us, and dated right after that.
        let until = Instant::now() + DATED_WITHIN;
        while mtime(path) != expected && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(mtime(path), expected, "mtime of {shown}");
    }
    match object.kind {
        Kind::Directory => {
            let hidden = |name: &OsStr| id == ROOT && name == ".aimss";
            let names: BTreeSet<String> = std::fs::read_dir(path)
                .expect("a listing")
                .map(|entry| entry.expect("an entry").file_name())
                .filter(|name| !hidden(name))
                .map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned())
                .collect();
            let expected: BTreeSet<String> = object.entries().keys().cloned().collect();
            assert_eq!(names, expected, "entries of {shown}");
        }
        Kind::File => {
            assert_eq!(m.nlink() as usize, object.links.len(), "links of {shown}");
            let content = std::fs::read(path).expect("a content");
            assert!(
                content == **object.content(),
                "content of {shown}: {} bytes, {} expected",
                content.len(),
                object.content().len()
            );
        }
        Kind::Symlink => {
            let target = std::fs::read_link(path).expect("a target");
            assert_eq!(target.to_str(), object.target.as_deref(), "target of {shown}");
        }
        _ => {}
    }
    if matches!(object.kind, Kind::File | Kind::Directory) {
        assert_eq!(user_attributes(path), object.xattrs, "extended attributes of {shown}");
    }
}

pub fn user_attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 4096];
    let n = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let mut found = BTreeMap::new();
    for name in names[..n].split(|&b| b == 0).filter(|name| name.starts_with(b"user.")) {
        let mut value = vec![0; 4096];
        let n = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).expect("a value");
        value.truncate(n);
        found.insert(String::from_utf8_lossy(name).into_owned(), value);
    }
    found
}
