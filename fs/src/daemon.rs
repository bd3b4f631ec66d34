//! The daemon: mounts, serves, drains, and leaves nothing behind.
//!
//! 1. State directory, lease of the backing, arena, engine, with what a daemon that died left there; see `begin`.
//! 2. The drain; FUSE session; control socket. Then the mount is ready.
//! 3. Requests are served until the kernel says that the mount is gone (whoever unmounted it).
//! 4. What is left is drained, however long the backing takes, unless the client that unmounted gave it up. Then
//!    arena, lease and state directory go.

mod begin;
mod doomed_streams;
mod link;
mod partitions;
mod references;
mod requests;
pub mod residence;
mod resources;
mod streams;

pub use link::Link;

use crate::adapter::{Adapter, Shared};
use crate::config::{FsyncPolicy, GpuConfig, MountConfig};
use crate::control::protocol::{BusyFile, Progress};
use crate::control::server;
use crate::control::status::{
    DaemonStatus, DrainStatus, FileStatus, KeeperStatus, MemoryStatus, MountStatus, OutstandingStatus,
    OverflowStatus, StandbyStatus,
};
use crate::keeper::{self, FromDaemon, Hello, Life, Role};
use crate::policy::Policy;
use crate::session;
use crate::state::{self, ArenaMount, LeaseError, MountRecord, StateDir, StateError};
use crate::streams::StreamFiles;
use aimss_engine::device::Device;
use aimss_engine::failpoint;
use aimss_engine::stream::Result as StreamResult;
use aimss_engine::stream::live::{Limits, Streams};
use aimss_engine::tier::TierConfig;
use aimss_engine::{Engine, Ino};
use begin::Begun;
use fuser::SessionACL;
use parking_lot::Mutex;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Threads that read requests. What waits for storage runs elsewhere, so two keep two cores busy.
const REQUEST_THREADS: usize = 2;
/// A call on the backing that takes longer is worth a sentence in status.
const STALLED: Duration = Duration::from_secs(5);
/// After unmount, between tries to drain what a failing backing did not take.
const LAST_DRAIN_EVERY: Duration = Duration::from_secs(1);

/// One part in so many of the memory is for sealed records of streams that could be read from their segments.
const STREAMS_SHARE: u64 = 2;
/// Between two looks at what who stands ready to take over holds.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between a takeover and what is for nobody who waited through it.
const ANSWERS_FIRST: Duration = Duration::from_millis(20);
/// How long after the drain delay a removed name is gone from the backing, or else something is wrong there.
const REMOVED_AFTER: Duration = Duration::from_secs(5);

/// Why a mount didn't come about. Each is a sentence for stderr.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A bad glob.
    #[error("--no-passthrough: {0}")]
    Glob(#[from] globset::Error),
    /// The engine can't start.
    #[error("{backing} can't be used as a backing: {source}")]
    Engine {
        /// The backing.
        backing: String,
        /// Why.
        source: aimss_engine::Error,
    },
    /// A daemon died elsewhere, and what it left must come first.
    #[error(
        "{backing} was last mounted at {mountpoint} by a daemon that died; mount it there again first, which brings back what it had"
    )]
    LeftElsewhere {
        /// The backing.
        backing: String,
        /// Where it was mounted.
        mountpoint: String,
    },
    /// The swap file can't be made, or not be used.
    #[error(
        "--overflow {path} can't be used: {source}; give the name of a file to be made on a local ext4 or XFS with room, or a device set up by mkswap"
    )]
    Overflow {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The mount was made by a program whose state this one doesn't know.
    #[error(
        "this program keeps a mount's state in version {}, and the mount is of version {found}: unmount, and mount with this program",
        state::VERSION
    )]
    OtherState {
        /// Its version.
        found: u32,
    },
    /// FUSE said no.
    #[error("{mountpoint} can't be mounted: {source}; `aimss doctor` tells what is missing")]
    Mount {
        /// The mount point.
        mountpoint: String,
        /// Why.
        source: std::io::Error,
    },
    /// Anything else on the way.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// A mount being served.
#[derive(Debug)]
pub struct Daemon {
    config: MountConfig,
    engine: Arc<Engine>,
    streams: Arc<StreamFiles>,
    shared: Arc<Shared>,
    started: Instant,
    discard: AtomicBool,
    unmounted: AtomicBool,
    life: Life,
    /// See [`Begun::goes_on`].
    goes_on: bool,
    keeper: u32,
    link: Arc<Link>,
    /// Why there is no GPU, where one was asked for.
    no_gpu: OnceLock<String>,
    /// Why not all streams are open that the last daemon had open.
    unopened: Mutex<Option<String>>,
    /// Who waits for an upgrade is told here why there is none.
    upgrade: Mutex<Option<mpsc::Sender<String>>>,
}

/// Opens the GPU that is asked for; the error is a sentence. It may take seconds.
pub type OpenGpu = fn(&GpuConfig) -> Result<Arc<dyn Device>, String>;

/// Mounts, or goes on where another daemon ends, and serves until it is unmounted; `ready` is called when the mount can be
/// used, and then `open_gpu` where one is wanted. A successor that is not needed returns as well.
pub fn serve(
    hello: Hello,
    link: &Arc<Link>,
    open_gpu: OpenGpu,
    ready: impl FnOnce(),
) -> Result<(), ServeError> {
    let io = |what: &str| {
        let what = what.to_string();
        move |source| ServeError::Io { what, source }
    };
    // What we make is ours alone until its attributes are applied.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    raise_limits();
    die_of_panics();
    keeper::for_oom_killer(hello.role);
    if hello.state != state::VERSION {
        return Err(ServeError::OtherState { found: hello.state });
    }
    let takes_over = hello.role == Role::Successor;
    let Some(begun) = begin::begin(&hello, link)? else { return Ok(()) };
    let Hello { config, keeper, .. } = hello;
    let Begun { state, cleanup, lease, mut arena, engine, recovered, left, life, goes_on, gone } = begun;
    if engine.predicts() {
        engine.take_over_transitions(state::transitions::load(&config.backing));
    }
    if !takes_over {
        engine.start();
    }
    let policy = Arc::new(Policy::new(&config.no_passthrough, rustix::process::geteuid().is_root())?);
    let limits = Limits {
        flush_every: config.stream_flush,
        hot_bytes: config.memory_bytes / STREAMS_SHARE,
        removed_after: config.drain_delay + REMOVED_AFTER,
    };
    let streams =
        Streams::new(&config.backing, &arena.streams(), limits).map_err(io("streams can't be served"))?;
    streams.start();
    let files = Arc::new(StreamFiles::new(engine.clone(), streams.clone(), &config.streams, gone)?);
    let (appenders, polled) = if takes_over {
        (files.take_up(&recovered), StreamFiles::polled(&recovered))
    } else {
        (Vec::new(), Vec::new())
    };
    let shared = Arc::new(Shared::default());
    note_limits(&shared, &arena);
    let daemon = Arc::new(Daemon {
        config: config.clone(),
        engine: engine.clone(),
        streams: files.clone(),
        shared: shared.clone(),
        started: Instant::now(),
        discard: AtomicBool::new(false),
        unmounted: AtomicBool::new(false),
        life,
        goes_on,
        keeper,
        link: link.clone(),
        no_gpu: OnceLock::new(),
        unopened: Mutex::default(),
        upgrade: Mutex::default(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(io("no thread for the control socket"))?;
    let listener = {
        let _in_runtime = runtime.enter();
        server::listen(&state.socket()).map_err(io("the control socket can't be made"))?
    };
    runtime.spawn(server::serve(listener, daemon.clone()));
    let adapter = Adapter::new(engine.clone(), policy, shared, files, left, runtime.handle().clone());
    let question = if takes_over { FromDaemon::Attach } else { FromDaemon::Mount };
    let session = link.ask(&question).and_then(|device| {
        let device = daemon.shared.device.get_or_init(|| Arc::new(device));
        let unnoted = adapter.take_up(appenders);
        let (acl, settings) = session_config(&config);
        let session = session::begin(adapter, device.as_fd(), acl, settings, &state.init(), takes_over)?;
        Ok((session, unnoted))
    });
    let (session, unnoted) = session.map_err(|source| ServeError::Mount {
        mountpoint: config.mountpoint.display().to_string(),
        source,
    })?;
    let _ = daemon.shared.notifier.set(session.notifier());
    let pid = std::process::id();
    let record = MountRecord {
        mountpoint: config.mountpoint.clone(),
        backing: config.backing.clone(),
        pid,
        started: state::started(pid).unwrap_or(0),
        keeper: state::started(keeper).map(|started| (keeper, started)),
    };
    state.record(&record).map_err(io("the state directory can't be written"))?;
    let arena_mount = arena.served();
    // From here on a signal unmounts, before anybody is told that it may be sent.
    let signals = {
        let _in_runtime = runtime.enter();
        Signals::expect().map_err(io("signals can't be waited for"))?
    };
    runtime.spawn(unmount_on_signal(config.mountpoint.clone(), signals));
    failpoint::pass("before", "asked-again");
    if let Some(device) = daemon.shared.device.get().filter(|_| takes_over) {
        session::ask_again(device.as_fd())
            .map_err(io("the kernel doesn't send again what is not answered"))?;
    }
    failpoint::pass("after", "asked-again");
    link.tell(&FromDaemon::Ready);
    ready();
    log::info!("{} is mounted at {}", config.backing.display(), config.mountpoint.display());
    daemon.clone().listen_to_keeper();
    runtime.spawn(look_after(daemon.clone()));
    requests::look_after(&daemon);
    if takes_over {
        references::look_after(&daemon);
    }
    daemon.clone().use_gpu(open_gpu);
    let starting = if takes_over { start_later(&engine) } else { None };
    let (tidy, notifier, backing) = (engine.clone(), session.notifier(), config.backing.clone());
    let looked_after = daemon.clone();
    runtime.spawn_blocking(move || {
        for kernel in polled {
            // Who waits for a stream asks again.
            let _ = notifier.poll(fuser::PollHandle(kernel));
        }
        if goes_on {
            looked_after.keep_opening_left_streams();
            looked_after.streams.see_to_gone();
        }
        if takes_over {
            std::thread::sleep(ANSWERS_FIRST);
        }
        failpoint::pass("before", "unnoted-closed");
        unnoted.close();
        begin::tell_what_was_left(&recovered);
        // Much, and of no use any more.
        drop(recovered);
        failpoint::pass("before", "swept");
        tidy.sweep_arena();
        if takes_over {
            tidy.note_unforgotten();
        }
        if let Err(e) = tidy.clear_leftovers() {
            log::warn!("leftovers of an interrupted drain stay in the backing's .aimss: {e}");
        }
        let doomed = doomed_streams::find(&backing, &streams);
        // Their names may wait to be removed.
        if !doomed.is_empty() && tidy.drain_all(|_| {}).is_ok() {
            doomed_streams::remove(&backing, &streams, doomed);
        }
    });
    // A session that ends like this was not unmounted: the next daemon takes over.
    if let Err(e) = session.run() {
        // Nothing is waited for.
        runtime.shutdown_background();
        return Err(io("the connection to the kernel broke")(e));
    }
    daemon.unmounted.store(true, Ordering::SeqCst);
    link.tell(&FromDaemon::Unmounted);
    if let Some(starting) = starting {
        let _ = starting.join();
    }
    daemon.drain_the_rest();
    engine.stop();
    if engine.predicts()
        && let Err(e) = state::transitions::save(&config.backing, engine.transitions())
    {
        log::warn!("which files are opened behind others has to be learned anew: {e}");
    }
    if let Err(e) = engine.clear_leftovers() {
        log::warn!("what was given up stays in the backing's .aimss: {e}");
    }
    let root = engine.attr(Ino::ROOT).ok();
    drop(engine);
    drop(daemon);
    if let Some(arena) = arena_mount {
        arena.discard();
    }
    failpoint::pass("after", "discarded");
    lease.give_back();
    if let Some(attr) = root {
        restore_root(&config, &attr);
    }
    drop(cleanup);
    runtime.shutdown_timeout(Duration::from_millis(200));
    Ok(())
}

/// Starts the engine's threads once those who waited through a takeover are answered: until then it does all itself. In a
/// thread, or at once where there is none to be had.
fn start_later(engine: &Arc<Engine>) -> Option<std::thread::JoinHandle<()>> {
    let later = engine.clone();
    let start = move || {
        // What it has room for.
        later.arena().measure();
        std::thread::sleep(ANSWERS_FIRST);
        later.start();
    };
    let starting = std::thread::Builder::new().name("start".into()).spawn(start);
    starting.map_err(|_| engine.start()).ok()
}

fn session_config(config: &MountConfig) -> (SessionACL, fuser::Config) {
    let mut session = fuser::Config::default();
    session.acl = if config.allow_other { SessionACL::All } else { SessionACL::Owner };
    session.n_threads = Some(REQUEST_THREADS);
    // Requests read through a clone would die with the daemon; see the takeover in the design.
    session.clone_fd = false;
    (session.acl, session)
}

/// Thousands of files may be open at once, two descriptors each.
fn raise_limits() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// A daemon in which a thread panicked would leave a request without an answer. The next one is better.
fn die_of_panics() {
    std::panic::set_hook(Box::new(|panic| {
        log::error!("the daemon panicked: {panic}\n{}", std::backtrace::Backtrace::force_capture());
        std::process::abort();
    }));
}

fn note_limits(shared: &Shared, arena: &ArenaMount) {
    let mut limits = shared.limits.lock();
    if !rustix::process::geteuid().is_root() {
        limits.push("not root: no FUSE passthrough, reads and writes go through the daemon".into());
    }
    if !arena.own_filesystem {
        limits.push("no tmpfs of its own: no huge pages, and memory is counted by size".into());
    }
}

fn restore_root(config: &MountConfig, attr: &aimss_engine::Attr) {
    let times = rustix::fs::Timestamps {
        last_access: attr.atime.timespec(),
        last_modification: attr.mtime.timespec(),
    };
    let _ = std::fs::File::open(&config.backing).map(|dir| rustix::fs::futimens(&dir, &times));
}

/// Signals that are waited for.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// A terminal that goes away takes no mount along.
    _hangup: Signal,
}

impl Signals {
    fn expect() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// What who stands ready to take over holds counts as the daemon's own.
async fn look_after(daemon: Arc<Daemon>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        daemon.engine.held_beside(daemon.standby().map_or(0, |standby| standby.resident));
    }
}

/// SIGTERM and SIGINT unmount: files that are open stay usable until they are closed, then the daemon ends.
async fn unmount_on_signal(mountpoint: PathBuf, mut signals: Signals) {
    tokio::select! {
        _ = signals.terminate.recv() => {}
        _ = signals.interrupt.recv() => {}
    }
    let unmounted = tokio::task::spawn_blocking(move || keeper::mount::unmount(&mountpoint)).await;
    if !matches!(unmounted, Ok(Ok(()))) {
        log::warn!("asked to end, but the unmount failed");
    }
}

impl Daemon {
    /// Calls `look` every now and then on a thread of its own, until it names no next pause or the daemon is gone.
    fn keep_looking(
        self: &Arc<Daemon>,
        name: &str,
        mut pause: Duration,
        mut look: impl FnMut(&Daemon) -> Option<Duration> + Send + 'static,
    ) -> std::io::Result<()> {
        let daemon = Arc::downgrade(self);
        let run = move || {
            loop {
                std::thread::sleep(pause);
                let Some(daemon) = daemon.upgrade() else { return };
                let Some(next) = look(&daemon) else { return };
                pause = next;
            }
        };
        std::thread::Builder::new().name(name.into()).spawn(run).map(drop)
    }

    /// Opens the GPU that is asked for, beside: nobody waits for it.
    fn use_gpu(self: Arc<Daemon>, open: OpenGpu) {
        let Some(config) = self.config.gpu.clone() else { return };
        let run = move || match open(&config) {
            Ok(device) => {
                log::info!("copies of files that leave memory go to {}", device.name());
                self.engine.use_device(device, TierConfig::new(config.limit_bytes, config.reserve_bytes));
            }
            Err(why) => {
                log::warn!("no GPU is used: {why}");
                let _ = self.no_gpu.set(why);
            }
        };
        if let Err(e) = std::thread::Builder::new().name("open-gpu".into()).spawn(run) {
            log::warn!("no GPU is used: no thread for it ({e})");
        }
    }

    /// After the unmount: drain until everything is on the backing, or given up by the client.
    fn drain_the_rest(&self) {
        loop {
            let lingering = self.engine.busy().iter().any(|file| file.mapped);
            match self.engine.drain_all(|_| {}) {
                Ok(()) if !lingering => match self.with_all_streams(Streams::stop) {
                    Ok(()) => return,
                    Err(e) => log::warn!("not all of the streams is on the backing yet: {e}"),
                },
                Ok(()) => {}
                Err(e) => log::warn!("not everything is on the backing yet: {e}"),
            }
            if self.discard.load(Ordering::Relaxed) {
                log::warn!("what the backing did not take is given up, as asked");
                return;
            }
            std::thread::sleep(LAST_DRAIN_EVERY);
        }
    }

    /// What is less than it could be, in sentences.
    fn limits(&self) -> Vec<String> {
        let mut limits = self.shared.limits.lock().clone();
        if let Some(why) = self.no_gpu.get() {
            limits.push(format!("no GPU is used: {why}"));
        }
        if let Some(why) = self.engine.tier_status().and_then(|tier| tier.lost) {
            limits.push(format!(
                "the GPU is used no more: {why}; nothing is lost, and files that left memory come from the backing"
            ));
        }
        if self.engine.journal().is_torn() {
            limits.push(
                "there is no memory for the journal: the last changes would be lost if the daemon died now; it is \
                 written anew as soon as there is"
                    .into(),
            );
        }
        if let Some(why) = &*self.unopened.lock() {
            limits.push(format!(
                "what memory has of a stream is not on the backing: {why}; it is tried again, and by `aimss umount --export` \
                 it can be saved elsewhere"
            ));
        }
        if let Some(bytes) = self.streams.all().behind() {
            limits.push(format!(
                "streams hold {} MiB in memory that are not sealed yet: their writers are faster than the backing",
                bytes >> 20
            ));
        }
        if self.engine.is_behind() {
            limits.push(
                "more changes of names wait than memory has room for: who makes files, renames or removes them is slowed \
                 to the pace of the backing"
                    .into(),
            );
        }
        if let Some(path) = self.engine.beyond_memory() {
            let full = if self.engine.arena().overflow().is_some() {
                "--overflow has no room for it"
            } else {
                "there is no --overflow for it"
            };
            limits.push(format!(
                "the open file {} has outgrown what memory was promised for it, and {full}: its writers are slowed, and \
                 what it takes can't be had back before it is closed",
                String::from_utf8_lossy(&path)
            ));
        }
        if let Some(call) = self.engine.outstanding().filter(|call| call.age >= STALLED) {
            limits.push(format!(
                "the backing has not answered for {} s ({} {}): what is in memory goes on, the rest waits",
                call.age.as_secs(),
                call.call,
                String::from_utf8_lossy(&call.path)
            ));
        }
        limits
    }

    fn standby(&self) -> Option<StandbyStatus> {
        let pid = StateDir::of(&self.config.mountpoint).standby()?;
        Some(StandbyStatus { pid, resident: resources::resident_bytes_of(&pid.to_string()) })
    }

    /// For `aimss status`.
    pub fn status(&self) -> MountStatus {
        let s = self.engine.status();
        MountStatus {
            mountpoint: self.config.mountpoint.clone(),
            backing: self.config.backing.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            fsync: match self.config.fsync {
                FsyncPolicy::Durable => "durable".into(),
                FsyncPolicy::Memory => "memory".into(),
            },
            daemon: DaemonStatus {
                pid: std::process::id(),
                restarts: self.life.deaths,
                last_death: self.life.last_death.clone(),
                upgrades: self.life.upgrades,
                uptime: self.started.elapsed().as_secs_f64(),
                cpu: resources::cpu_seconds(),
                resident: resources::resident_bytes(),
                heap: resources::heap_bytes(),
                journal: s.journal,
            },
            keeper: KeeperStatus { pid: self.keeper, standby: self.standby() },
            memory: MemoryStatus {
                budget: s.budget,
                ceiling: s.ceiling,
                used: s.used,
                peak: s.peak,
                peak_process: s.peak_process,
                peak_together: s.peak_together,
                dirty: s.backlog.arena_bytes,
                clean: s.used.saturating_sub(s.backlog.arena_bytes),
                spilled_files: s.spilled,
                overflow: self.engine.arena().overflow().map(|overflow| OverflowStatus {
                    path: overflow.path().to_owned(),
                    size: overflow.bytes(),
                    used: overflow.used_bytes(),
                }),
                huge_share: resources::huge_share(s.used),
            },
            drain: DrainStatus {
                files: s.backlog.files,
                operations: s.backlog.operations,
                bytes: s.backlog.bytes,
                rate: s.rate,
                written: s.written,
                written_direct: s.written_direct,
                backlog_age: s.oldest.as_secs_f64(),
                cancelled: s.cancelled,
                conflicts: s.conflicts,
                failing: s.failing,
                last_error: s.last_error,
            },
            files: FileStatus { known: s.known, numbers: s.numbers, open: s.open, lingering: s.lingering },
            cache: self.cache_status(),
            fetch: self.fetch_status(),
            gpu: self.engine.tier_status(),
            streams: self.streams_status(),
            modes: self.shared.counts.snapshot(),
            outstanding: self.engine.outstanding().map(|call| OutstandingStatus {
                call: call.call.into(),
                path: PathBuf::from(OsString::from_vec(call.path)),
                age: call.age.as_secs_f64(),
            }),
            requests: self.requests(),
            limits: self.limits(),
        }
    }

    /// Calls `with` once all streams are open, also those of the daemon before that nobody asked for yet. It is called
    /// for the others where one can't be opened; that one is the error, and its name is in it.
    fn with_all_streams(&self, with: impl FnOnce(&Streams) -> StreamResult<()>) -> Result<(), String> {
        let opened = if self.goes_on { self.open_left_streams() } else { Ok(()) };
        // Or the log of one that was removed would outlive it.
        self.streams.see_to_gone();
        opened.and(with(self.streams.all())).map_err(|e| e.to_string())
    }

    /// Drains everything, or only `paths`. The error is a sentence.
    pub fn drain(&self, paths: &[PathBuf], mut progress: impl FnMut(Progress)) -> Result<(), String> {
        let written = self.engine.status().written;
        // Whatever is asked for, streams are few and their tails short. Where one fails, files are drained all the same.
        let streams = self
            .with_all_streams(Streams::sync_all)
            .map_err(|e| format!("not all of the streams is on the backing, but nothing is lost: {e}"));
        let drained = if paths.is_empty() {
            self.engine.drain_all(|backlog| {
                let bytes_done = self.engine.written().saturating_sub(written);
                let items_left = backlog.operations + backlog.files;
                progress(Progress { bytes_left: backlog.bytes, items_left, bytes_done });
            })
        } else {
            self.engine.drain_some(&self.resolve_all(paths)?)
        };
        let files =
            drained.map_err(|e| format!("not everything is on the backing, but nothing is lost: {e}"));
        streams.and(files)
    }

    fn resolve_all(&self, paths: &[PathBuf]) -> Result<Vec<Ino>, String> {
        paths.iter().map(|path| self.resolve(path).map_err(|e| format!("{}: {e}", path.display()))).collect()
    }

    fn resolve(&self, path: &std::path::Path) -> aimss_engine::Result<Ino> {
        let mut at = Ino::ROOT;
        for part in path.components() {
            match part {
                std::path::Component::Normal(name) => at = self.engine.resolve(at, name.as_bytes())?,
                std::path::Component::CurDir => {}
                _ => return Err(aimss_engine::Error::Invalid),
            }
        }
        Ok(at)
    }

    /// Files in use.
    pub fn busy(&self) -> Vec<BusyFile> {
        let path = |bytes: Vec<u8>| PathBuf::from(OsString::from_vec(bytes));
        self.engine
            .busy()
            .into_iter()
            .map(|f| BusyFile { path: path(f.path), handles: f.handles, mapped: f.mapped, arena: f.arena })
            .collect()
    }

    /// Directories in memory of streams that the backing does not have all of.
    pub fn streams_in_memory(&self) -> std::io::Result<Vec<PathBuf>> {
        self.streams.all().left_in_memory()
    }

    /// What the backing does not have.
    pub fn pending(&self) -> Vec<PathBuf> {
        self.engine.pending_paths().iter().map(|path| PathBuf::from(OsStr::from_bytes(path))).collect()
    }

    /// The client has unmounted. It may say so again, if the daemon before did not live to do it.
    pub fn finish(&self, discard: bool) {
        self.discard.fetch_or(discard, Ordering::Relaxed);
    }
}
