//! What a client asks of files in memory, and what status says of them.

use super::Daemon;
use crate::config::{MountConfig, Prefetch};
use crate::control::protocol::{Action, Progress};
use crate::control::status::{CacheStatus, CauseStatus, FetchStatus, PredictorStatus};
use aimss_engine::engine::Residence;
use aimss_engine::predict::{self, By, Enabled};
use std::path::PathBuf;

/// What is predicted ahead at most: a share of the budget that leaves the rest for what is in use.
const AHEAD_SHARE: u64 = 4;

/// What settings call the one that looks into files.
pub const SCAN: &str = "scan";

/// The words of all of them.
pub fn predictor_words() -> Vec<&'static str> {
    By::ALL.iter().map(|by| by.word()).chain([SCAN]).collect()
}

/// Who predicts on this mount.
pub fn predictors(config: &MountConfig, remote: bool) -> Option<predict::Config> {
    let ahead_bytes_max = config.memory_bytes / AHEAD_SHARE;
    match &config.prefetch {
        Prefetch::Auto if remote => Some(predict::Config { ahead_bytes_max, ..predict::Config::default() }),
        Prefetch::Auto => None,
        Prefetch::By(words) if words.is_empty() => None,
        Prefetch::By(words) => {
            let named = |by: By| words.iter().any(|word| word == by.word());
            let enabled = Enabled {
                order: named(By::Order),
                epoch: named(By::Epoch),
                restore: named(By::Restore),
                transition: named(By::Transition),
                scan: words.iter().any(|word| word == SCAN),
            };
            Some(predict::Config { enabled, ahead_bytes_max, ..predict::Config::default() })
        }
    }
}

impl Daemon {
    /// Moves files into memory or out of it. The error is a sentence.
    pub fn move_files(
        &self,
        action: Action,
        paths: &[PathBuf],
        mut progress: impl FnMut(Progress),
    ) -> Result<Residence, String> {
        let inos = self.resolve_all(paths)?;
        let engine = &self.engine;
        let in_memory = engine.arena().used_bytes();
        let tell = |items_left| {
            let bytes_done = engine.arena().used_bytes().saturating_sub(in_memory);
            progress(Progress { bytes_left: engine.fetching().1, items_left, bytes_done });
        };
        let done = match action {
            Action::Warm => engine.warm(&inos, tell),
            Action::Pin => engine.pin(&inos, tell),
            Action::Unpin => engine.unpin(&inos),
            Action::Evict => engine.evict_files(&inos),
        };
        done.map_err(|e| e.to_string())
    }

    pub(super) fn cache_status(&self) -> CacheStatus {
        let (files, bytes) = self.engine.evictable();
        let counts = self.engine.cache_counts();
        let (pinned_files, pinned) = self.engine.pinned();
        CacheStatus {
            policy: "s3-fifo".into(),
            files,
            bytes,
            hits: counts.hits,
            misses: counts.misses,
            evicted_files: counts.evicted_files,
            evicted: counts.evicted_bytes,
            pinned_files,
            pinned,
        }
    }

    pub(super) fn fetch_status(&self) -> FetchStatus {
        let (waiting, in_flight) = self.engine.fetching();
        let pace = self.engine.pace();
        let causes = self.engine.fetched().into_iter().map(|(cause, fetched)| {
            let status = CauseStatus { files: fetched.files, bytes: fetched.bytes, dropped: fetched.dropped };
            (cause.to_owned(), status)
        });
        let predictors = self.engine.predictions().into_iter().map(|(by, account)| {
            let status = PredictorStatus {
                predicted: account.predicted_files,
                fetched: account.fetched_bytes,
                used: account.used_bytes,
                late: account.late_files,
                wasted: account.wasted_bytes,
                turned_down: account.refused,
                window: account.window as u64,
            };
            (by.word().to_owned(), status)
        });
        FetchStatus {
            waiting,
            in_flight,
            latency: pace.latency(),
            rate: pace.rate(),
            causes: causes.collect(),
            predictors: predictors.collect(),
        }
    }
}
