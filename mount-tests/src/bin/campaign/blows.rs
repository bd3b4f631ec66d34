//! What daemons die of.

use super::Cli;
use aimss_mount_tests::bytes::Pattern;
use aimss_mount_tests::failpoints::Failpoints;
use aimss_mount_tests::{Mount, binary, wait_until};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A failpoint that is not passed in this time is given up for now.
const POINT_WAIT: Duration = Duration::from_secs(2);
/// It is hit when it is passed for at most the so-many-th time.
const PASSES_MAX: u64 = 20;

/// What was dealt.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Dealt {
    /// SIGKILLs at a random moment.
    pub at_random: u64,
    /// SIGKILLs at each failpoint.
    pub at_points: BTreeMap<String, u64>,
    /// Of failpoints that were not passed in time.
    pub not_passed: BTreeMap<String, u64>,
    /// Upgrades.
    pub upgrades: u64,
}

impl Dealt {
    /// All that hit.
    pub fn count(&self) -> u64 {
        self.at_random + self.at_points.values().sum::<u64>() + self.upgrades
    }

    /// Adds those of a round.
    pub fn add(&mut self, other: &Dealt) {
        self.at_random += other.at_random;
        self.upgrades += other.upgrades;
        for (point, times) in &other.at_points {
            *self.at_points.entry(point.clone()).or_default() += times;
        }
        for (point, times) in &other.not_passed {
            *self.not_passed.entry(point.clone()).or_default() += times;
        }
    }

    /// How often a failpoint was tried.
    fn tried(&self, point: &str) -> u64 {
        let of = |tries: &BTreeMap<String, u64>| tries.get(point).copied().unwrap_or(0);
        of(&self.at_points) + of(&self.not_passed)
    }
}

impl fmt::Display for Dealt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dealt { at_random, at_points, not_passed, upgrades } = self;
        let hits: u64 = at_points.values().sum();
        write!(
            f,
            "{} SIGKILLs: {at_random} at random, {hits} at {} failpoints; {upgrades} upgrades",
            at_random + hits,
            at_points.len()
        )?;
        let never = not_passed.keys().filter(|point| !at_points.contains_key(*point)).count();
        if never > 0 {
            write!(f, "; {never} failpoints were not passed in time when it was their turn")
        } else {
            Ok(())
        }
    }
}

/// One of so many blows is an upgrade.
struct Upgrades {
    one_of: u64,
    /// Between which they go.
    programs: [PathBuf; 2],
}

/// Deals the blows of one round.
pub struct Blows {
    seed: u64,
    random: Pattern,
    every: u64,
    failpoints: Option<Failpoints>,
    upgrades: Option<Upgrades>,
    /// Of the rounds before.
    before: Dealt,
    dealt: Dealt,
}

impl Blows {
    /// Those of `seed`, on a mount just made.
    pub fn new(cli: &Cli, seed: u64, mount: &Mount, before: Dealt) -> Result<Blows> {
        let one_of = if cli.upgrade { Some(1) } else { cli.upgrade_every };
        let upgrades = match one_of {
            Some(one_of) => {
                let other = mount.beside("another-aimss");
                fs::copy(binary::path(), &other)?;
                Some(Upgrades { one_of, programs: [other, binary::path().to_owned()] })
            }
            None => None,
        };
        let failpoints = if cli.no_failpoints { None } else { Some(mount.failpoints()?) };
        Ok(Blows {
            seed,
            random: Pattern::new(seed),
            every: cli.every,
            failpoints,
            upgrades,
            before,
            dealt: Dealt::default(),
        })
    }

    /// What was dealt in this round.
    pub fn dealt(&self) -> &Dealt {
        &self.dealt
    }

    /// Waits, and deals the next one; returns when the mount is served again.
    pub fn deal(&mut self, mount: &Mount) -> Result<()> {
        let pause = self.every / 2 + self.random.next_number() % self.every.max(1);
        std::thread::sleep(Duration::from_millis(pause));
        // In each round at another place.
        if let Some(Upgrades { one_of, programs }) = &self.upgrades
            && (self.seed + self.dealt.count()).is_multiple_of(*one_of)
        {
            mount.upgrade(&programs[self.dealt.upgrades as usize % 2])?;
            self.dealt.upgrades += 1;
            return Ok(());
        }
        if self.random.next_number().is_multiple_of(2) && self.at_a_point(mount)? {
            return Ok(());
        }
        if self.random.next_number().is_multiple_of(3) {
            mount.wait_for_standby();
        }
        mount.kill_daemon()?;
        self.dealt.at_random += 1;
        Ok(())
    }

    /// False if no failpoint was passed.
    fn at_a_point(&mut self, mount: &Mount) -> Result<bool> {
        let Some(failpoints) = &self.failpoints else { return Ok(false) };
        let tried = |point: &String| {
            (
                self.before.tried(point) + self.dealt.tried(point),
                self.random.clone().next_number() ^ hash(point),
            )
        };
        // The first daemon has passed many by now.
        let point = failpoints.names()?.into_iter().min_by_key(tried).with_context(|| {
            format!(
                "{} has no failpoints: build it with them, or give --no-failpoints",
                binary::path().display()
            )
        })?;
        let daemon = mount.daemon_pid().context("the mount has a daemon")?;
        // One that is seldom passed is hit at once.
        let seldom =
            self.before.not_passed.contains_key(&point) || self.dealt.not_passed.contains_key(&point);
        failpoints.arm(&point, 1 + if seldom { 0 } else { self.random.next_number() % PASSES_MAX })?;
        let begun = Instant::now();
        let mut hit = false;
        while !hit && begun.elapsed() < POINT_WAIT {
            std::thread::sleep(Duration::from_millis(2));
            hit = !failpoints.is_armed()?;
        }
        failpoints.disarm()?;
        // Who was killed may have been the one that stands ready; a daemon is gone within milliseconds.
        std::thread::sleep(Duration::from_millis(20));
        wait_until("a daemon after a failpoint", Duration::from_secs(20), || mount.daemon_pid().is_some());
        // It may have been passed just as the time was over.
        hit |= mount.daemon_pid() != Some(daemon);
        let of = if hit { &mut self.dealt.at_points } else { &mut self.dealt.not_passed };
        *of.entry(point).or_default() += 1;
        Ok(hit)
    }
}

/// So that of points that were tried equally often not the first of the alphabet comes first.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0, |sum: u64, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
