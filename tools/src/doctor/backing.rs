//! A directory as a backing: how files get there, and whether they could go there from a GPU's memory directly.

use super::Check;
use super::gpu::NO_DIRECT;
use crate::mountinfo::{self, Mount};
use aimss_gpu::Probe;
use aimss_gpu::cufile::Route;
use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags};
use std::path::{Path, PathBuf};

/// File systems that only nvidia-fs serves, as the kernel names them, with the name by which cuFile reports them.
const BY_NVIDIA_FS: [(&str, &str); 5] = [
    ("lustre", "Lustre"),
    ("beegfs", "BeeGFS"),
    ("wekafs", "WekaFS"),
    ("gpfs", "GPFS"),
    ("scatefs", "ScaTeFS"),
];

/// What of a directory counts here.
#[derive(Debug)]
struct Facts {
    path: PathBuf,
    /// The file system it lies on: its type, and its own options.
    kind: String,
    settings: String,
    /// Names of the block devices it lies on in the end; none where it lies on none.
    devices: Vec<String>,
    /// Whether files can be written past the page cache; `None` where that can't be tried.
    direct: Option<bool>,
}

/// The checks of one directory; nothing is changed there.
pub fn checks(path: &Path, probe: &Probe) -> Result<[Check; 2]> {
    let facts = Facts::of(path)?;
    Ok([facts.file_system(), facts.direct_storage(probe)])
}

impl Facts {
    fn of(path: &Path) -> Result<Facts> {
        let shown = path.display();
        let path = path.canonicalize().with_context(|| {
            format!("{shown} can't be looked at as a backing; name a directory that is there")
        })?;
        if !path.is_dir() {
            bail!("{shown} is no directory, and only a directory can be a backing");
        }
        let Some(mount) = mountinfo::containing(&path) else {
            bail!("what {shown} lies on isn't known: /proc/self/mountinfo can't be read");
        };
        let devices = block_devices(Path::new("/sys/dev/block"), &mount);
        let direct = direct_writes(&path);
        Ok(Facts { path, kind: mount.kind, settings: mount.settings, devices, direct })
    }

    /// `/data: ext4 on nvme0n1`.
    fn shown(&self) -> String {
        let on =
            if self.devices.is_empty() { String::new() } else { format!(" on {}", self.devices.join(", ")) };
        format!("{}: {}{on}", self.path.display(), self.kind)
    }

    fn is_fuse(&self) -> bool {
        self.kind == "fuse" || self.kind.starts_with("fuse.")
    }

    /// What drained files meet there.
    fn file_system(&self) -> Check {
        const NAME: &str = "backing";
        const ANOTHER: &str = "name a directory on ext4, XFS, Lustre, BeeGFS or NFS";
        let found = self.shown();
        match self.kind.as_str() {
            "fuse.aimss" => Check::missing(
                NAME,
                format!("{found}, an aimss mount"),
                "it can't be a backing: what is behind it can",
                "`aimss status` names the backing of each mount",
            ),
            "tmpfs" | "ramfs" => Check::missing(
                NAME,
                format!("{found}, which is memory"),
                "what is drained is lost with the machine all the same, and takes memory twice",
                ANOTHER,
            ),
            _ if self.is_fuse() => Check::missing(
                NAME,
                format!("{found}, served by another program"),
                "each file that is drained or read passes that program",
                ANOTHER,
            ),
            _ => match self.direct {
                Some(true) => Check::ok(NAME, format!("{found}, written past the page cache")),
                Some(false) => Check::missing(
                    NAME,
                    format!("{found}, without direct I/O"),
                    "the drain copies through the page cache: more processor time and memory a GB",
                    ANOTHER,
                ),
                None => Check::unknown(
                    NAME,
                    format!("{found}, direct I/O can't be tried"),
                    "if there is none, the drain copies through the page cache",
                    "let this user write there",
                ),
            },
        }
    }

    /// Whether cuFile can move data between files there and a GPU past the host's memory.
    fn direct_storage(&self, probe: &Probe) -> Check {
        const NAME: &str = "GPUDirect to the backing";
        let missing = |why: String, remedy: &str| Check::missing(NAME, why, NO_DIRECT, remedy);
        let found = self.shown();
        if let Err((why, remedy)) = self.fits() {
            return missing(format!("{found}, {why}"), remedy);
        }
        let route = match &probe.cufile {
            Ok(report) => &report.route,
            Err(why) => {
                return missing(
                    format!("{found}, which would do; {why}"),
                    "a GPU with NVIDIA's driver, and cuFile (package libcufile or nvidia-gds)",
                );
            }
        };
        let by_nvidia_fs = BY_NVIDIA_FS.iter().find(|(kind, _)| *kind == self.kind).map(|(_, name)| *name);
        let wanted = by_nvidia_fs.unwrap_or(if self.is_nfs() { "NFS" } else { "NVMe" });
        match route {
            Route::NvidiaFs((major, minor), kinds) if kinds.contains(&wanted) => {
                Check::ok(NAME, format!("{found}, direct by nvidia-fs {major}.{minor}"))
            }
            Route::PeerToPeer if wanted == "NVMe" => {
                Check::ok(NAME, format!("{found}, direct by peer-to-peer DMA"))
            }
            Route::NvidiaFs(..) => missing(
                format!("{found}, which nvidia-fs doesn't serve here"),
                "`gdscheck -p` (package gds-tools) says which of its parts is missing",
            ),
            Route::PeerToPeer | Route::Compat if wanted == "NVMe" => missing(
                format!("{found}, and neither nvidia-fs nor peer-to-peer DMA"),
                "`modprobe nvidia_fs` (package nvidia-gds), or a kernel of 6.2 or newer with CONFIG_PCI_P2PDMA, NVIDIA's \
                 open driver with RMForceStaticBar1=1 and RmForceDisableIomapWC=1, and nvme_core.multipath=N",
            ),
            Route::PeerToPeer | Route::Compat => missing(
                format!("{found}, and no nvidia-fs, which it takes"),
                "`modprobe nvidia_fs` (package nvidia-gds)",
            ),
        }
    }

    fn is_nfs(&self) -> bool {
        self.kind == "nfs" || self.kind == "nfs4"
    }

    /// Whether cuFile has a direct way to such a file system and its devices at all; else why not, and what would do.
    fn fits(&self) -> std::result::Result<(), (String, &'static str)> {
        const ELSEWHERE: &str =
            "a backing on NVMe with ext4 or XFS, or on Lustre, BeeGFS, WekaFS, GPFS or NFS over RDMA";
        let has = |option: &str| self.settings.split(',').any(|set| set == option);
        match self.kind.as_str() {
            "ext4" if has("data=journal") || has("data=writeback") => Err((
                "whose data aren't written in order with its journal".into(),
                "mount it with data=ordered, the default of ext4",
            )),
            "ext4" | "xfs" => match self.devices.iter().find(|device| !device.starts_with("nvme")) {
                None if !self.devices.is_empty() => Ok(()),
                Some(other) => Err((format!("and {other} is no NVMe"), ELSEWHERE)),
                None => Err(("whose device isn't known".into(), ELSEWHERE)),
            },
            _ if self.is_nfs() && has("proto=rdma") => Ok(()),
            _ if self.is_nfs() => {
                Err(("over TCP".into(), "mount it with proto=rdma, where server and network can"))
            }
            kind if BY_NVIDIA_FS.iter().any(|(served, _)| *served == kind) => Ok(()),
            kind => Err((format!("and cuFile has no direct way to files of {kind}"), ELSEWHERE)),
        }
    }
}

/// The disks below a mount: partitions are told by their disk, RAIDs and mappings by what they are made of. `by_number` is
/// `/sys/dev/block`.
fn block_devices(by_number: &Path, mount: &Mount) -> Vec<String> {
    let mut disks = Vec::new();
    let mut ask = vec![by_number.join(format!("{}:{}", mount.major, mount.minor))];
    while let Some(device) = ask.pop() {
        let Ok(device) = device.canonicalize() else { continue };
        if device.join("partition").exists() {
            ask.extend(device.parent().map(PathBuf::from));
            continue;
        }
        let below = std::fs::read_dir(device.join("slaves")).into_iter().flatten().flatten();
        let below: Vec<PathBuf> = below.map(|entry| entry.path()).collect();
        let name = device.file_name().map(|name| name.to_string_lossy().into_owned());
        match name {
            Some(name) if below.is_empty() && !disks.contains(&name) => disks.push(name),
            _ => ask.extend(below),
        }
    }
    disks.sort();
    disks
}

/// Whether a file without a name can be opened there for writes past the page cache.
fn direct_writes(path: &Path) -> Option<bool> {
    let open = |flags| {
        let flags = flags | OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
    };
    open(OFlags::empty()).ok()?;
    Some(open(OFlags::DIRECT).is_ok())
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use aimss_gpu::cufile::{NoCuFile, Report};

    fn facts(kind: &str, settings: &str, devices: &[&str]) -> Facts {
        Facts {
            path: "/data".into(),
            kind: kind.into(),
            settings: settings.into(),
            devices: devices.iter().map(|device| (*device).to_string()).collect(),
            direct: Some(true),
        }
    }

    fn probe(route: Option<Route>) -> Probe {
        let none = || NoCuFile::NotLoaded { reason: "not here".into() };
        Probe {
            cuda: Ok((13, 0)),
            gpus: Vec::new(),
            cufile: route.map(|route| Report { library: "libcufile.so.0", route }).ok_or_else(none),
            cufile_library: None,
            nvidia_fs: false,
            busy: Vec::new(),
            nvrtc: Ok("libnvrtc.so.12"),
        }
    }

    fn word(facts: &Facts, route: Option<Route>) -> (Verdict, String) {
        let check = facts.direct_storage(&probe(route));
        (check.verdict, check.found)
    }

    #[test]
    fn the_direct_way_is_told_by_file_system_device_and_driver() {
        let nvme = facts("ext4", "rw", &["nvme0n1", "nvme1n1"]);
        let nvidia_fs = |kinds| Some(Route::NvidiaFs((2, 30), kinds));
        let by = (Verdict::Ok, "/data: ext4 on nvme0n1, nvme1n1, direct by nvidia-fs 2.30".to_string());
        assert_eq!(word(&nvme, nvidia_fs(vec!["NVMe"])), by);
        assert_eq!(word(&nvme, Some(Route::PeerToPeer)).0, Verdict::Ok);
        for route in [nvidia_fs(vec!["Lustre"]), Some(Route::Compat), None] {
            assert_eq!(word(&nvme, route).0, Verdict::Missing);
        }
        assert_eq!(word(&facts("lustre", "rw", &[]), nvidia_fs(vec!["Lustre"])).0, Verdict::Ok);
        assert_eq!(word(&facts("lustre", "rw", &[]), Some(Route::PeerToPeer)).0, Verdict::Missing);
        assert_eq!(word(&facts("nfs4", "rw,proto=rdma", &[]), nvidia_fs(vec!["NFS"])).0, Verdict::Ok);
    }

    #[test]
    fn what_stands_against_it_is_named() {
        let why = |facts: &Facts| {
            let (verdict, found) = word(facts, Some(Route::NvidiaFs((2, 30), vec!["NVMe", "NFS"])));
            assert_eq!(verdict, Verdict::Missing);
            found
        };
        assert_eq!(
            why(&facts("xfs", "rw", &["nvme0n1", "sda"])),
            "/data: xfs on nvme0n1, sda, and sda is no NVMe"
        );
        let journaled = facts("ext4", "rw,data=journal", &["nvme0n1"]);
        assert!(why(&journaled).ends_with("aren't written in order with its journal"), "{journaled:?}");
        assert_eq!(why(&facts("nfs4", "rw,proto=tcp", &[])), "/data: nfs4, over TCP");
        assert_eq!(
            why(&facts("tmpfs", "rw", &[])),
            "/data: tmpfs, and cuFile has no direct way to files of tmpfs"
        );
    }

    #[test]
    fn a_file_system_that_is_memory_or_a_program_is_said_to_be() {
        let verdict = |kind| facts(kind, "rw", &[]).file_system().verdict;
        assert_eq!(verdict("ext4"), Verdict::Ok);
        for kind in ["tmpfs", "fuse.sshfs", "fuse", "fuse.aimss"] {
            assert_eq!(verdict(kind), Verdict::Missing, "{kind}");
        }
        assert_eq!(
            Facts { direct: Some(false), ..facts("zfs", "rw", &[]) }.file_system().verdict,
            Verdict::Missing
        );
        assert_eq!(Facts { direct: None, ..facts("xfs", "rw", &[]) }.file_system().verdict, Verdict::Unknown);
    }

    #[test]
    fn partitions_and_raids_are_told_by_their_disks() {
        let sys = tempfile::tempdir().expect("a directory");
        let device = |path: &str| std::fs::create_dir_all(sys.path().join(path)).expect("a directory");
        let link = |from: &str, to: &str| {
            std::os::unix::fs::symlink(sys.path().join(to), sys.path().join(from)).expect("a link");
        };
        for path in ["nvme0n1/nvme0n1p2/partition", "sda", "md0/slaves", "dev"] {
            device(path);
        }
        link("md0/slaves/nvme0n1p2", "nvme0n1/nvme0n1p2");
        link("md0/slaves/sda", "sda");
        link("dev/9:0", "md0");
        link("dev/259:2", "nvme0n1/nvme0n1p2");
        let disks = |major, minor| {
            let mount = Mount {
                major,
                minor,
                point: "/".into(),
                options: String::new(),
                kind: "ext4".into(),
                source: "x".into(),
                settings: String::new(),
            };
            block_devices(&sys.path().join("dev"), &mount)
        };
        assert_eq!(disks(9, 0), ["nvme0n1", "sda"]);
        assert_eq!(disks(259, 2), ["nvme0n1"]);
        assert!(disks(0, 45).is_empty());
    }

    #[test]
    fn what_is_no_directory_is_refused_by_name() {
        let said = checks(Path::new("/no/such"), &probe(None)).expect_err("it isn't there").to_string();
        assert_eq!(said, "/no/such can't be looked at as a backing; name a directory that is there");
        let said = checks(Path::new("/proc/self/exe"), &probe(None)).expect_err("a file").to_string();
        assert!(said.starts_with("/proc/self/exe is no directory"), "{said}");
    }
}
