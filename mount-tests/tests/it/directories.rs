//! A large directory that is read while it changes: each name that stays is seen once.

use aimss_mount_tests::tree::names;
use aimss_mount_tests::{Mount, both_modes};
use std::collections::HashMap;
use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, Ordering};

const ENTRIES: usize = 20_000;

fn check(names: Vec<Vec<u8>>) -> anyhow::Result<()> {
    let mut seen = HashMap::new();
    for name in names {
        *seen.entry(name).or_insert(0) += 1;
    }
    for number in 0..ENTRIES {
        let times = seen.get(format!("stays{number}").as_bytes());
        anyhow::ensure!(times == Some(&1), "stays{number} was seen {times:?} times");
    }
    anyhow::ensure!(seen.values().all(|times| *times == 1), "a name that came and went was seen twice");
    Ok(())
}

both_modes! {
    fn twenty_thousand_entries_are_read_while_others_come_and_go(mount: &Mount) {
        fs::create_dir(mount.at("dir"))?;
        for number in 0..ENTRIES {
            File::create(mount.at(format!("dir/stays{number}")))?;
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (name, other) = (format!("dir/comes{number}"), format!("dir/goes{number}"));
                    File::create(mount.at(&name)).expect("it is created");
                    fs::rename(mount.at(&name), mount.at(&other)).expect("it is renamed");
                    fs::remove_file(mount.at(&other)).expect("it is removed");
                }
            });
            let readings: Vec<_> = (0..3).map(|_| names(&mount.at("dir"))).collect();
            // Before anything can fail: the scope waits for the thread.
            stop.store(true, Ordering::Relaxed);
            readings.into_iter().try_for_each(|names| check(names?))
        })?;
        mount.drain()?;
        assert_eq!(names(&mount.behind("dir"))?.len(), ENTRIES);
    }
}
