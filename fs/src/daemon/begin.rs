//! How a daemon begins: with a new arena, with what daemon and keeper left when both died, or as the successor of a daemon
//! that lives.

use super::{Link, ServeError, residence};
use crate::adapter::Left;
use crate::config::{FsyncPolicy, MountConfig};
use crate::keeper::{self, FromDaemon, Hello, Life, Role};
use crate::state::{self, ArenaMount, Lease, Owner, StateDir};
use crate::streams::StreamFiles;
use aimss_engine::arena::{Arena, Overflow};
use aimss_engine::backing::{Backing, LocalBacking, SlowBacking};
use aimss_engine::engine::Successor;
use aimss_engine::failpoint;
use aimss_engine::journal::{Follower, Journal, Lost, Recovered};
use aimss_engine::stream::StreamId;
use aimss_engine::{Engine, EngineConfig, Ino};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks of a successor at the journal: while much is added, and while nothing is.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);
const FOLLOW_EVERY_MAX: Duration = Duration::from_millis(500);

/// How much more a successor gives way than others: a tenth of the processor is left to it where all is in use.
const NICE: i32 = 10;

/// Everything of a daemon that needs no kernel.
pub(super) struct Begun {
    pub state: StateDir,
    pub cleanup: Cleanup,
    pub lease: Lease,
    pub arena: Fresh,
    pub engine: Arc<Engine>,
    pub recovered: Recovered,
    pub left: Left,
    pub life: Life,
    /// A daemon before this one left what is in the arena: streams that the journal does not know of, too.
    pub goes_on: bool,
    /// See [`StreamFiles::gone`].
    pub gone: Vec<(Ino, StreamId)>,
}

fn io(what: &str) -> impl FnOnce(io::Error) -> ServeError {
    let what = what.to_string();
    move |source| ServeError::Io { what, source }
}

const UNREADABLE: &str = "the arena that the last daemon left can't be read";

/// `None`: it is a successor, and was not needed.
pub(super) fn begin(hello: &Hello, link: &Link) -> Result<Option<Begun>, ServeError> {
    match hello.role {
        Role::First => first(&hello.config).map(Some),
        Role::Successor => successor(hello, link),
    }
}

fn first(config: &MountConfig) -> Result<Begun, ServeError> {
    let state = StateDir::of(&config.mountpoint);
    let root_times = std::fs::metadata(&config.backing).map_err(io("the backing can't be read"))?;
    state.create()?;
    let node = node_name();
    let (lease, cleanup) = own(config, &state, node.clone())?;
    refuse_what_was_left_elsewhere(config, &state, &lease, &node)?;
    restore_times(config, &root_times);
    let overflow_error = |source| {
        let path = config.overflow.as_ref().map_or_else(String::new, |o| o.path.display().to_string());
        ServeError::Overflow { path, source }
    };
    let overflow = || state::open_overflow(&state, config.overflow.as_ref()).map_err(overflow_error);
    let goes_on = state.has_journal();
    let mut gone = Vec::new();
    let (arena, engine, recovered) = if goes_on {
        let overflow = overflow()?;
        let arena = state::mount_arena(&state.arena(), config.memory_bytes).map_err(io(UNREADABLE))?;
        let arena = Fresh { arena: Some(arena), made: false };
        let successor = prepare(config, &arena, overflow, node, false)?;
        let engine = successor.engine().clone();
        gone = StreamFiles::gone(successor.left());
        let recovered = successor.resume().map_err(io(UNREADABLE))?;
        (arena, engine, recovered)
    } else {
        // Of a daemon that died before it had anything.
        state::end_overflow(&state);
        let overflow = overflow()?;
        let bytes = config.memory_bytes + overflow.as_ref().map_or(0, Overflow::bytes);
        let arena = state::mount_arena(&state.arena(), bytes).map_err(io("no memory for the arena"))?;
        let arena = Fresh { arena: Some(arena), made: true };
        let journal = if config.journal {
            Journal::create(&arena.journal()).map_err(io("no memory for the journal"))?
        } else {
            Journal::none()
        };
        let engine = build_engine(config, &arena, overflow, node, journal)?;
        (arena, engine, Recovered::default())
    };
    let (left, life) = (Left::default(), Life::default());
    Ok(Begun { state, cleanup, lease, arena, engine, recovered, left, life, goes_on, gone })
}

/// Follows the daemon until it is gone, and goes on. Nothing is changed before.
fn successor(hello: &Hello, link: &Link) -> Result<Option<Begun>, ServeError> {
    let config = &hello.config;
    let state = StateDir::of(&config.mountpoint);
    if !state.has_journal() {
        if hello.unmounted && config.journal {
            return tidy_up(hello, &state).map(|()| None);
        }
        return Err(io(UNREADABLE)(io::ErrorKind::NotFound.into()));
    }
    let node = node_name();
    let arena = state::mount_arena(&state.arena(), config.memory_bytes).map_err(io(UNREADABLE))?;
    let arena = Fresh { arena: Some(arena), made: false };
    let overflow = state::overflow_in_use(&state).map_err(io("the overflow can't be looked at"))?;
    let waited_for = link.told_to_go(Duration::ZERO).map_err(io("there is no keeper"))?;
    let mut successor = prepare(config, &arena, overflow, node.clone(), waited_for.is_none())?;
    let life = match waited_for {
        Some(life) => life,
        None => match stand_by(&state, link, &mut successor)? {
            Some(life) => life,
            None => return Ok(None),
        },
    };
    keeper::for_oom_killer(Role::First);
    state.create()?;
    let (lease, cleanup) = own(config, &state, node)?;
    failpoint::pass("before", "taken-over");
    successor.follow().map_err(lost)?;
    let mut left = Left::of(successor.left());
    let engine = successor.engine().clone();
    let (recovered, unserved) = successor.take_over(&left.still_open()).map_err(io(UNREADABLE))?;
    left.forget_ids_of(&unserved);
    failpoint::pass("after", "taken-over");
    let (goes_on, gone) = (true, StreamFiles::gone(&recovered));
    Ok(Some(Begun { state, cleanup, lease, arena, engine, recovered, left, life, goes_on, gone }))
}

/// Everything was on the backing, or given up, when the daemon before died over the removal of what it had made: the rest of
/// that is removed.
fn tidy_up(hello: &Hello, state: &StateDir) -> Result<(), ServeError> {
    let config = &hello.config;
    let root_times = std::fs::metadata(&config.backing).map_err(io("the backing can't be read"))?;
    let lease = Lease::take(&config.backing, &owner(config, node_name()), config.take_over)?;
    lease.give_back();
    restore_times(config, &root_times);
    // Last, as at any end: what follows may be made as soon as it is gone. Another mount may have been made there since.
    if state.read_record().and_then(|record| record.keeper()) == Some(hello.keeper) {
        state::end_overflow(state);
        if let Err(e) = state.remove() {
            log::warn!("the state directory {} stays: {e}", state.path().display());
        }
    }
    Ok(())
}

/// Follows the daemon until it is gone; `None` if the keeper is.
fn stand_by(state: &StateDir, link: &Link, successor: &mut Successor) -> Result<Option<Life>, ServeError> {
    beside_others(|| successor.follow()).map_err(lost)?;
    state.note_standby();
    link.tell(&FromDaemon::Standing { version: env!("CARGO_PKG_VERSION").into() });
    let mut pause = FOLLOW_EVERY;
    loop {
        match link.told_to_go(pause) {
            Ok(None) => {}
            Ok(life) => return Ok(life),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(io("there is no keeper")(e)),
        }
        failpoint::pass("before", "followed");
        let before = successor.left().bytes;
        beside_others(|| successor.follow()).map_err(lost)?;
        let quiet = successor.left().bytes == before;
        pause = if quiet { (pause * 2).min(FOLLOW_EVERY_MAX) } else { FOLLOW_EVERY };
    }
}

/// Works when nobody else wants the processors. In a thread that ends afterwards, since what gave way once may not be allowed
/// to stop doing so.
fn beside_others<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            // Of this thread and those that it starts. It needs no right, and where it fails nothing is lost.
            let _ = rustix::process::setpriority_process(None, NICE);
            work()
        });
        beside.join().expect("a panic ends the process")
    })
}

/// The engine that goes on with the journal that is there. `has_time`: nobody waits for it.
fn prepare(
    config: &MountConfig,
    arena: &ArenaMount,
    overflow: Option<Overflow>,
    node: String,
    has_time: bool,
) -> Result<Successor, ServeError> {
    let journal = Journal::beside_another(&arena.journal()).map_err(io(UNREADABLE))?;
    let engine = build_engine(config, arena, overflow, node, journal)?;
    let read = || Follower::begin(&arena.journal());
    let follower = if has_time { beside_others(read) } else { read() };
    let follower = follower.map_err(lost)?;
    Ok(Successor::new(engine, follower))
}

fn lost(lost: Lost) -> ServeError {
    match lost {
        Lost::Io(e) => io(UNREADABLE)(e),
        Lost::Rewritten => io("it has to begin anew")(io::Error::other(lost)),
    }
}

fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The lease of the backing, and what removes the state directory if nothing comes of it.
fn own(config: &MountConfig, state: &StateDir, node: String) -> Result<(Lease, Cleanup), ServeError> {
    let cleanup = Cleanup { state: state.clone() };
    let lease = Lease::take(&config.backing, &owner(config, node), config.take_over)?;
    Ok((lease, cleanup))
}

/// Who this daemon is to the lease.
fn owner(config: &MountConfig, node: String) -> Owner {
    Owner { node, pid: std::process::id(), mountpoint: config.mountpoint.clone() }
}

pub(super) fn tell_what_was_left(recovered: &Recovered) {
    let (changes, dirty) = (recovered.changes.len(), recovered.dirty());
    if changes + dirty > 0 {
        log::info!(
            "the last daemon left {changes} changes of names and {dirty} files that are not on the backing: they are \
             kept and drained"
        );
    }
}

/// A backing, or a mount point, at which a daemon died whose memory is kept for the same two.
fn refuse_what_was_left_elsewhere(
    config: &MountConfig,
    state: &StateDir,
    lease: &Lease,
    node: &str,
) -> Result<(), ServeError> {
    if let Some(before) =
        lease.before().filter(|before| before.mountpoint != config.mountpoint && before.node == node)
        && StateDir::of(&before.mountpoint).has_journal()
    {
        return Err(ServeError::LeftElsewhere {
            backing: config.backing.display().to_string(),
            mountpoint: before.mountpoint.display().to_string(),
        });
    }
    if let Some(record) =
        state.read_record().filter(|record| record.backing != config.backing && state.has_journal())
    {
        return Err(ServeError::LeftElsewhere {
            backing: record.backing.display().to_string(),
            mountpoint: config.mountpoint.display().to_string(),
        });
    }
    Ok(())
}

fn build_engine(
    config: &MountConfig,
    arena: &ArenaMount,
    overflow: Option<Overflow>,
    node: String,
    journal: Journal,
) -> Result<Arc<Engine>, ServeError> {
    let fail = |source| ServeError::Engine { backing: config.backing.display().to_string(), source };
    let below = LocalBacking::open(&config.backing).map_err(|e| fail(e.into()))?;
    let backing: Arc<dyn Backing> = match config.slow {
        Some(model) => Arc::new(SlowBacking::new(below, model)),
        None => Arc::new(below),
    };
    let memory = arena
        .files()
        .and_then(|files| Arena::open(&files, config.memory_bytes, arena.own_filesystem))
        .map(|memory| memory.with_overflow(overflow))
        .map_err(|e| fail(e.into()))?;
    let engine_config = EngineConfig {
        fsync_durable: config.fsync == FsyncPolicy::Durable,
        drain_delay: config.drain_delay,
        node,
        revalidate: config.revalidate,
        predict: residence::predictors(config, backing.is_remote()),
        gives_way: true,
    };
    Engine::new(engine_config, backing, memory, journal).map_err(fail)
}

/// Taking the lease changed the backing's directory; its times are put back.
fn restore_times(config: &MountConfig, before: &std::fs::Metadata) {
    if let (Ok(atime), Ok(mtime)) = (before.accessed(), before.modified()) {
        let times = std::fs::FileTimes::new().set_accessed(atime).set_modified(mtime);
        let _ = std::fs::File::open(&config.backing).and_then(|dir| dir.set_times(times));
    }
}

/// An arena of a mount that may not come about: until it is served, one that was made for it goes again. One that the
/// last daemon left stays.
pub(super) struct Fresh {
    arena: Option<ArenaMount>,
    made: bool,
}

impl Fresh {
    pub fn served(&mut self) -> Option<ArenaMount> {
        self.arena.take()
    }
}

impl std::ops::Deref for Fresh {
    type Target = ArenaMount;

    fn deref(&self) -> &ArenaMount {
        self.arena.as_ref().expect("it is asked for before it is served")
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(arena) = self.arena.take().filter(|_| self.made) {
            arena.discard();
        }
    }
}

/// Removes the state directory, also when the mount fails half way; not while it holds what the backing lacks.
pub(super) struct Cleanup {
    state: StateDir,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let served =
            self.state.read_record().is_some_and(|record| record.alive() && record.pid != std::process::id());
        if self.state.has_journal() || served {
            return;
        }
        state::end_overflow(&self.state);
        if let Err(e) = self.state.remove() {
            log::warn!("the state directory {} stays: {e}", self.state.path().display());
        }
    }
}
