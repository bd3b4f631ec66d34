//! A check of a backing's `.aimss`: damage of each kind is found without a change, repaired without a loss, and not
//! found again. Nothing outside is touched, whatever lies inside.

use crate::support::random::Random;
use aimss_engine::fsck::{self, Error, Fate, Mode, Repair, Report, What};
use aimss_engine::stream::group::{Counts, Group};
use aimss_engine::stream::{
    Compression, Damage, Framing, Log, LogConfig, Marker, Micros, Offset, Settings, StreamId,
};
use rustix::fs::{CWD, FileType, mknodat};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, FileTimes, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

const ID: StreamId = StreamId(0xf5c);
/// Sealed in three segments, and four more that are active.
const SEALED: u64 = 60;
const RECORDS: u64 = SEALED + 4;
const COUNTS: Counts = Counts { delivered: 30, redelivered: 0, lost: 0 };

/// A backing with plain files, and a stream that the group `g` has 30 records of.
struct World {
    directory: TempDir,
    records: Vec<Vec<u8>>,
}

impl World {
    fn new() -> World {
        World::of(Framing::Line, Compression::None)
    }

    fn of(framing: Framing, compression: Compression) -> World {
        let directory = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
        let mut world = World { directory, records: Vec::new() };
        fs::create_dir_all(world.backing().join("d/e")).expect("ours");
        fs::write(world.backing().join("d/plain"), "bytes").expect("ours");
        fs::write(world.backing().join("beside-7"), "a plain file, whatever its name").expect("ours");
        symlink("plain", world.backing().join("d/link")).expect("ours");
        fs::write(world.backing().join("d/e/events"), Marker(ID).encode()).expect("ours");
        let log = LogConfig { framing, segment_bytes: 1 << 20, compression, block_bytes: 400 };
        fs::create_dir_all(world.log()).expect("ours");
        Settings { log, path: "d/e/events".into(), owner: Some(0), ..Settings::default() }
            .write(&world.log())
            .expect("ours");
        let mut log = Log::open(&world.log(), log).expect("an empty directory");
        let mut random = Random::new(3);
        for i in 0..RECORDS {
            let record = match i % 3 {
                0 => format!("record {} of many\n", random.below(1000)),
                1 => String::from("the same again and again and again\n"),
                _ => format!("{}\n", "x".repeat(random.below(40) as usize)),
            };
            log.append(record.as_bytes(), Micros(1000 + i)).expect("room");
            world.records.push(record.into_bytes());
            if i % 20 == 19 {
                log.seal(Micros(1000 + i)).expect("room");
            }
        }
        log.sync().expect("ours");
        Group::write(&world.log(), "g", 30, COUNTS).expect("ours");
        world
    }

    fn backing(&self) -> PathBuf {
        self.directory.path().join("backing")
    }

    fn home(&self) -> PathBuf {
        self.backing().join(".aimss")
    }

    fn log(&self) -> PathBuf {
        self.home().join("streams").join(ID.to_string())
    }

    /// A file of the log, by its ending.
    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let all = fs::read_dir(self.log()).expect("there").map(|entry| entry.expect("there").path());
        let mut files: Vec<PathBuf> =
            all.filter(|path| path.extension().is_some_and(|is| is == ending)).collect();
        files.sort();
        files
    }

    fn run(&self, mode: Mode) -> Report {
        fsck::run(&self.backing(), mode, &mut |_| {}).expect("it can be checked")
    }

    /// Looks, which changes nothing, then repairs; what was found, by looking and by repairing, is the same.
    fn repair(&self) -> Report {
        let before = tree(self.directory.path());
        let looked = self.run(Mode::Look);
        assert_eq!(tree(self.directory.path()), before, "who looks changes nothing");
        assert_eq!(looked.repaired(), 0);
        let outside = outside(&before);
        let repaired = self.run(Mode::Repair);
        assert_eq!(self::outside(&tree(self.directory.path())), outside, "what is outside is not ours");
        assert_eq!(repaired.repairable(), 0, "{repaired:?}");
        let stays = |report: &Report| (report.left(), report.lost());
        assert_eq!(stays(&looked), stays(&repaired), "{looked:?}, {repaired:?}");
        let kinds = |report: &Report| {
            let kinds = report.findings.iter().filter(|finding| finding.what != What::SetAside);
            kinds
                .map(|finding| (finding.path.clone(), format!("{:?}", finding.what)))
                .collect::<BTreeSet<_>>()
        };
        assert!(
            kinds(&looked).is_subset(&kinds(&repaired)),
            "what is found is repaired: {looked:?}, {repaired:?}"
        );
        repaired
    }

    /// Repairs all of it: a second check finds nothing.
    fn repair_all(&self) -> Report {
        let report = self.repair();
        assert!(report.repaired() > 0 && report.left() == 0, "{report:?}");
        for mode in [Mode::Look, Mode::Repair] {
            let again = self.run(mode);
            assert!(again.findings.iter().all(|finding| finding.fate == Fate::Noted), "{again:?}");
        }
        report
    }

    /// Records that can't be read; those that can be are compared.
    fn lost(&self) -> BTreeSet<u64> {
        let settings = Settings::read(&self.log()).expect("settings");
        let log = Log::open_read_only(&self.log(), settings.log).expect("it opens");
        let (mut from, end) = (log.first().0, log.end().0);
        let mut lost: BTreeSet<u64> = (0..from.0).chain(end.0..RECORDS).collect();
        let mut buffer = vec![0; 4000];
        while from < end {
            let batch = log.read_with(from, &mut buffer, |record| {
                let offset = record.offset.0;
                assert_eq!(record.bytes, self.records[offset as usize], "record {offset}");
                if offset < SEALED {
                    assert_eq!(record.time.0, 1000 + offset);
                }
            });
            let batch = batch.expect("damage is no error");
            lost.extend(from.0..batch.first.0);
            from = batch.next;
        }
        lost
    }

    fn group(&self) -> (u64, Counts) {
        let group = Group::read(&self.log(), "g").expect("it is readable");
        (group.committed(), group.counts())
    }
}

/// Everything of a file that could be changed; not when it was read.
type State = (u64, u32, u64, (i64, i64), (i64, i64), Vec<u8>);

fn tree(top: &Path) -> BTreeMap<PathBuf, State> {
    let mut found = BTreeMap::new();
    let mut paths = vec![top.to_owned()];
    while let Some(path) = paths.pop() {
        let metadata = fs::symlink_metadata(&path).expect("there");
        let kind = metadata.file_type();
        let mut content = Vec::new();
        if kind.is_dir() {
            paths.extend(fs::read_dir(&path).expect("there").map(|entry| entry.expect("there").path()));
        } else if kind.is_symlink() {
            content = fs::read_link(&path).expect("there").into_os_string().into_encoded_bytes();
        } else if kind.is_file() {
            content = fs::read(&path).expect("there");
        }
        let times = ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
        found.insert(path, (metadata.ino(), metadata.mode(), metadata.size(), times.0, times.1, content));
    }
    found
}

/// What of it is not in `.aimss`.
fn outside(tree: &BTreeMap<PathBuf, State>) -> BTreeMap<PathBuf, State> {
    let inside = |path: &Path| path.iter().any(|name| name == ".aimss");
    tree.iter().filter(|(path, _)| !inside(path)).map(|(path, state)| (path.clone(), state.clone())).collect()
}

fn flip(path: &Path, at: usize) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("ours");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).expect("there");
    file.write_all_at(&[byte[0] ^ 0x55], at as u64).expect("ours");
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).and_then(|mut f| f.write_all(bytes)).expect("ours");
}

fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, 0o600.into(), 0).expect("ours");
}

fn whats(report: &Report) -> Vec<&What> {
    report.findings.iter().map(|finding| &finding.what).collect()
}

#[test]
fn where_nothing_is_wrong_nothing_is_found_or_changed() {
    let world = World::new();
    let before = tree(world.directory.path());
    for mode in [Mode::Look, Mode::Repair] {
        let report = world.run(mode);
        assert_eq!(report.findings, [], "{report:?}");
        assert_eq!((report.logs, report.segments, report.records), (1, 3, RECORDS));
        assert_eq!(tree(world.directory.path()), before);
    }
    fs::remove_dir_all(world.home()).expect("ours");
    let report = world.run(Mode::Repair);
    assert!(!report.is_there && report.findings.is_empty());
    assert!(!world.home().exists());
}

#[test]
fn who_looks_leaves_no_trace_in_the_times_of_access() {
    let world = World::new();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
    let files = || tree(world.directory.path()).into_keys().filter(|path| path.is_file()).collect::<Vec<_>>();
    let all = files();
    for path in &all {
        let file = OpenOptions::new().read(true).write(true).open(path).expect("ours");
        file.set_times(FileTimes::new().set_accessed(old)).expect("ours");
    }
    world.run(Mode::Look);
    for path in &all {
        let accessed = fs::metadata(path).expect("there").accessed().expect("known");
        assert_eq!(accessed, old, "{}", path.display());
    }
}

#[test]
fn leftovers_of_a_crash_go() {
    let world = World::new();
    let files = [
        (world.home().join("beside-17"), What::Beside(4)),
        (world.home().join("unnamed-1f"), What::Unnamed(4)),
        (world.home().join("transitions.new"), What::Unfinished),
        (world.log().join("00000000000000000060-00000000000000001000.sealed.new"), What::Unfinished),
        (world.log().join("g.group.new"), What::Unfinished),
        (world.log().join("settings.new"), What::Unfinished),
        (world.home().join("dataflow"), What::DataflowNote),
    ];
    for (path, _) in &files {
        fs::write(path, "left").expect("ours");
    }
    for stays in ["beside-", "unnamed-xyz", "mine", "lease", "transitions"] {
        fs::write(world.home().join(stays), "mine").expect("ours");
    }
    let report = world.repair_all();
    for (path, what) in &files {
        let finding = report.findings.iter().find(|finding| world.backing().join(&finding.path) == *path);
        let finding = finding.expect("it is found");
        assert_eq!((&finding.what, &finding.fate), (what, &Fate::Did(Repair::Remove)));
        assert!(!path.exists());
    }
    for stays in ["beside-", "unnamed-xyz", "mine", "lease", "transitions"] {
        assert_eq!(fs::read(world.home().join(stays)).expect("it is no leftover"), b"mine");
    }
    assert_eq!((world.lost(), world.group()), (BTreeSet::new(), (30, COUNTS)));
}

#[test]
fn memory_of_a_dataflow_that_died_comes_first() {
    let world = World::new();
    let memory = world.directory.path().join("memory");
    fs::create_dir(&memory).expect("ours");
    fs::write(world.home().join("dataflow"), memory.as_os_str().as_encoded_bytes()).expect("ours");
    fs::write(world.home().join("beside-17"), "left").expect("ours");
    let before = tree(world.directory.path());
    let refused = fsck::run(&world.backing(), Mode::Repair, &mut |_| {}).expect_err("it comes first");
    assert!(matches!(refused, Error::InMemory { memory: is } if is == memory));
    assert_eq!(tree(world.directory.path()), before);
    assert!(whats(&world.run(Mode::Look)).contains(&&What::DataflowMemory(memory)));
}

#[test]
fn a_flipped_byte_of_a_segment_costs_no_more_after_a_repair() {
    for compression in [Compression::None, Compression::Lz4] {
        let world = World::of(Framing::Line, compression);
        let segments = world.files("sealed");
        // One in the middle, and the last, by which the log is opened.
        for segment in [&segments[1], &segments[2]] {
            let whole = fs::read(segment).expect("ours");
            let (mut mended, mut losses) = (0, 0);
            for at in 0..whole.len() {
                flip(segment, at);
                let before = world.lost();
                let report = world.run(Mode::Repair);
                assert!(!report.findings.is_empty(), "byte {at}");
                assert_eq!(world.lost(), before, "byte {at}: {report:?}");
                assert_eq!(report.lost(), before.len() as u64, "byte {at}: {report:?}");
                let again = world.run(Mode::Look);
                assert_eq!((again.repairable(), again.left()), (0, report.left()), "byte {at}: {again:?}");
                // Records that are lost are in place, and what is only in the index is whole again.
                if report.left() == 0 {
                    mended += 1;
                    assert!(fs::read(segment).expect("ours") == whole, "byte {at}");
                } else {
                    losses += 1;
                }
                fs::write(segment, &whole).expect("ours");
            }
            assert!(mended > 200 && losses > 100, "{mended} mended, {losses} not");
        }
    }
}

#[test]
fn a_cut_segment_has_what_it_had_after_a_repair() {
    let world = World::new();
    for segment in &world.files("sealed")[1..] {
        let whole = fs::read(segment).expect("ours");
        let mut mended = 0;
        for length in (88..whole.len()).rev().step_by(7) {
            fs::write(segment, &whole[..length]).expect("ours");
            let before = world.lost();
            let report = world.run(Mode::Repair);
            assert_eq!(world.lost(), before, "cut at {length}");
            assert_eq!(report.lost(), before.len() as u64, "cut at {length}: {report:?}");
            mended += usize::from(report.left() == 0);
            assert_eq!(report.left() == 0, before.is_empty(), "cut at {length}: {report:?}");
            fs::write(segment, &whole).expect("ours");
        }
        assert!(mended > 10, "cuts within the footer cost nothing");
    }
}

#[test]
fn a_segment_that_is_damaged_at_both_ends_is_found_by_its_blocks() {
    for compression in [Compression::None, Compression::Lz4] {
        for which in 0..3 {
            let world = World::of(Framing::Line, compression);
            let segment = world.files("sealed").remove(which);
            let whole = fs::read(&segment).expect("ours");
            flip(&segment, 20);
            flip(&segment, whole.len() - 30);
            Group::write(&world.log(), "g", 50, COUNTS).expect("ours");
            let report = world.repair_all();
            assert_eq!(whats(&report), [&What::Damage(Damage::NotSegment, 0)]);
            assert_eq!((world.lost(), world.group()), (BTreeSet::new(), (50, COUNTS)));
            assert!(fs::read(&segment).expect("ours") == whole, "it is as it was written");
        }
    }
}

#[test]
fn the_last_segment_is_found_by_its_blocks_without_an_active_file_too() {
    let world = World::new();
    fs::remove_file(&world.files("active")[0]).expect("ours");
    let segment = world.files("sealed").remove(2);
    let whole = fs::read(&segment).expect("ours");
    flip(&segment, 20);
    flip(&segment, whole.len() - 30);
    Group::write(&world.log(), "g", SEALED, COUNTS).expect("ours");
    world.repair_all();
    assert_eq!((world.lost(), world.group().0), ((SEALED..RECORDS).collect(), SEALED));
}

#[test]
fn what_is_beyond_repair_is_named_with_its_records_and_stays() {
    let world = World::new();
    let segment = world.files("sealed").remove(1);
    let whole = fs::read(&segment).expect("ours");
    // Header, footer, and a head in the middle: no chain of blocks leads to the end.
    let head = whole[200..].windows(4).position(|bytes| bytes == b"ablk").expect("a second block") + 200;
    for at in [20, head, whole.len() - 30] {
        flip(&segment, at);
    }
    let damaged = fs::read(&segment).expect("ours");
    let report = world.repair();
    assert_eq!((report.repaired(), report.left(), report.lost()), (0, 1, 20));
    assert_eq!((report.findings[0].lost.clone(), &report.findings[0].fate), (20..40, &Fate::Stays));
    assert_eq!(report.findings[0].stream, Some("d/e/events".into()));
    assert!(fs::read(&segment).expect("it is where it was") == damaged);
    assert_eq!(world.lost(), (20..40).collect());
    // A missing one likewise.
    fs::remove_file(&segment).expect("ours");
    let report = world.repair();
    assert_eq!(whats(&report), [&What::Damage(Damage::Missing, damaged_end(&world, 0))]);
    assert_eq!((report.left(), report.lost()), (1, 20));
}

fn damaged_end(world: &World, which: usize) -> u64 {
    fs::metadata(&world.files("sealed")[which]).expect("there").len()
}

#[test]
fn a_last_segment_beyond_repair_is_set_aside_where_the_log_could_not_be_opened_with_it() {
    let world = World::new();
    fs::remove_file(&world.files("active")[0]).expect("ours");
    let segment = world.files("sealed").remove(2);
    fs::write(&segment, b"rubbish").expect("ours");
    fs::write(segment.with_extension("sealed.damaged"), b"set aside before").expect("ours");
    let report = world.repair();
    assert!(whats(&report).contains(&&What::Damage(Damage::NotSegment, 0)), "{report:?}");
    assert!(whats(&report).contains(&&What::LostFrom(40)), "{report:?}");
    assert!(!segment.exists());
    assert_eq!(fs::read(segment.with_extension("sealed.damaged")).expect("kept"), b"set aside before");
    assert_eq!(fs::read(segment.with_extension("sealed.damaged-2")).expect("kept"), b"rubbish");
    assert_eq!(world.lost(), (40..RECORDS).collect());
    assert_eq!(world.run(Mode::Look).left(), 0);
}

#[test]
fn a_torn_tail_is_put_beside_and_the_records_keep_their_time() {
    for framing in [Framing::Line, Framing::Write] {
        let world = World::of(framing, Compression::None);
        let active = world.files("active").remove(0);
        let earlier = world.log().join(format!("{:020}.torn", world.records.concat().len()));
        fs::write(&earlier, b"an earlier one").expect("ours");
        append(&active, b"torn off");
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        OpenOptions::new().append(true).open(&active).and_then(|f| f.set_modified(then)).expect("ours");
        let report = world.repair_all();
        let finding = report.findings.iter().find(|finding| finding.fate != Fate::Noted).expect("one");
        assert!(
            matches!(finding.what, What::Damage(Damage::TornTail, at) if at > 0),
            "{framing}: {report:?}"
        );
        assert_eq!(finding.fate, Fate::Did(Repair::TailAside));
        assert_eq!(fs::read(&earlier).expect("there"), b"torn off", "{framing}");
        let aside = fs::read(earlier.with_extension("torn.damaged")).expect("kept");
        assert_eq!(aside, b"an earlier one", "{framing}");
        assert_eq!(fs::metadata(&active).expect("there").modified().expect("known"), then);
        assert_eq!(world.lost(), BTreeSet::new(), "{framing}");
    }
}

#[test]
fn marks_are_made_whole() {
    let world = World::of(Framing::Write, Compression::None);
    append(&world.log().join("writes.marks"), b"half a mark");
    let report = world.repair_all();
    assert_eq!(whats(&report), [&What::Marks]);
    assert_eq!(world.lost(), BTreeSet::new());
    // Without marks nothing says where records end: their bytes are kept.
    fs::remove_file(world.log().join("writes.marks")).expect("ours");
    let report = world.repair_all();
    assert!(whats(&report).iter().any(|what| matches!(what, What::Damage(Damage::TornTail, _))));
    let torn = fs::read(&world.files("torn")[0]).expect("there");
    assert_eq!(torn, world.records[SEALED as usize..].concat());
}

#[test]
fn names_that_a_seal_left_behind_are_put_right() {
    let world = World::new();
    let active = world.files("active").remove(0);
    // As a crash between naming a segment and renaming the active file leaves it: the last segment's records are
    // in both.
    let begin = world.records[..40].concat().len();
    let old = world.log().join(format!("{:020}-{begin:020}-{:020}.active", 40, 0));
    fs::write(&old, world.records[40..].concat()).expect("ours");
    fs::remove_file(&active).expect("ours");
    // And an empty one of before.
    fs::write(world.log().join(format!("{:020}-{:020}-{:020}.active", 0, 0, 0)), b"").expect("ours");
    let report = world.repair_all();
    let whats: BTreeSet<String> = whats(&report).iter().map(|what| format!("{what:?}")).collect();
    assert_eq!(whats, BTreeSet::from(["Empty".to_string(), "OldName".to_string()]));
    assert_eq!(world.lost(), BTreeSet::new());
}

#[test]
fn files_without_a_place_in_the_stream_are_set_aside() {
    let world = World::new();
    let begin = world.records[..20].concat().len();
    let old = world.log().join(format!("{:020}-{begin:020}-{:020}.active", 20, 0));
    fs::write(&old, b"some bytes").expect("ours");
    let report = world.repair_all();
    assert_eq!(whats(&report), [&What::Damage(Damage::Leftover, 0)]);
    assert!(!old.exists());
    assert_eq!(fs::read(old.with_extension("active.damaged")).expect("kept"), b"some bytes");
    assert_eq!(world.lost(), BTreeSet::new());
}

#[test]
fn a_group_that_is_ahead_of_its_log_or_unreadable_gets_everything_again() {
    let world = World::new();
    Group::write(&world.log(), "g", RECORDS, COUNTS).expect("ours");
    assert_eq!(world.run(Mode::Repair).findings, [], "it may have all records");
    Group::write(&world.log(), "g", RECORDS + 1, COUNTS).expect("ours");
    Group::write(&world.log(), "h", 12, COUNTS).expect("ours");
    let file = Group::path(&world.log(), "h");
    fs::write(&file, b"no group at all").expect("ours");
    let ahead = fs::read(Group::path(&world.log(), "g")).expect("ours");
    let report = world.repair_all();
    assert_eq!(whats(&report), [&What::GroupBeyond(RECORDS + 1), &What::Group]);
    assert!(report.findings.iter().all(|finding| finding.fate == Fate::Did(Repair::Group(0))));
    assert_eq!(world.group(), (0, COUNTS));
    assert_eq!(Group::read(&world.log(), "h").expect("there").committed(), 0);
    assert_eq!(fs::read(world.log().join("g.group.damaged")).expect("kept"), ahead);
    assert_eq!(fs::read(world.log().join("h.group.damaged")).expect("kept"), b"no group at all");
}

#[test]
fn a_group_of_a_trimmed_log_begins_at_the_first_record_that_is_kept() {
    let world = World::new();
    let settings = Settings::read(&world.log()).expect("there");
    Log::open(&world.log(), settings.log).and_then(|mut log| log.trim_before(Offset(20))).expect("trimmed");
    fs::write(Group::path(&world.log(), "g"), b"").expect("ours");
    world.repair_all();
    assert_eq!(world.group().0, 20);
}

#[test]
fn settings_are_made_again_from_segments_and_the_name() {
    let whole = Settings::read(&World::new().log()).expect("there");
    let garbled: [&dyn Fn(&Path); 4] = [
        &|file| fs::remove_file(file).expect("ours"),
        &|file| fs::write(file, b"\xff\xfe rubbish").expect("ours"),
        &|file| {
            let text = fs::read_to_string(file).expect("ours").replace("= line", "= fixed:9");
            fs::write(file, text).expect("ours");
        },
        &|file| {
            let text = fs::read_to_string(file).expect("ours").replace("segment = ", "segment = x");
            fs::write(file, text).expect("ours");
        },
    ];
    for (i, garble) in garbled.into_iter().enumerate() {
        let world = World::new();
        let file = world.log().join("settings");
        garble(&file);
        let before = fs::read(&file).ok();
        let report = world.repair_all();
        assert_eq!(report.repaired(), 1, "{i}: {report:?}");
        let settings = Settings::read(&world.log()).expect("there again");
        assert_eq!(settings.log.framing, whole.log.framing, "{i}");
        assert_eq!((&settings.path, settings.owner.is_some()), (&whole.path, true), "{i}");
        assert_eq!(fs::read(world.log().join("settings.damaged")).ok(), before, "{i}");
        assert_eq!((world.lost(), world.group()), (BTreeSet::new(), (30, COUNTS)), "{i}");
    }
}

#[test]
fn limits_of_retention_are_not_believed_where_settings_are_garbled() {
    let world = World::new();
    let file = world.log().join("settings");
    append(&file, b"retention.bytes = 1\ndoomed = true\nsegment = x\n");
    world.repair_all();
    let settings = Settings::read(&world.log()).expect("there again");
    assert!(settings.retention.bytes.is_none() && !settings.doomed);
}

#[test]
fn settings_are_not_guessed_and_those_of_a_later_version_not_touched() {
    let world = World::new();
    let file = world.log().join("settings");
    let text = fs::read_to_string(&file).expect("ours");
    fs::write(&file, text.replace("settings 1", "settings 2")).expect("ours");
    let report = world.repair();
    assert_eq!((whats(&report), report.left()), (vec![&What::Later], 1));
    assert!(fs::read_to_string(&file).expect("there").contains("settings 2"));
    for segment in world.files("sealed") {
        fs::remove_file(segment).expect("ours");
    }
    fs::write(&file, b"rubbish").expect("ours");
    let report = world.repair();
    assert_eq!((whats(&report), report.left()), (vec![&What::Settings], 1));
    fs::remove_file(&file).expect("ours");
    let report = world.repair();
    assert_eq!((whats(&report), report.left()), (vec![&What::NoSettings], 1));
}

#[test]
fn a_log_whose_removal_was_interrupted_is_set_aside() {
    let world = World::new();
    fs::remove_file(world.log().join("settings")).expect("ours");
    fs::remove_file(world.backing().join("d/e/events")).expect("ours");
    let empty = world.log().with_file_name(StreamId(9).to_string());
    fs::create_dir(&empty).expect("ours");
    fs::write(empty.join("settings.new"), b"").expect("ours");
    let report = world.repair_all();
    let all = whats(&report);
    assert!(all.contains(&&What::Nameless) && all.contains(&&What::EmptyLog), "{report:?}");
    assert!(!empty.exists() && !world.log().exists());
    let aside = world.log().with_extension("damaged");
    assert_eq!(fs::read_dir(aside).expect("kept").count(), 5);
}

#[test]
fn a_segment_of_a_later_version_is_left_alone() {
    let world = World::new();
    let segment = world.files("sealed").remove(1);
    let mut bytes = fs::read(&segment).expect("ours");
    bytes[8] = 2;
    let sum = crc32c::crc32c(&bytes[..12]).to_le_bytes();
    bytes[12..16].copy_from_slice(&sum);
    fs::write(&segment, &bytes).expect("ours");
    let report = world.repair();
    assert_eq!((whats(&report), report.left()), (vec![&What::Later], 1));
    assert!(fs::read(&segment).expect("there") == bytes);
}

#[test]
fn a_link_in_place_of_the_directory_is_refused() {
    let world = World::new();
    let elsewhere = world.directory.path().join("elsewhere");
    fs::rename(world.home(), &elsewhere).expect("ours");
    symlink(&elsewhere, world.home()).expect("ours");
    fs::write(elsewhere.join("beside-17"), "not ours").expect("ours");
    let before = tree(world.directory.path());
    for mode in [Mode::Look, Mode::Repair] {
        let refused = fsck::run(&world.backing(), mode, &mut |_| {}).expect_err("it leads elsewhere");
        assert!(matches!(refused, Error::InTheWay { .. }), "{refused}");
    }
    assert_eq!(tree(world.directory.path()), before);
}

#[test]
fn pipes_and_links_inside_are_not_opened_and_what_they_lead_to_is_not_changed() {
    let world = World::new();
    let plain = world.backing().join("d/plain");
    pipe(&world.home().join("beside-17"));
    symlink(&plain, world.home().join("unnamed-1f")).expect("ours");
    pipe(&world.home().join("mine"));
    symlink(&plain, world.log().join("00000000000000000060-00000000000000000999.sealed.new")).expect("ours");
    pipe(&world.log().join("00000000000000000090-00000000000000009999.sealed"));
    symlink(&plain, Group::path(&world.log(), "linked")).expect("ours");
    pipe(&Group::path(&world.log(), "pipe"));
    pipe(&world.log().join("finished"));
    symlink(world.backing().join("d"), world.log().with_file_name(StreamId(9).to_string())).expect("ours");
    let report = world.repair();
    assert_eq!(report.left(), 1, "a link to a directory stays: {report:?}");
    assert!(world.log().join("pipe.group.damaged").symlink_metadata().is_ok());
    let again = world.run(Mode::Repair);
    assert_eq!((again.repaired(), again.left()), (0, 1), "{again:?}");
    assert_eq!((world.lost(), world.group()), (BTreeSet::new(), (30, COUNTS)));
    fs::remove_dir_all(world.home().join("streams")).expect("ours");
    symlink(world.backing().join("d"), world.home().join("streams")).expect("ours");
    let report = world.repair();
    assert_eq!((report.logs, report.left()), (0, 1), "{report:?}");
}

#[test]
fn a_pipe_in_place_of_settings_is_set_aside_and_they_are_made_again() {
    let world = World::new();
    fs::remove_file(world.log().join("settings")).expect("ours");
    pipe(&world.log().join("settings"));
    let before = tree(world.directory.path());
    assert_eq!(whats(&world.run(Mode::Look)), [&What::NoFile]);
    assert_eq!(tree(world.directory.path()), before);
    let report = world.run(Mode::Repair);
    assert_eq!((whats(&report), report.left()), (vec![&What::NoFile, &What::NoSettings], 0));
    assert_eq!(world.lost(), BTreeSet::new());
}

#[test]
fn progress_comes_to_its_end() {
    let world = World::new();
    let mut seen = Vec::new();
    fsck::run(&world.backing(), Mode::Look, &mut |progress| seen.push(progress)).expect("checked");
    let (first, last) = (seen.first().expect("some"), seen.last().expect("some"));
    assert!(first.bytes_left > 0 && first.logs_left == 1);
    assert_eq!((last.bytes_left, last.logs_left), (0, 0));
    assert!(seen.is_sorted_by_key(|progress| progress.bytes_done));
}
