//! Daemons are killed, or give way to another program, one after the other while programs work on the mount; their keeper has
//! the next one ready, or starts it. No program sees an error, nothing is lost, nothing is done twice. `AIMSS_KILLS=N` for
//! more, `AIMSS_UPGRADES=N`, `AIMSS_SEED=N` to repeat.

use aimss_mount_tests::bytes::pattern;
use aimss_mount_tests::{Mount, binary, both_modes, wait_until};
use anyhow::{Context as _, Result, ensure};
use rustix::fs::XattrFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Files that stay where they are, for those who list and read.
const LASTING: u64 = 300;
const RECORD_BYTES: usize = 100;

/// What programs do, until they are stopped; each counts what it has done.
type Work = fn(&Path, &Load) -> Result<()>;

/// The load, and what it has come to.
#[derive(Debug, Default)]
struct Load {
    stop: AtomicBool,
    done: AtomicU64,
    /// The longest pause of anybody, in microseconds.
    pause: AtomicU64,
}

impl Load {
    /// Runs `step` with a number that grows, until it is to stop.
    fn each(&self, mut step: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let mut number = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            step(number).with_context(|| format!("step {number}"))?;
            self.pause.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
            self.done.fetch_add(1, Ordering::Relaxed);
            number += 1;
        }
        Ok(())
    }
}

fn appends(dir: &Path, load: &Load) -> Result<()> {
    let path = dir.join("appended");
    let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
    let mut records = 0;
    load.each(|number| {
        file.write_all(&pattern(number, RECORD_BYTES))?;
        records = number + 1;
        if number.is_multiple_of(64) {
            ensure!(file.metadata()?.len() == records * RECORD_BYTES as u64, "the size after an append");
        }
        Ok(())
    })?;
    let content = fs::read(&path)?;
    ensure!(content.len() as u64 == records * RECORD_BYTES as u64, "{} bytes of {records}", content.len());
    for (number, record) in content.chunks(RECORD_BYTES).enumerate() {
        ensure!(record == pattern(number as u64, RECORD_BYTES), "record {number}");
    }
    Ok(())
}

fn makes_and_removes(dir: &Path, load: &Load) -> Result<()> {
    load.each(|number| {
        let (old, new) = (dir.join(format!("made-{number}")), dir.join(format!("moved-{number}")));
        let content = pattern(number, 5000);
        OpenOptions::new().write(true).create_new(true).open(&old)?.write_all(&content)?;
        ensure!(fs::metadata(&old)?.len() == 5000, "the size of what was made");
        fs::rename(&old, &new)?;
        ensure!(fs::metadata(&old).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound), "the old name");
        ensure!(fs::read(&new)? == content, "the content under the new name");
        fs::remove_file(&new)?;
        Ok(())
    })
}

fn makes_directories(dir: &Path, load: &Load) -> Result<()> {
    load.each(|number| {
        let made = dir.join(format!("dir-{number}"));
        fs::create_dir(&made)?;
        std::os::unix::fs::symlink("somewhere", made.join("symlink"))?;
        fs::write(made.join("file"), "content")?;
        fs::hard_link(made.join("file"), made.join("link"))?;
        ensure!(fs::metadata(made.join("link"))?.nlink() == 2, "links");
        ensure!(fs::read_link(made.join("symlink"))? == Path::new("somewhere"), "a target");
        fs::remove_file(made.join("file"))?;
        ensure!(fs::metadata(made.join("link"))?.nlink() == 1, "links, of two names one went");
        ensure!(fs::read(made.join("link"))? == b"content", "the content under the other name");
        fs::remove_file(made.join("link"))?;
        fs::remove_file(made.join("symlink"))?;
        fs::remove_dir(&made)?;
        Ok(())
    })
}

fn changes_attributes(dir: &Path, load: &Load) -> Result<()> {
    let path = dir.join("attributes");
    fs::write(&path, [7; 1000])?;
    load.each(|number| {
        // Of these each fails when it is done twice.
        rustix::fs::setxattr(&path, "user.once", b"value", XattrFlags::CREATE).context("setxattr")?;
        rustix::fs::removexattr(&path, "user.once").context("removexattr")?;
        let size = 100 + number % 1000;
        OpenOptions::new().write(true).open(&path)?.set_len(size)?;
        ensure!(fs::metadata(&path)?.len() == size, "the size that was set");
        Ok(())
    })
}

fn lists(dir: &Path, load: &Load) -> Result<()> {
    let lasting = dir.parent().context("a parent")?.join("lasting");
    load.each(|_| {
        let mut names: Vec<_> =
            fs::read_dir(&lasting)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
        let listed = names.len();
        names.sort();
        names.dedup();
        ensure!(
            names.len() as u64 == LASTING && listed == names.len(),
            "{listed} names, {} of them",
            names.len()
        );
        Ok(())
    })
}

fn reads(dir: &Path, load: &Load) -> Result<()> {
    let lasting = dir.parent().context("a parent")?.join("lasting");
    let mut held = File::open(lasting.join("file-0"))?;
    load.each(|number| {
        let which = number * 7 % LASTING;
        ensure!(fs::read(lasting.join(format!("file-{which}")))? == pattern(which, 3000), "file {which}");
        // One that stays open over all of it.
        let mut content = Vec::new();
        held.seek(SeekFrom::Start(0))?;
        held.read_to_end(&mut content)?;
        ensure!(content == pattern(0, 3000), "the file that is held open");
        Ok(())
    })
}

fn writes_in_place(dir: &Path, load: &Load) -> Result<()> {
    let path = dir.join("in-place");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    // Nameless, so that nothing but its handle leads to it.
    fs::remove_file(&path)?;
    load.each(|number| {
        let (block, at) = (pattern(number, 4096), number % 64 * 4096);
        file.write_all_at(&block, at)?;
        let mut read = vec![0; 4096];
        file.read_exact_at(&mut read, at)?;
        ensure!(read == block, "a block that was just written");
        Ok(())
    })
}

fn syncs(dir: &Path, load: &Load) -> Result<()> {
    load.each(|number| {
        let path = dir.join(format!("synced-{}", number % 10));
        let mut file = File::create(&path)?;
        file.write_all(&pattern(number, 2000))?;
        file.sync_all()?;
        ensure!(fs::read(&path)? == pattern(number, 2000), "what was synced");
        Ok(())
    })
}

fn appends_to_a_stream(dir: &Path, load: &Load) -> Result<()> {
    let path = dir.join("x.stream");
    let mut writer = OpenOptions::new().append(true).create(true).open(&path)?;
    let mut reader = File::open(dir.join("x.stream@group+eof"))?;
    let mut appended = 0;
    // The number of the next record that the reader has not seen, and how many it was given again.
    let (mut next, mut again) = (0, 0);
    let mut consume = |at_most: u64| -> Result<bool> {
        let mut batch = vec![0; 1 << 16];
        let bytes = reader.read(&mut batch).context("a read of the group")?;
        for line in std::str::from_utf8(&batch[..bytes])?.lines() {
            let number: u64 = line.strip_prefix("record ").context("a record")?.parse()?;
            ensure!(number <= next && number < at_most, "record {number} came where {next} was due");
            again += u64::from(number < next);
            next = next.max(number + 1);
        }
        Ok(bytes > 0)
    };
    load.each(|number| {
        writer.write_all(format!("record {number}\n").as_bytes()).context("an append")?;
        appended = number + 1;
        if number.is_multiple_of(16) {
            consume(appended)?;
        }
        Ok(())
    })?;
    while consume(appended)? {}
    ensure!(next == appended, "{next} of {appended} records were delivered");
    println!("appends-to-a-stream: {appended} records, of which {again} were delivered again");
    let whole = fs::read_to_string(&path)?;
    for (number, line) in whole.lines().enumerate() {
        ensure!(line == format!("record {number}"), "{line} stands where record {number} should");
    }
    ensure!(whole.lines().count() as u64 == appended, "{} of {appended} records", whole.lines().count());
    fs::remove_file(path)?;
    Ok(())
}

const WORKS: [(&str, Work); 9] = [
    ("appends", appends),
    ("makes-and-removes", makes_and_removes),
    ("makes-directories", makes_directories),
    ("changes-attributes", changes_attributes),
    ("lists", lists),
    ("reads", reads),
    ("writes-in-place", writes_in_place),
    ("syncs", syncs),
    ("appends-to-a-stream", appends_to_a_stream),
];

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Does `what` while all programs work; it is given the mount and a number at random each time.
fn while_programs_work(mount: &Mount, times: u64, what: impl Fn(&Mount, u64) -> Result<()>) -> Result<()> {
    let seed = number("AIMSS_SEED", 1);
    println!("AIMSS_SEED={seed}, {times} times");
    let lasting = mount.at("lasting");
    fs::create_dir(&lasting)?;
    for number in 0..LASTING {
        fs::write(lasting.join(format!("file-{number}")), pattern(number, 3000))?;
    }
    let loads: Vec<Load> = WORKS.iter().map(|_| Load::default()).collect();
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = WORKS
            .iter()
            .zip(&loads)
            .map(|((name, work), load)| {
                let dir = mount.at(name);
                scope.spawn(move || -> Result<()> {
                    fs::create_dir(&dir)?;
                    work(&dir, load).with_context(|| format!("whoever {name}"))
                })
            })
            .collect();
        let mut random = seed;
        let done = (0..times).try_for_each(|_| {
            // The generator of Knuth's MMIX.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_millis(50 + (random >> 33) % 250));
            what(mount, random >> 41)
        });
        for load in &loads {
            load.stop.store(true, Ordering::Relaxed);
        }
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join().expect("no panic")).collect();
        done?;
        ended.into_iter().collect()
    })?;
    for ((name, _), load) in WORKS.iter().zip(&loads) {
        let (done, pause) = (load.done.load(Ordering::Relaxed), load.pause.load(Ordering::Relaxed));
        println!("{name}: {done} steps, the longest {} ms", pause / 1000);
        assert!(done > 0, "{name} did nothing");
    }
    Ok(())
}

fn wait_for_standby(mount: &Mount) {
    let stands = || mount.status().is_ok_and(|status| status["keeper"]["standby"]["pid"].is_u64());
    wait_until("a second daemon stands ready", Duration::from_secs(20), stands);
}

both_modes! {
    with { drain_delay: "100ms" }
    fn programs_do_not_notice_that_daemons_give_way_to_others(mount: &Mount) {
        let upgrades = number("AIMSS_UPGRADES", 6);
        let other = mount.beside("another-aimss");
        fs::copy(binary::path(), &other)?;
        while_programs_work(mount, upgrades, |mount, random| {
            let (before, program) = (mount.daemon_pid(), if random % 2 == 0 { &other } else { binary::path() });
            let output = binary::aimss().arg("upgrade").arg("--binary").arg(program).arg(mount.point()).output()?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            ensure!(mount.daemon_pid() != before, "the daemon is another");
            let running = fs::read_link(format!("/proc/{}/exe", mount.daemon_pid().context("a daemon")?))?;
            ensure!(running == fs::canonicalize(program)?, "{} serves", running.display());
            Ok(())
        })?;
        let status = mount.status()?;
        assert_eq!(status["daemon"]["upgrades"].as_u64(), Some(upgrades));
        assert_eq!(status["daemon"]["restarts"].as_u64(), Some(0));
        assert_eq!(status["files"]["open"].as_u64(), Some(0));
    }
}

both_modes! {
    fn who_can_not_take_over_leaves_the_daemon_where_it_is(mount: &Mount) {
        let held = File::create(mount.at("held"))?;
        let never_ready = mount.beside("never-ready");
        fs::write(&never_ready, "#!/bin/sh\nexec sleep 60\n")?;
        fs::set_permissions(&never_ready, PermissionsExt::from_mode(0o755))?;
        let no_program = mount.beside("no-program");
        fs::write(&no_program, "nothing")?;
        let before = mount.daemon_pid();
        for (binary, says) in [
            (Path::new("/bin/false"), "ended with code 1"),
            (never_ready.as_path(), "not ready in the time given"),
            (no_program.as_path(), "can't be executed"),
            (Path::new("/nowhere/aimss"), "no such file"),
        ] {
            let output = binary::aimss()
                .args(["upgrade", "--within", "1s", "--binary"])
                .arg(binary)
                .arg(mount.point())
                .output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(1) && said.contains(says), "{}: {said}", binary.display());
            assert!(said.lines().count() == 1, "one sentence: {said}");
            assert_eq!(mount.daemon_pid(), before);
            held.write_all_at(b"goes on", 0)?;
        }
        // Who stands ready is there again.
        wait_for_standby(mount);
    }
}

both_modes! {
    with { drain_delay: "100ms" }
    fn programs_do_not_notice_that_daemons_are_killed(mount: &Mount) {
        let kills = number("AIMSS_KILLS", 20);
        while_programs_work(mount, kills, |mount, random| {
            // Of three one has had the time to stand ready.
            if random.is_multiple_of(3) {
                wait_for_standby(mount);
            }
            mount.kill_daemon()
        })?;
        let status = mount.status()?;
        assert_eq!(status["daemon"]["restarts"].as_u64(), Some(kills));
        assert!(status["daemon"]["last_death"].as_str().is_some_and(|reason| reason.contains("KILL")));
        // Whatever was open is closed.
        assert_eq!(status["files"]["open"].as_u64(), Some(0));
    }
}
