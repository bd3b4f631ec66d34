//! Failpoints: places with a name at which a test has the process killed, so that what the next one finds is what was there
//! at that very place. They are there in builds with debug assertions, where tests use them as they are, and in others with
//! the feature `failpoints`; in a release, which has neither, [`pass`] is nothing.
//!
//! The file that `AIMSS_FAILPOINTS` names is mapped by each process of a mount: a count (u64, little-endian), and behind it a
//! name, padded with zeros to [`FILE_BYTES`] in all. Who passes the place of that name takes one from the count; whoever
//! takes the last is killed. Names are appended to the same path with the ending `.names` when they are first passed.

/// Length of the file of an armed failpoint.
pub const FILE_BYTES: usize = 64;

/// The process is at the place `family-what`.
#[cfg(not(any(feature = "failpoints", debug_assertions)))]
#[inline(always)]
pub fn pass(_family: &str, _what: impl std::fmt::Display) {}

#[cfg(any(feature = "failpoints", debug_assertions))]
pub use armed::pass;

#[cfg(any(feature = "failpoints", debug_assertions))]
mod armed {
    use super::FILE_BYTES;
    use memmap2::{MmapOptions, MmapRaw};
    use parking_lot::Mutex;
    use std::collections::BTreeSet;
    use std::fmt::Display;
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Armed {
        map: MmapRaw,
        /// Names that were passed, and where they are written down.
        passed: Mutex<(BTreeSet<String>, File)>,
    }

    impl Armed {
        fn open() -> Option<Armed> {
            let path = PathBuf::from(std::env::var_os("AIMSS_FAILPOINTS")?);
            let file = OpenOptions::new().read(true).write(true).open(&path).ok()?;
            let map = MmapOptions::new().len(FILE_BYTES).map_raw(&file).ok()?;
            let names =
                OpenOptions::new().append(true).create(true).open(path.with_extension("names")).ok()?;
            Some(Armed { map, passed: Mutex::new((BTreeSet::new(), names)) })
        }

        fn pass(&self, name: String) {
            #[allow(clippy::cast_ptr_alignment, reason = "the mapping begins at a page")]
            let count = self.map.as_ptr().cast::<AtomicU64>();
            // SAFETY: the mapping begins at a page, is longer than this, and is never unmapped.
            let count = unsafe { &*count };
            let mut armed = [0; FILE_BYTES - 8];
            // SAFETY: inside the mapping. The test writes the name while the count is zero, and a name that is torn is
            // nobody's.
            unsafe { self.map.as_ptr().add(8).copy_to(armed.as_mut_ptr(), armed.len()) };
            let meant = armed.split(|byte| *byte == 0).next() == Some(name.as_bytes());
            let take =
                || count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1));
            if meant && take() == Ok(1) {
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
            let mut passed = self.passed.lock();
            if !passed.0.contains(&name) {
                let _ = passed.1.write_all(format!("{name}\n").as_bytes());
                passed.0.insert(name);
            }
        }
    }

    /// The process is at the place `family-what`.
    pub fn pass(family: &str, what: impl Display) {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        if let Some(armed) = ARMED.get_or_init(Armed::open) {
            armed.pass(format!("{family}-{what}"));
        }
    }
}
