//! What Linux expects of the attributes of files, beyond what the engine keeps: umask and default ACLs of new files,
//! inherited groups, and suid, sgid and capabilities that a write or a change of owner takes away.
//!
//! The kernel checks permissions itself (`default_permissions`); these are the changes that go with what it allows.

mod acl;

use aimss_engine::engine::{New, SetAttr};
use aimss_engine::journal::Journal;
use aimss_engine::{Engine, Ino, Kind, Result};

pub use acl::{ACCESS as ACL_ACCESS, DEFAULT as ACL_DEFAULT};

const SUID: u32 = 0o4000;
const SGID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o0010;
/// File capabilities; gone with a write.
pub const CAPABILITY: &[u8] = b"security.capability";

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process.
    pub pid: u32,
    /// The request by which it asks.
    pub request: u64,
}

/// A new object's attributes, from what the caller asked for and the directory it goes to.
pub fn prepare<'a>(
    engine: &Engine,
    parent: Ino,
    caller: Caller,
    kind: Kind,
    mode: u32,
    umask: u32,
) -> Result<New<'a>> {
    let directory = engine.attr(parent)?;
    let (mut mode, mut gid) = (mode & 0o7777, caller.gid);
    if directory.mode & SGID != 0 {
        gid = directory.gid;
        if kind == Kind::Directory {
            mode |= SGID;
        }
    }
    let mut xattrs = Vec::new();
    let inherited = if kind == Kind::Symlink { None } else { engine.xattr(parent, acl::DEFAULT).ok() };
    match inherited.and_then(|value| acl::Acl::decode(&value)) {
        Some(default) => {
            let (access, allowed) = default.inherit(mode);
            mode = allowed;
            if !access.is_minimal() {
                xattrs.push((acl::ACCESS.to_vec(), access.encode()));
            }
            if kind == Kind::Directory {
                xattrs.push((acl::DEFAULT.to_vec(), default.encode()));
            }
        }
        None if kind != Kind::Symlink => mode &= !(umask & 0o777),
        None => mode = 0o777,
    }
    Ok(New { kind, mode, uid: caller.uid, gid, rdev: 0, target: None, xattrs })
}

/// What a change of attributes takes along: a new owner and a write take suid and sgid, a new mode changes the ACL.
pub fn set_attr(
    engine: &Engine,
    ino: Ino,
    caller: Caller,
    mut change: SetAttr,
) -> Result<aimss_engine::Attr> {
    let before = engine.attr(ino)?;
    let empty =
        change.mode.is_none() && change.uid.is_none() && change.gid.is_none() && change.size.is_none();
    let killing = empty && change.atime.is_none() && change.mtime.is_none();
    let owner = change.uid.is_some() || change.gid.is_some();
    let written = (killing || change.size.is_some()) && caller.uid != 0;
    if !matches!(before.kind, Kind::Directory | Kind::Symlink) && (owner || written) {
        change.mode = Some(without_privileges(change.mode.unwrap_or(before.mode)));
        let _first = Journal::preparing();
        drop_capability(engine, ino)?;
    }
    if let Some(mode) = change.mode
        && let Ok(value) = engine.xattr(ino, acl::ACCESS)
        && let Some(mut access) = acl::Acl::decode(&value)
    {
        access.chmod(mode);
        let _first = Journal::preparing();
        engine.set_xattr(ino, acl::ACCESS, &access.encode(), false, false)?;
    }
    engine.set_attr(ino, &change)
}

/// A mode without suid, and without sgid where that means set-group-id rather than mandatory locking.
fn without_privileges(mode: u32) -> u32 {
    let sgid = if mode & GROUP_EXECUTE != 0 { SGID } else { 0 };
    mode & !(SUID | sgid)
}

/// Takes suid, sgid and capabilities away, as a write by somebody without CAP_FSETID does.
pub fn kill_privileges(engine: &Engine, ino: Ino) -> Result<()> {
    let attr = engine.attr(ino)?;
    let mode = without_privileges(attr.mode);
    if mode != attr.mode {
        engine.set_attr(ino, &SetAttr { mode: Some(mode), ..SetAttr::default() })?;
    }
    drop_capability(engine, ino)
}

fn drop_capability(engine: &Engine, ino: Ino) -> Result<()> {
    match engine.remove_xattr(ino, CAPABILITY) {
        Err(aimss_engine::Error::NoAttribute) => Ok(()),
        other => other,
    }
}

/// setxattr(2), with what ACLs do to the mode.
pub fn set_xattr(
    engine: &Engine,
    ino: Ino,
    name: &[u8],
    value: &[u8],
    create: bool,
    replace: bool,
) -> Result<()> {
    if name == acl::ACCESS {
        let access = acl::Acl::decode(value).ok_or(aimss_engine::Error::Invalid)?;
        let attr = engine.attr(ino)?;
        let mode = (attr.mode & !0o777) | access.mode();
        if mode != attr.mode {
            let _first = Journal::preparing();
            engine.set_attr(ino, &SetAttr { mode: Some(mode), ..SetAttr::default() })?;
        }
        if access.is_minimal() {
            // Nothing that the mode doesn't say.
            return match engine.remove_xattr(ino, name) {
                Err(aimss_engine::Error::NoAttribute) => Ok(()),
                other => other,
            };
        }
    }
    engine.set_xattr(ino, name, value, create, replace)
}
