//! `aimss fsck`: what lies in a backing's `.aimss` is checked, and repaired with `--rebuild`; each finding is a line.
//!
//! Here is who may, and the words; what is looked at, and how it is repaired, is `aimss_engine::fsck`.

use super::{Told, Usage};
use crate::progress::Display;
use crate::{cli, control, escape, mountinfo};
use aimss_engine::fsck::{self, Fate, Finding, Mode, Repair, Report, What};
use aimss_fs::control::client;
use aimss_fs::control::protocol::Progress;
use aimss_fs::state::{self, Lease, LeaseError};
use anyhow::{Result, anyhow, bail};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Checks what was `asked`.
pub fn run(asked: &cli::Fsck) -> Result<()> {
    let (backing, report) = check(asked).map_err(|error| anyhow!(Usage(format!("{error:#}"))))?;
    let shown = escape::path(&backing);
    if !report.is_there {
        return print(&format!("nothing of aimss is in {shown}\n"));
    }
    let mut text = String::new();
    for finding in &report.findings {
        writeln!(text, "{}", line(finding)).expect("a String takes all");
    }
    writeln!(text, "{}", summary(&shown, &report)).expect("a String takes all");
    print(&text)?;
    if report.left() + report.repairable() > 0 {
        bail!(Told);
    }
    Ok(())
}

/// What fails here fails before anything was checked, or changed.
fn check(asked: &cli::Fsck) -> Result<(PathBuf, Report)> {
    let backing = directory(&asked.backing)?;
    if !fsck::is_there(&backing)? {
        return Ok((backing, Report::default()));
    }
    let report = if asked.rebuild { rebuild(&backing)? } else { look(&backing)? };
    Ok((backing, report))
}

/// `backing` absolute and without symbolic links: a directory that is on no mount of aimss.
fn directory(backing: &Path) -> Result<PathBuf> {
    let shown = escape::path(backing);
    match fs::metadata(backing) {
        Ok(metadata) if !metadata.is_dir() => bail!("{shown} is not a directory; give a backing directory"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("there is no directory {shown}; give the first of the two that `aimss mount` is given")
        }
        _ => {}
    }
    let resolved = control::resolve(backing)?;
    if let Some(known) = control::known_containing(&resolved) {
        bail!(
            "{shown} lies on the aimss mount {}; unmount that, then give its backing {}",
            escape::path(&known.mountpoint),
            escape::path(&known.backing)
        );
    }
    if let Some(mount) = mountinfo::containing(&resolved).filter(|mount| mount.kind == "fuse.aimss") {
        bail!(
            "{shown} lies on the aimss mount {}; unmount that, then give its backing",
            escape::path(&mount.point)
        );
    }
    if let Some(known) = client::mounts().into_iter().find(|known| known.alive && known.backing == resolved) {
        let mountpoint = escape::path(&known.mountpoint);
        bail!(
            "{shown} is mounted by aimss at {mountpoint} (process {}); `aimss umount {mountpoint}` first",
            known.pid
        );
    }
    Ok(resolved)
}

fn node() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Its sentence has its cause already.
fn told(error: LeaseError) -> anyhow::Error {
    anyhow!("{error}")
}

fn look(backing: &Path) -> Result<Report> {
    let looked = Lease::look(backing, &node()).map_err(told)?;
    let owner = looked.as_ref().and_then(|looked| looked.owner.as_ref());
    let in_memory = state::left_in_memory(backing, owner);
    let mut report = examine(backing, Mode::Look)?;
    let lease = backing.join(".aimss/lease");
    match &looked {
        None if fs::symlink_metadata(&lease).is_ok() => {
            bail!("{} was mounted meanwhile; unmount it, and check again", escape::path(backing))
        }
        None => {}
        Some(_) => {
            report
                .findings
                .insert(0, about_lease(in_memory.is_none().then_some(Fate::Would(Repair::Remove))));
        }
    }
    if let Some(mountpoint) = in_memory {
        // They may be what that mount goes on with.
        for finding in &mut report.findings {
            if matches!(finding.what, What::Beside(_) | What::Unnamed(_)) {
                finding.fate = Fate::Noted;
            }
        }
        eprintln!("aimss: note: {}; what follows is without that", left_at(backing, &mountpoint));
    }
    Ok(report)
}

fn rebuild(backing: &Path) -> Result<Report> {
    let times = fs::metadata(backing)?;
    let was_there = fs::symlink_metadata(backing.join(".aimss/lease")).is_ok();
    let lease = Lease::take_to_repair(backing, &node()).map_err(told)?;
    if let Some(mountpoint) = state::left_in_memory(backing, lease.before()) {
        bail!("{}", left_at(backing, &mountpoint));
    }
    let mut report = examine(backing, Mode::Repair)?;
    lease.give_back();
    if was_there {
        report.findings.insert(0, about_lease(Some(Fate::Did(Repair::Remove))));
    }
    // If .aimss went with its last file, the directory's time of change is as it was.
    let restored = fs::FileTimes::new().set_accessed(times.accessed()?).set_modified(times.modified()?);
    let _ = fs::File::open(backing).and_then(|directory| directory.set_times(restored));
    Ok(report)
}

fn left_at(backing: &Path, mountpoint: &Path) -> String {
    let (b, m) = (escape::path(backing), escape::path(mountpoint));
    format!(
        "the daemon that had {b} mounted at {m} died and left data in memory; `aimss mount {b} {m}` first, which has it, \
         and unmount"
    )
}

fn about_lease(fate: Option<Fate>) -> Finding {
    let (what, fate) = match fate {
        Some(fate) => (What::Lease, fate),
        None => (What::LeaseInMemory, Fate::Stays),
    };
    Finding { path: ".aimss/lease".into(), stream: None, what, lost: 0..0, fate }
}

fn examine(backing: &Path, mode: Mode) -> Result<Report> {
    let mut display = Display::of("checked");
    Ok(fsck::run(backing, mode, &mut |far| {
        display.update(Progress {
            bytes_left: far.bytes_left,
            items_left: far.logs_left,
            bytes_done: far.bytes_done,
        });
    })?)
}

/// `PATH: what it is; what is lost; what becomes of it`
fn line(finding: &Finding) -> String {
    let stream = finding.stream.as_deref().filter(|stream| !stream.as_os_str().is_empty());
    let stream = stream.map_or(String::new(), |stream| format!(" (of {})", escape::path(stream)));
    let what = escape::text(&finding.what.to_string());
    let mut text = format!("{}{stream}: {what}", escape::path(&finding.path));
    if !finding.lost.is_empty() {
        let (first, last) = (finding.lost.start, finding.lost.end - 1);
        if first == last {
            write!(text, "; record {first} is lost").expect("a String takes all");
        } else {
            write!(text, "; records {first} to {last} are lost").expect("a String takes all");
        }
    }
    match &finding.fate {
        Fate::Noted => {}
        Fate::Would(repair) => write!(text, "; --rebuild {}", would(repair)).expect("a String takes all"),
        Fate::Did(repair) => write!(text, "; {}", did(repair)).expect("a String takes all"),
        Fate::Stays => write!(text, "; {}", stays(&finding.what)).expect("a String takes all"),
    }
    text
}

fn would(repair: &Repair) -> String {
    match repair {
        Repair::Remove => "removes it".into(),
        Repair::SetAside => "sets it aside".into(),
        Repair::Rename => "gives it the right name".into(),
        Repair::Rewrite => "writes it anew from the rest".into(),
        Repair::Settings => "writes new ones, without limits of retention".into(),
        Repair::TailAside => "puts those bytes into a .torn file beside".into(),
        Repair::Group(offset) => {
            format!("sets its file aside and lets it go on at record {offset}, the first kept")
        }
    }
}

fn did(repair: &Repair) -> String {
    match repair {
        Repair::Remove => "removed".into(),
        Repair::SetAside => "set aside, as .damaged".into(),
        Repair::Rename => "given the right name".into(),
        Repair::Rewrite => "written anew from the rest".into(),
        Repair::Settings => "written anew; set retention again with `aimss stream set` if it had any".into(),
        Repair::TailAside => "those bytes are in a .torn file beside now".into(),
        Repair::Group(offset) => format!(
            "its file is set aside, and it goes on at record {offset}, the first kept; `aimss stream seek` to change that"
        ),
    }
}

fn stays(what: &What) -> &'static str {
    match what {
        What::Later | What::Failed(_) => "left alone",
        What::LostFrom(_) => "they are lost",
        What::NoFile => "left alone; look at it, and move it away",
        What::NoSettings | What::Settings => {
            "nothing else says how its bytes are divided; bring the file from a copy of the backing"
        }
        What::DataflowMemory(_) => "--rebuild refuses; open the dataflow again first",
        What::LeaseInMemory => "--rebuild refuses; mount again first",
        _ => "there is no second copy to repair it from; the rest can be read",
    }
}

fn summary(shown: &str, report: &Report) -> String {
    let counted = super::stream::counted;
    let looked = format!(
        "{shown}: {}, {}, {}",
        counted(report.logs, "log"),
        counted(report.segments, "segment"),
        counted(report.records, "record")
    );
    let (repaired, repairable, left) = (report.repaired(), report.repairable(), report.left());
    if repaired + repairable + left == 0 {
        return format!("{looked}; nothing wrong");
    }
    let mut parts = Vec::new();
    if repaired > 0 {
        parts.push(format!("{repaired} repaired"));
    }
    if repairable > 0 {
        parts.push(format!("{repairable} that --rebuild repairs"));
    }
    if left > 0 {
        parts.push(format!(
            "{left} that {} as {}",
            if left == 1 { "stays" } else { "stay" },
            if left == 1 { "it is" } else { "they are" }
        ));
    }
    let found = counted((repaired + repairable + left) as u64, "finding");
    format!("{looked}; {found}: {}; {} lost", parts.join(", "), counted(report.lost(), "record"))
}

/// A reader that has left is none of our business.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aimss_engine::stream::Damage;

    #[test]
    fn a_line_has_place_what_is_lost_and_what_becomes_of_it_on_one_line() {
        let finding = |lost, fate| Finding {
            path: ".aimss/streams/a\nb".into(),
            stream: Some("x\x1b.stream".into()),
            what: What::Damage(Damage::Records, 7),
            lost,
            fate,
        };
        assert_eq!(
            line(&finding(3..4, Fate::Stays)),
            ".aimss/streams/a\\nb (of x\\x1b.stream): at byte 7: records differ from their checksums; record 3 is lost; there is no second \
             copy to repair it from; the rest can be read"
        );
        let would = line(&finding(0..0, Fate::Would(Repair::Group(5))));
        assert!(
            would.ends_with("--rebuild sets its file aside and lets it go on at record 5, the first kept"),
            "{would}"
        );
    }
}
