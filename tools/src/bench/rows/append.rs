//! The row about small appends: a logger's life.

use super::per_second;
use crate::bench::pairs::alternate;
use crate::bench::report::{Bar, Outcome};
use crate::bench::{Context, timed, work};
use crate::scratch::Mounted;
use anyhow::Result;
use std::fs;
use std::path::Path;

const RECORD_BYTES: usize = 200;
const RECORDS: u64 = 1_000_000;
/// Against systems whose daemon sees each append: at 40,000 a second this is a second's work.
const RECORDS_FOR_PEERS: u64 = 40_000;

/// `append-200`.
pub fn run(context: &Context, mount: &Mounted) -> Result<Vec<Outcome>> {
    let mut outcomes =
        vec![against(context, mount, &context.shm()?, "/dev/shm", RECORDS, Bar::AtLeast(0.6))?];
    for peer in context.peers() {
        let bar = if ["juicefs", "mergerfs"].contains(&peer) { Bar::AtLeast(20.0) } else { Bar::Stated };
        let Some(dir) = context.peer(peer)? else { continue };
        outcomes.push(against(context, mount, &dir, peer, RECORDS_FOR_PEERS, bar)?.case(peer));
    }
    for peer in ["juicefs", "mergerfs"] {
        if !context.peers().any(|given| given == peer) {
            outcomes.push(Outcome::skipped(Bar::AtLeast(20.0), format!("give --peer {peer}=DIR")).case(peer));
        }
    }
    Ok(outcomes)
}

/// Ours always writes [`RECORDS`]; the peer fewer, and rates are compared.
fn against(
    context: &Context,
    mount: &Mounted,
    dir: &Path,
    who: &str,
    records: u64,
    bar: Bar,
) -> Result<Outcome> {
    let record = work::buffer(RECORD_BYTES);
    let once = |dir: &Path, records: u64| -> Result<f64> {
        let path = dir.join("log");
        let count = context.scaled(records);
        let time = timed(count * RECORD_BYTES as u64, || work::append(&path, count, &record))?;
        fs::remove_file(&path)?;
        Ok(per_second(count, time))
    };
    let medians = alternate(context.pairs, || once(mount.point(), RECORDS), || once(dir, records))?;
    Ok(Outcome::against(who, "/s", medians, bar))
}
