//! Which policy keeps the right files? Replays traces over several and prints their hit rates.
//!
//! ```sh
//! cargo run --release -p aimss-engine --example cache_policies
//! cargo run --release -p aimss-engine --example cache_policies -- CACHE_BYTES REQUESTS
//! ```
//!
//! With arguments it replays trace (a) alone, with another cache and over the working set of a cache of
//! 1 GiB: what `aimss bench --only zipf` does on a mount.
//!
//! The policies: LRU; S3-FIFO, the engine's; W-TinyLFU (Einziger, Friedman, Manes, ACM ToS 2017), small and
//! by the book; and one that knows the future and drops what is used again last (Belady). That one need not
//! keep what comes in. With equal sizes it is the optimum; with different ones it is greedy, neither optimum
//! nor bound.
//!
//! The first part of a trace, its first quarter or first epoch, only fills the cache and is not counted.

use aimss_engine::cache::S3Fifo;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

const SEED: u64 = 1;
const CACHE_BYTES_DEFAULT: u64 = 1 << 30;
/// Of traces with equal sizes: an image of a training set, about.
const OBJECT_BYTES: u64 = 100 << 10;
/// Of traces with different sizes, log-uniform.
const LEAST_BYTES: f64 = 4096.0;
const MOST_TO_LEAST: f64 = 1024.0;

const READERS: u64 = 4;
const ZIPF_REQUESTS_DEFAULT: usize = 400_000;
const ZIPF_EXPONENT: f64 = 0.9;
const EPOCHS: usize = 10;

/// The cache's bytes and the requests of the Zipf traces.
static ASKED: OnceLock<(u64, usize)> = OnceLock::new();

fn cache_bytes() -> u64 {
    ASKED.get().map_or(CACHE_BYTES_DEFAULT, |asked| asked.0)
}

fn zipf_requests() -> usize {
    ASKED.get().map_or(ZIPF_REQUESTS_DEFAULT, |asked| asked.1)
}

fn main() {
    let given: Vec<u64> = std::env::args().skip(1).map_while(|word| word.parse().ok()).collect();
    if let [cache, requests] = given[..] {
        ASKED.get_or_init(|| (cache, requests as usize));
    }
    let mib = cache_bytes() >> 20;
    println!("cache {mib} MiB, seed {SEED}; hits in per cent, the filling of the cache not counted");
    let (equal, log_uniform) = (working_set(|_| OBJECT_BYTES), working_set(log_uniform_bytes));
    print_table(&Trace {
        name: "(a) Zipf 0.9 over 1.5 times the cache, 4 readers, 100 KiB each",
        requests: zipf(&equal),
        counted_from: zipf_requests() / 4,
        epochs: false,
    });
    if ASKED.get().is_some() {
        return;
    }
    print_table(&Trace {
        name: "(b) as (a), with 4 KiB to 4 MiB, log-uniform (Belady is greedy here)",
        requests: zipf(&log_uniform),
        counted_from: zipf_requests() / 4,
        epochs: false,
    });
    print_table(&Trace {
        name: "(c) as (a), with one scan of twice the cache in the middle",
        requests: with_scan(zipf(&equal)),
        counted_from: zipf_requests() / 4,
        epochs: false,
    });
    let epoch = 2 * (cache_bytes() / OBJECT_BYTES);
    print_table(&Trace {
        name: "(d) 10 shuffled epochs over twice the cache, 100 KiB each",
        requests: shuffled_epochs(epoch),
        counted_from: epoch as usize,
        epochs: true,
    });
}

fn print_table(trace: &Trace) {
    println!("\n{}", trace.name);
    println!("{:<36} {:>9} {:>9}", "", "requests", "bytes");
    let objects = trace.objects_cached();
    let mut policies: Vec<(&str, Box<dyn Policy>)> = vec![
        ("LRU", Box::new(LeastRecent::default())),
        ("S3-FIFO", Box::new(Ours::new(Hint::None))),
        ("W-TinyLFU", Box::new(TinyLfu::new(objects))),
    ];
    if trace.epochs {
        policies.push(("S3-FIFO, ahead after each use", Box::new(Ours::new(Hint::EachUse))));
    }
    policies.push(("Belady", Box::new(Belady::new(&trace.requests))));
    for (name, mut policy) in policies {
        let (requests, bytes) = trace.replay(policy.as_mut());
        println!("{name:<36} {requests:>9.2} {bytes:>9.2}");
    }
}

// Traces.

#[derive(Clone, Copy)]
struct Request {
    key: u64,
    bytes: u64,
}

struct Trace {
    name: &'static str,
    requests: Vec<Request>,
    /// Those before it fill the cache.
    counted_from: usize,
    /// Every object is used once an epoch, so that hints make sense.
    epochs: bool,
}

impl Trace {
    /// Requests and bytes that hit, in per cent.
    fn replay(&self, policy: &mut dyn Policy) -> (f64, f64) {
        let (mut requests, mut requests_hit, mut bytes, mut bytes_hit) = (0_u64, 0_u64, 0_u64, 0_u64);
        for (i, request) in self.requests.iter().enumerate() {
            let hit = policy.request(*request);
            if i < self.counted_from {
                continue;
            }
            requests += 1;
            bytes += request.bytes;
            if hit {
                requests_hit += 1;
                bytes_hit += request.bytes;
            }
        }
        let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        (percent(requests_hit, requests), percent(bytes_hit, bytes))
    }

    /// How many objects the cache has room for, by their mean size.
    fn objects_cached(&self) -> usize {
        let sizes: FxHashMap<u64, u64> = self.requests.iter().map(|r| (r.key, r.bytes)).collect();
        let mean_bytes = sizes.values().sum::<u64>() / (sizes.len() as u64).max(1);
        (cache_bytes() / mean_bytes.max(1)) as usize
    }
}

/// Objects of 1.5 times the cache together; their key is their place.
fn working_set(bytes_of: impl Fn(u64) -> u64) -> Vec<Request> {
    let (mut set, mut total) = (Vec::new(), 0);
    while total < CACHE_BYTES_DEFAULT / 2 * 3 {
        let key = set.len() as u64;
        let bytes = bytes_of(key);
        set.push(Request { key, bytes });
        total += bytes;
    }
    set
}

fn log_uniform_bytes(key: u64) -> u64 {
    let mut random = Random(SEED ^ mix(key));
    (LEAST_BYTES * MOST_TO_LEAST.powf(random.fraction())) as u64
}

/// Readers in turn, each with its own generator, all with the same favourites.
fn zipf(set: &[Request]) -> Vec<Request> {
    let mut total = 0.0;
    let cumulative: Vec<f64> = (1..=set.len())
        .map(|rank| {
            total += (rank as f64).powf(-ZIPF_EXPONENT);
            total
        })
        .collect();
    let mut readers: Vec<Random> = (0..READERS).map(|reader| Random(mix(SEED + reader))).collect();
    let mut requests = Vec::with_capacity(zipf_requests());
    while requests.len() < zipf_requests() {
        for random in &mut readers {
            let at = random.fraction() * total;
            let rank = cumulative.partition_point(|up_to| *up_to <= at);
            requests.push(set[rank.min(set.len() - 1)]);
        }
    }
    requests
}

fn with_scan(mut requests: Vec<Request>) -> Vec<Request> {
    // Keys that no working set has.
    const FIRST_KEY: u64 = 1 << 32;
    let scan =
        (0..2 * (cache_bytes() / OBJECT_BYTES)).map(|i| Request { key: FIRST_KEY + i, bytes: OBJECT_BYTES });
    let middle = requests.len() / 2;
    // The insertion is done when it is dropped.
    drop(requests.splice(middle..middle, scan));
    requests
}

fn shuffled_epochs(objects: u64) -> Vec<Request> {
    let mut random = Random(SEED);
    let mut epoch: Vec<Request> = (0..objects).map(|key| Request { key, bytes: OBJECT_BYTES }).collect();
    let mut requests = Vec::with_capacity(EPOCHS * epoch.len());
    for _ in 0..EPOCHS {
        for i in (1..epoch.len()).rev() {
            epoch.swap(i, (random.draw() % (i as u64 + 1)) as usize);
        }
        requests.extend_from_slice(&epoch);
    }
    requests
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
struct Random(u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// From 0 up to, not including, 1.
    fn fraction(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The generator's finalizer, also good for hashes.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

// Policies.

trait Policy {
    /// The object is used, and loaded if need be. Returns whether it was in memory.
    fn request(&mut self, request: Request) -> bool;
}

/// When the engine's policy is told that an object will not be used for long.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hint {
    None,
    /// After each use. Hints are followed first in, first out, so what was used longest ago goes first.
    EachUse,
}

struct Ours {
    cache: S3Fifo,
    hint: Hint,
}

impl Ours {
    fn new(hint: Hint) -> Ours {
        Ours { cache: S3Fifo::new(cache_bytes()), hint }
    }
}

impl Policy for Ours {
    fn request(&mut self, Request { key, bytes }: Request) -> bool {
        let hit = self.cache.contains(key);
        if hit {
            self.cache.hit(key);
        } else {
            while self.cache.bytes() + bytes > cache_bytes() {
                if self.cache.victim(&mut |_| true).is_none() {
                    break;
                }
            }
            self.cache.admit(key, bytes);
        }
        if self.hint == Hint::EachUse {
            self.cache.ahead(key);
        }
        hit
    }
}

/// Objects by their last use.
#[derive(Default)]
struct Lru {
    by_use: BTreeMap<u64, u64>,
    /// Last use and bytes.
    held: FxHashMap<u64, (u64, u64)>,
    bytes: u64,
    clock: u64,
}

impl Lru {
    /// Returns whether it is here; then it is the one used last.
    fn used(&mut self, key: u64) -> bool {
        let Some(bytes) = self.remove(key) else { return false };
        self.insert(key, bytes);
        true
    }

    fn insert(&mut self, key: u64, bytes: u64) {
        self.clock += 1;
        self.by_use.insert(self.clock, key);
        self.held.insert(key, (self.clock, bytes));
        self.bytes += bytes;
    }

    /// Returns its bytes.
    fn remove(&mut self, key: u64) -> Option<u64> {
        let (time, bytes) = self.held.remove(&key)?;
        self.by_use.remove(&time);
        self.bytes -= bytes;
        Some(bytes)
    }

    /// The one not used for longest, key and bytes.
    fn pop(&mut self) -> Option<(u64, u64)> {
        let key = self.oldest().next()?;
        let bytes = self.remove(key)?;
        Some((key, bytes))
    }

    fn oldest(&self) -> impl Iterator<Item = u64> {
        self.by_use.values().copied()
    }

    fn bytes_of(&self, key: u64) -> u64 {
        self.held.get(&key).map_or(0, |(_, bytes)| *bytes)
    }
}

#[derive(Default)]
struct LeastRecent(Lru);

impl Policy for LeastRecent {
    fn request(&mut self, Request { key, bytes }: Request) -> bool {
        let hit = self.0.used(key);
        if !hit {
            self.0.insert(key, bytes);
            while self.0.bytes > cache_bytes() {
                self.0.pop();
            }
        }
        hit
    }
}

/// A window takes what comes in; what leaves it must be used more often than what it would push out of the
/// main part.
struct TinyLfu {
    frequencies: Sketch,
    window: Lru,
    /// The main part's: used once there, and more than once.
    probation: Lru,
    protected: Lru,
}

impl TinyLfu {
    fn window_bytes() -> u64 {
        cache_bytes() / 100
    }

    fn main_bytes() -> u64 {
        cache_bytes() - Self::window_bytes()
    }

    fn protected_bytes() -> u64 {
        Self::main_bytes() / 5 * 4
    }

    fn new(objects: usize) -> TinyLfu {
        TinyLfu {
            frequencies: Sketch::new(objects),
            window: Lru::default(),
            probation: Lru::default(),
            protected: Lru::default(),
        }
    }

    /// Into the main part, if it is used more often than each of those that had to leave for it.
    fn propose(&mut self, key: u64, bytes: u64) {
        let mut to_free =
            (self.probation.bytes + self.protected.bytes + bytes).saturating_sub(Self::main_bytes());
        let frequency = self.frequencies.of(key);
        let mut leaving = Vec::new();
        for victim in self.probation.oldest().chain(self.protected.oldest()) {
            if to_free == 0 {
                break;
            }
            if self.frequencies.of(victim) >= frequency {
                return;
            }
            to_free =
                to_free.saturating_sub(self.probation.bytes_of(victim) + self.protected.bytes_of(victim));
            leaving.push(victim);
        }
        for victim in leaving {
            self.probation.remove(victim);
            self.protected.remove(victim);
        }
        self.probation.insert(key, bytes);
    }
}

impl Policy for TinyLfu {
    fn request(&mut self, Request { key, bytes }: Request) -> bool {
        self.frequencies.add(key);
        if self.window.used(key) || self.protected.used(key) {
            return true;
        }
        if let Some(bytes) = self.probation.remove(key) {
            self.protected.insert(key, bytes);
            while self.protected.bytes > Self::protected_bytes()
                && let Some((key, bytes)) = self.protected.pop()
            {
                self.probation.insert(key, bytes);
            }
            return true;
        }
        self.window.insert(key, bytes);
        while self.window.bytes > Self::window_bytes()
            && let Some((key, bytes)) = self.window.pop()
        {
            self.propose(key, bytes);
        }
        false
    }
}

/// How often keys were used lately: a count-min sketch of small counters, halved from time to time.
struct Sketch {
    rows: [Vec<u8>; 4],
    added: usize,
    /// Uses after which all counters are halved: ten for each object, as in the paper's experiments.
    period: usize,
}

impl Sketch {
    /// Four bits, were they packed.
    const COUNT_MAX: u8 = 15;

    fn new(objects: usize) -> Sketch {
        let width = objects.max(16).next_power_of_two();
        Sketch { rows: std::array::from_fn(|_| vec![0; width]), added: 0, period: 10 * objects.max(16) }
    }

    fn slot(row: usize, key: u64, width: usize) -> usize {
        (mix(mix(row as u64 + 1) ^ key) % width as u64) as usize
    }

    fn add(&mut self, key: u64) {
        for (row, counters) in self.rows.iter_mut().enumerate() {
            let slot = Self::slot(row, key, counters.len());
            counters[slot] = (counters[slot] + 1).min(Self::COUNT_MAX);
        }
        self.added += 1;
        if self.added >= self.period {
            self.added /= 2;
            for counter in self.rows.iter_mut().flatten() {
                *counter /= 2;
            }
        }
    }

    fn of(&self, key: u64) -> u8 {
        let counts = self
            .rows
            .iter()
            .enumerate()
            .map(|(row, counters)| counters[Self::slot(row, key, counters.len())]);
        counts.min().unwrap_or(0)
    }
}

/// Knows all requests.
struct Belady {
    /// For each request, when its object is used next; beyond the end if never.
    next_uses: Vec<usize>,
    requests_seen: usize,
    by_next_use: BTreeSet<(usize, u64)>,
    /// Next use and bytes.
    held: FxHashMap<u64, (usize, u64)>,
    bytes: u64,
}

impl Belady {
    fn new(requests: &[Request]) -> Belady {
        let mut next_uses = vec![requests.len(); requests.len()];
        let mut used_at = FxHashMap::default();
        for (i, request) in requests.iter().enumerate().rev() {
            if let Some(next) = used_at.insert(request.key, i) {
                next_uses[i] = next;
            }
        }
        Belady {
            next_uses,
            requests_seen: 0,
            by_next_use: BTreeSet::new(),
            held: FxHashMap::default(),
            bytes: 0,
        }
    }
}

impl Policy for Belady {
    fn request(&mut self, Request { key, bytes }: Request) -> bool {
        let next = self.next_uses[self.requests_seen];
        self.requests_seen += 1;
        let before = self.held.insert(key, (next, bytes));
        match before {
            Some((this_use, _)) => {
                self.by_next_use.remove(&(this_use, key));
            }
            None => self.bytes += bytes,
        }
        self.by_next_use.insert((next, key));
        while self.bytes > cache_bytes()
            && let Some((_, last)) = self.by_next_use.pop_last()
        {
            if let Some((_, bytes)) = self.held.remove(&last) {
                self.bytes -= bytes;
            }
        }
        before.is_some()
    }
}
