//! POSIX access control lists as the kernel stores them in extended attributes.
//!
//! Format (acl(5), linux/posix_acl_xattr.h): a version, 2 as little-endian u32; then entries of 8 bytes: tag u16,
//! permissions u16, id u32. Tags: owner 0x01, named user 0x02, group 0x04, named group 0x08, mask 0x10, other 0x20.
//! How a new file inherits and chmod changes a list follows POSIX.1e draft 17, sections 23.1.2 and 23.1.5.

/// Attribute that holds the list a file is checked against.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// Attribute that holds what new files in a directory inherit.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const ENTRY_BYTES: usize = 8;
const OWNER: u16 = 0x01;
const GROUP: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// A list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl(Vec<Entry>);

impl Acl {
    /// From an attribute's value; `None` if it isn't one.
    pub fn decode(value: &[u8]) -> Option<Acl> {
        let (version, entries) = value.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*version) != VERSION || entries.len() % ENTRY_BYTES != 0 {
            return None;
        }
        let entry = |e: &[u8]| Entry {
            tag: u16::from_le_bytes([e[0], e[1]]),
            permissions: u16::from_le_bytes([e[2], e[3]]),
            id: u32::from_le_bytes([e[4], e[5], e[6], e[7]]),
        };
        Some(Acl(entries.chunks_exact(ENTRY_BYTES).map(entry).collect()))
    }

    /// As an attribute's value.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            value.extend(entry.tag.to_le_bytes());
            value.extend(entry.permissions.to_le_bytes());
            value.extend(entry.id.to_le_bytes());
        }
        value
    }

    /// Whether it says no more than a mode does.
    pub fn is_minimal(&self) -> bool {
        self.0.iter().all(|entry| matches!(entry.tag, OWNER | GROUP | OTHER))
    }

    /// The list of a new file made with `mode` in a directory whose default list this is, and the file's mode.
    pub fn inherit(&self, mode: u32) -> (Acl, u32) {
        let mut access = self.clone();
        let group_class = if access.has(MASK) { MASK } else { GROUP };
        for entry in &mut access.0 {
            let asked = match entry.tag {
                OWNER => mode >> 6,
                OTHER => mode,
                tag if tag == group_class => mode >> 3,
                _ => continue,
            };
            entry.permissions &= (asked & 7) as u16;
        }
        let mode = (mode & !0o777) | access.mode();
        (access, mode)
    }

    /// What chmod does to it: the group bits of a mode are the mask's where there is one.
    pub fn chmod(&mut self, mode: u32) {
        let group_class = if self.has(MASK) { MASK } else { GROUP };
        for entry in &mut self.0 {
            entry.permissions = match entry.tag {
                OWNER => (mode >> 6) & 7,
                OTHER => mode & 7,
                tag if tag == group_class => (mode >> 3) & 7,
                _ => continue,
            } as u16;
        }
    }

    /// The permission bits of a file with this list.
    pub fn mode(&self) -> u32 {
        let group_class = if self.has(MASK) { MASK } else { GROUP };
        let of = |tag| self.0.iter().find(|e| e.tag == tag).map_or(0, |e| u32::from(e.permissions & 7));
        of(OWNER) << 6 | of(group_class) << 3 | of(OTHER)
    }

    fn has(&self, tag: u16) -> bool {
        self.0.iter().any(|entry| entry.tag == tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16)]) -> Acl {
        Acl(entries.iter().map(|&(tag, permissions)| Entry { tag, permissions, id: 0 }).collect())
    }

    #[test]
    fn a_list_survives_its_encoding() {
        let acl = list(&[(OWNER, 7), (0x02, 6), (GROUP, 5), (MASK, 7), (OTHER, 0)]);
        assert_eq!(Acl::decode(&acl.encode()), Some(acl));
        assert_eq!(Acl::decode(b"\x01\0\0\0"), None);
        assert_eq!(Acl::decode(b"\x02\0\0\0abc"), None);
    }

    #[test]
    fn a_new_file_has_what_both_list_and_mode_allow() {
        let default = list(&[(OWNER, 7), (0x02, 7), (GROUP, 7), (MASK, 6), (OTHER, 5)]);
        let (access, mode) = default.inherit(0o640);
        assert_eq!(mode, 0o640);
        assert_eq!(access, list(&[(OWNER, 6), (0x02, 7), (GROUP, 7), (MASK, 4), (OTHER, 0)]));
    }

    #[test]
    fn chmod_changes_the_mask() {
        let mut acl = list(&[(OWNER, 7), (0x02, 7), (GROUP, 7), (MASK, 7), (OTHER, 7)]);
        acl.chmod(0o604);
        assert_eq!((acl.mode(), acl.0[2].permissions, acl.0[3].permissions), (0o604, 7, 0));
    }
}
