//! Streams as files of a mount: which names are streams, what they look like, who may do what with them.
//!
//! A stream's name stands for a small file, the [`Marker`], as far as the engine's namespace knows: so
//! renames, links, permissions, the journal and the drain need to know nothing of streams. What is shown
//! instead is the log's bytes. Kinds of nodes, told apart by their numbers:
//!
//! - **the stream itself**, by the number of its inode. All its handles are served by us: bytes come from
//!   memory or from segments. Byte 0 is the first that was retained when the log was opened.
//! - **the stream from a later byte on** ([`Node::View`]): what its name leads to once the front was trimmed. So a
//!   node's byte stays where it is, in the kernel's page cache too, and no descriptor sees the size shrink.
//! - **its appending twin** ([`Node::Appender`]): the same inode with a bit set. Its handles go to the active
//!   file by passthrough. The kernel is sent there when it opens the stream for appending: the open is
//!   answered with ESTALE, and the lookup that follows from the same thread with the twin.
//! - **a group** ([`Node::Group`]): `NAME@GROUP` or `NAME@GROUP+eof`, made when it is opened; of a stream, or of
//!   a directory of partitions ([`partitions`]).
//!
//! Opening and making a log, and noting where it is, wait for storage: [`StreamFiles::waits`] and the functions named
//! like it say whether a request will, and it is then answered beside the threads that read requests. No lock here is
//! held meanwhile.
//!
//! Not here: FUSE; that is `adapter/streams.rs`.

pub mod kept;
pub mod partitions;

use aimss_engine::stream::group::{self, MemberId};
use aimss_engine::stream::live::{PartitionedGroup, Stream, Streams, View};
use aimss_engine::stream::settings::MARKER_BYTES;
use aimss_engine::stream::{Framing, Marker, Position, Settings, StreamId};
use aimss_engine::{Attr, Engine, Error, Ino, Kind, Result, Timestamp};
use globset::{Glob, GlobSet, GlobSetBuilder};
use kept::{KeptHandle, KeptNode};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::hash::Hash;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Set in the number of an appending twin.
const APPENDER: u64 = 1 << 62;
/// Set in the number of a group.
const GROUP: u64 = 1 << 61;
/// Set in the number of a view.
const VIEW: u64 = 1 << 60;
/// Numbers of nodes that are no inodes', and of handles of streams, are not below this.
pub const NODE_FIRST: u64 = VIEW;
/// Pages of the kernel's cache begin at multiples of this.
const PAGE_BYTES: u64 = 4096;
/// Separates a stream's name from a group's.
const AT: u8 = b'@';
/// Behind a group's name: its members don't wait at the end.
const EOF: &str = "+eof";
/// First handle that is a stream's; smaller ones are other files'.
pub const HANDLE_FIRST: u64 = 1 << 62;
/// Files that were no streams when they were looked into: this many are remembered.
const PLAIN_MAX: usize = 1 << 16;
/// How long after it was sent to the twin a thread may take to get there.
pub const SENT_FOR: Duration = Duration::from_secs(2);

/// What a node number stands for.
#[derive(Debug, Clone)]
pub enum Node {
    /// An inode as the engine knows it; a stream's, perhaps.
    Inode(Ino),
    /// A stream whose front was trimmed.
    View(ViewNode),
    /// The appending twin of a stream's inode.
    Appender(Ino),
    /// A group of a stream.
    Group(GroupNode),
}

/// A stream as a file that begins with this byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ViewNode {
    /// The stream's inode.
    pub stream: Ino,
    /// Position of byte 0.
    pub begin: Position,
}

/// A group's name, as a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupNode {
    /// The stream's inode, or that of the directory of its partitions.
    pub stream: Ino,
    /// The group.
    pub group: Arc<str>,
    /// Its members don't wait at the end.
    pub eof: bool,
}

/// An open file of a stream.
#[derive(Debug, Clone)]
pub enum Handle {
    /// The stream, read and written through us.
    Plain {
        /// Which.
        stream: Arc<Stream>,
        /// Position of byte 0.
        begin: Position,
        /// It may write.
        write: bool,
    },
    /// Appends by passthrough.
    Appender {
        /// Which.
        stream: Arc<Stream>,
    },
    /// A member of a group.
    Member {
        /// Which.
        stream: Arc<Stream>,
        /// Group.
        group: Arc<str>,
        /// Member.
        member: MemberId,
        /// It doesn't wait at the end.
        eof: bool,
    },
    /// A member of a group over partitions.
    Partitioned {
        /// Group.
        group: Arc<PartitionedGroup>,
        /// Member.
        member: MemberId,
        /// It doesn't wait at the end.
        eof: bool,
    },
}

/// How an open of a stream is to be answered.
#[derive(Debug)]
pub enum Way {
    /// By us.
    Served,
    /// By its twin: look the name up again.
    Elsewhere,
}

/// See the module.
#[derive(Debug)]
pub struct StreamFiles {
    engine: Arc<Engine>,
    streams: Arc<Streams>,
    /// By name alone, and by path.
    names: GlobSet,
    paths: GlobSet,
    known: Mutex<Known>,
    groups: Mutex<Numbers<GroupNode>>,
    views: Mutex<Numbers<ViewNode>>,
    /// Nodes of which the kernel has a page that was not full, by the position that it was filled up to: what comes
    /// behind that is not in it.
    paged: Mutex<HashMap<u64, (Ino, Position)>>,
    /// Threads that were sent to a twin, and since when.
    sent: Mutex<HashMap<u32, (Ino, Instant)>>,
    handles: Mutex<HashMap<u64, Handle>>,
    /// The same handles, as the journal has them.
    kept: Mutex<HashMap<u64, KeptHandle>>,
    next_handle: AtomicU64,
    /// The kernel knows names from the last daemon.
    taken_over: AtomicBool,
    /// When this daemon began.
    begun: Instant,
    /// Streams that had lost their last name by then, and are not doomed yet; their inodes.
    gone: Mutex<HashMap<StreamId, Ino>>,
}

#[derive(Debug, Default)]
struct Known {
    streams: HashMap<Ino, Arc<Stream>>,
    /// The inode that is the stream: a copy of a marker is only a file.
    owners: HashMap<StreamId, Ino>,
    /// Those whose log could not be opened.
    broken: HashSet<Ino>,
    /// Files of a marker's size that have none, and when they were changed last.
    plain: HashMap<Ino, Timestamp>,
}

/// Numbers of nodes of one kind that the kernel knows, and how often it asked.
#[derive(Debug)]
struct Numbers<N> {
    /// Set in each number.
    kind: u64,
    by_number: HashMap<u64, (N, u64)>,
    by_node: HashMap<N, u64>,
    next: u64,
}

impl<N: Clone + Eq + Hash> Numbers<N> {
    fn new(kind: u64) -> Mutex<Numbers<N>> {
        Mutex::new(Numbers { kind, by_number: HashMap::new(), by_node: HashMap::new(), next: 0 })
    }

    /// One that the kernel knows from the last daemon's time.
    fn take_up(&mut self, number: u64, node: &N) {
        self.next = self.next.max(number & !self.kind);
        // It forgets all at once.
        self.by_number.insert(number, (node.clone(), 1));
        self.by_node.insert(node.clone(), number);
    }

    /// The number of a node, which the kernel then knows, and whether it is new to it.
    fn tell(&mut self, node: &N) -> (u64, bool) {
        if let Some(number) = self.by_node.get(node).copied() {
            if let Some((_, lookups)) = self.by_number.get_mut(&number) {
                *lookups += 1;
            }
            return (number, false);
        }
        self.next += 1;
        let number = self.next | self.kind;
        self.by_number.insert(number, (node.clone(), 1));
        self.by_node.insert(node.clone(), number);
        (number, true)
    }

    fn node(&self, number: u64) -> Option<N> {
        self.by_number.get(&number).map(|(node, _)| node.clone())
    }

    /// True if it knows nothing of it any more.
    fn forget(&mut self, number: u64, count: u64) -> bool {
        let Some((node, lookups)) = self.by_number.get_mut(&number) else { return false };
        *lookups = lookups.saturating_sub(count);
        if *lookups == 0 {
            let node = node.clone();
            self.by_number.remove(&number);
            self.by_node.remove(&node);
            return true;
        }
        false
    }
}

/// Behind the `@` of a name.
#[derive(Debug, PartialEq, Eq)]
pub struct GroupName<'a> {
    /// The group's name.
    pub group: &'a str,
    /// With the ending that says not to wait.
    pub eof: bool,
}

/// Takes a name apart: the stream's, and the group's, or why no group may be called so. `None` for other names.
pub fn group_name(name: &[u8]) -> Option<(&[u8], Result<GroupName<'_>>)> {
    let at = name.iter().position(|b| *b == AT).filter(|at| *at > 0)?;
    let (stream, group) = (&name[..at], &name[at + 1..]);
    let group = if group.len() > group::NAME_BYTES_MAX + EOF.len() {
        Err(Error::NameTooLong)
    } else {
        std::str::from_utf8(group).map_err(|_| Error::Invalid).and_then(|group| {
            let (group, eof) = group.strip_suffix(EOF).map_or((group, false), |group| (group, true));
            if group::is_name(group) { Ok(GroupName { group, eof }) } else { Err(Error::Invalid) }
        })
    };
    Some((stream, group))
}

impl StreamFiles {
    /// Streams whose new names match `globs`; these are `gone` ([`StreamFiles::gone`]).
    pub fn new(
        engine: Arc<Engine>,
        streams: Arc<Streams>,
        globs: &[String],
        gone: Vec<(Ino, StreamId)>,
    ) -> std::result::Result<StreamFiles, globset::Error> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for glob in globs {
            let set = if glob.contains('/') { &mut paths } else { &mut names };
            set.add(Glob::new(glob)?);
        }
        Ok(StreamFiles {
            engine,
            streams,
            names: names.build()?,
            paths: paths.build()?,
            known: Mutex::default(),
            groups: Numbers::new(GROUP),
            views: Numbers::new(VIEW),
            paged: Mutex::default(),
            sent: Mutex::default(),
            handles: Mutex::default(),
            kept: Mutex::default(),
            next_handle: AtomicU64::new(HANDLE_FIRST + kept::first_number()),
            taken_over: AtomicBool::new(false),
            begun: Instant::now(),
            gone: Mutex::new(gone.into_iter().map(|(ino, id)| (id, ino)).collect()),
        })
    }

    /// All streams.
    pub fn all(&self) -> &Arc<Streams> {
        &self.streams
    }

    /// What a number stands for.
    pub fn node(&self, number: u64) -> Node {
        if number & GROUP != 0 {
            let gone = || GroupNode { stream: Ino(0), group: "".into(), eof: false };
            return Node::Group(self.groups.lock().node(number).unwrap_or_else(gone));
        }
        if number & VIEW != 0 {
            let gone = ViewNode { stream: Ino(0), begin: Position(0) };
            return Node::View(self.views.lock().node(number).unwrap_or(gone));
        }
        if number & APPENDER != 0 {
            Node::Appender(Ino(number & !APPENDER))
        } else {
            Node::Inode(Ino(number))
        }
    }

    /// The inode behind a number; of a group, its stream's.
    pub fn inode(&self, number: u64) -> Ino {
        match self.node(number) {
            Node::Inode(ino) | Node::Appender(ino) => ino,
            Node::View(node) => node.stream,
            Node::Group(node) => node.stream,
        }
    }

    /// The number of a stream's appending twin.
    pub fn appender(ino: Ino) -> u64 {
        ino.0 | APPENDER
    }

    /// The number of a group, which the kernel then knows.
    pub fn group_number(&self, node: &GroupNode) -> u64 {
        let (number, new) = self.groups.lock().tell(node);
        if new {
            self.note_node(number, Some(&KeptNode::of_group(node)));
        }
        number
    }

    /// The number that the name of a stream leads to now, which the kernel then knows, and the first byte there.
    pub fn tell_view(&self, stream: Ino, log: &Stream) -> Result<(u64, Position)> {
        let begin = view(log)?.begin;
        if begin == log.opened_at() {
            return Ok((stream.0, begin));
        }
        let (number, new) = self.views.lock().tell(&ViewNode { stream, begin });
        if new {
            self.note_node(number, Some(&KeptNode::View { stream: stream.0, begin: begin.0 }));
        }
        Ok((number, begin))
    }

    /// The first byte of a node.
    pub fn begin(&self, number: u64, stream: &Stream) -> Position {
        match self.node(number) {
            Node::View(node) => node.begin,
            _ => stream.opened_at(),
        }
    }

    /// The kernel put a page into its cache that is full up to this position only.
    pub fn paged(&self, number: u64, end: Position) {
        let ino = self.inode(number);
        let mut paged = self.paged.lock();
        let (_, first) = paged.entry(number).or_insert((ino, end));
        *first = end.min(*first);
    }

    /// Whether the kernel has a page of this stream that lacks what came since.
    pub fn has_stale_page(&self, ino: Ino) -> bool {
        let paged = self.paged.lock().values().filter(|(of, _)| *of == ino).map(|(_, end)| *end).min();
        let Some(first) = paged else { return false };
        let stream = self.of_known(ino);
        stream.and_then(|stream| stream.view().ok()).is_none_or(|view| view.begin.0 + view.bytes > first.0)
    }

    /// The nodes of a stream that have such pages, and the place in each from which on the kernel has to forget them,
    /// once.
    pub fn take_stale_pages(&self, ino: Ino) -> Vec<(u64, u64)> {
        let stale: Vec<(u64, Position)> = self
            .paged
            .lock()
            .extract_if(|_, (of, _)| *of == ino)
            .map(|(number, (_, end))| (number, end))
            .collect();
        let Some(stream) = self.of_known(ino) else { return Vec::new() };
        let place = |(number, end): (u64, Position)| {
            let at = end.0.saturating_sub(self.begin(number, &stream).0);
            (number, at / PAGE_BYTES * PAGE_BYTES)
        };
        stale.into_iter().map(place).collect()
    }

    /// The last byte of a node, and its place. It may be a page by itself.
    pub fn last_byte(&self, number: u64) -> Option<(u64, u8)> {
        let stream = self.of_known(self.inode(number))?;
        let view = stream.view().ok()?;
        let last = (view.begin.0 + view.bytes).checked_sub(1)?;
        let at = last.checked_sub(self.begin(number, &stream).0)?;
        let mut byte = [0];
        let read = stream.read_at(Position(last), &mut byte).ok()?;
        if at.is_multiple_of(PAGE_BYTES) {
            self.paged(number, Position(last + 1));
        }
        (read == 1).then_some((at, byte[0]))
    }

    /// The kernel forgets a number. True if it was a group's.
    pub fn forget(&self, number: u64, count: u64) -> bool {
        self.paged.lock().remove(&number);
        let gone = (number & VIEW != 0 && self.views.lock().forget(number, count))
            || (number & GROUP != 0 && self.groups.lock().forget(number, count));
        if gone {
            self.note_node(number, None);
        }
        number & GROUP != 0
    }

    /// Whether new files of this name are streams.
    pub fn is_stream_name(&self, parent: Ino, name: &[u8]) -> bool {
        let by_name = self.names.is_match(OsStr::from_bytes(name));
        if by_name || self.paths.is_empty() {
            return by_name;
        }
        let Some(mut path) = self.engine.path_of(parent) else { return false };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        self.paths.is_match(OsStr::from_bytes(&path))
    }

    /// Whether [`StreamFiles::of`] waits for storage: this may be a stream whose log is not open yet.
    pub fn waits(&self, ino: Ino, attr: &Attr) -> bool {
        if !may_be_marker(attr) {
            return false;
        }
        let known = self.known.lock();
        !known.streams.contains_key(&ino) && known.plain.get(&ino) != Some(&attr.ctime)
    }

    /// The same of [`StreamFiles::of_inode`].
    pub fn waits_for(&self, ino: Ino) -> bool {
        !self.is_known(ino) && self.engine.attr(ino).is_ok_and(|attr| self.waits(ino, &attr))
    }

    /// Whether opening a node with these flags waits for storage.
    pub fn open_waits(&self, number: u64, flags: i32) -> bool {
        let node = self.node(number);
        let ino = self.inode(number);
        let Some(stream) = self.of_known(ino) else {
            return matches!(node, Node::Group(_)) || self.waits_for(ino);
        };
        match node {
            Node::Group(node) => !stream.has_group(&node.group),
            Node::Inode(_) | Node::View(_) | Node::Appender(_) => {
                flags & libc::O_ACCMODE != libc::O_RDONLY && stream.writers_wait()
            }
        }
    }

    /// Whether closing a handle does.
    pub fn close_waits(&self, number: u64) -> bool {
        match self.handle(number) {
            Some(Handle::Plain { stream, write: true, .. } | Handle::Appender { stream }) => {
                stream.writers_wait()
            }
            _ => false,
        }
    }

    /// Whether an inode is a stream, or the kernel knows nodes of one that it is, or was.
    pub fn is_used(&self, ino: Ino) -> bool {
        let known = self.known.lock();
        let is_stream = known.streams.contains_key(&ino) || known.broken.contains(&ino);
        drop(known);
        is_stream
            || self.views.lock().by_node.keys().any(|view| view.stream == ino)
            || self.groups.lock().by_node.keys().any(|group| group.stream == ino)
            || self.kept.lock().values().any(|handle| handle.inode() == Some(ino))
    }

    /// Whether an inode is a stream's whose log is open.
    pub fn is_known(&self, ino: Ino) -> bool {
        self.known.lock().streams.contains_key(&ino)
    }

    /// The stream that an inode stands for, if it does.
    pub fn of(&self, ino: Ino, attr: &Attr) -> Option<Arc<Stream>> {
        if !may_be_marker(attr) {
            return None;
        }
        {
            let known = self.known.lock();
            if let Some(stream) = known.streams.get(&ino) {
                return Some(stream.clone());
            }
            if known.plain.get(&ino) == Some(&attr.ctime) {
                return None;
            }
        }
        let Some(marker) = self.marker(ino).ok()? else {
            let mut known = self.known.lock();
            if known.plain.len() >= PLAIN_MAX {
                known.plain.clear();
            }
            known.plain.insert(ino, attr.ctime);
            return None;
        };
        match self.open_log(marker.0) {
            // Open still, without a name. What has one is a copy of its marker.
            Ok(stream) if stream.is_doomed() => {
                let owner = stream.settings().owner;
                (attr.nlink == 0 && owner.is_none_or(|owner| owner == attr.uid)).then_some(stream)
            }
            Ok(stream) => self.enter(ino, attr.uid, stream),
            Err(e) => {
                self.known.lock().broken.insert(ino);
                log::warn!("the log of a stream can't be opened, its marker is shown instead: {e}");
                None
            }
        }
    }

    /// Opens a log. That of a stream which had lost its last name when this daemon began is doomed: a copy of its marker
    /// is not to be taken for it.
    fn open_log(&self, id: StreamId) -> aimss_engine::stream::Result<Arc<Stream>> {
        let stream = self.streams.open(id)?;
        let is_gone = self.gone.lock().contains_key(&id);
        if is_gone {
            self.streams.doom(&stream);
        }
        Ok(stream)
    }

    /// Sees to those streams. What fails is left to the next daemon.
    pub fn see_to_gone(&self) {
        let gone: Vec<(StreamId, Ino)> = self.gone.lock().iter().map(|(id, ino)| (*id, *ino)).collect();
        for (id, ino) in gone {
            match self.open_log(id) {
                Ok(_) => self.seen_to(ino),
                // Seen to already, by a daemon that did not live to say so.
                Err(aimss_engine::stream::Error::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => {
                    self.seen_to(ino);
                }
                Err(e) => log::warn!("the log of removed stream {id} stays for now: {e}"),
            }
        }
    }

    /// Whether the inode is a stream's whose log can't be opened.
    pub fn is_broken(&self, ino: Ino) -> bool {
        self.of_inode(ino).is_none() && self.known.lock().broken.contains(&ino)
    }

    fn enter(&self, ino: Ino, uid: u32, stream: Arc<Stream>) -> Option<Arc<Stream>> {
        let settings = stream.settings();
        if settings.owner.is_some_and(|owner| owner != uid)
            || self.is_elsewhere(ino, &settings.path, stream.id())
        {
            return None;
        }
        let mut known = self.known.lock();
        known.broken.remove(&ino);
        let owner = *known.owners.entry(stream.id()).or_insert(ino);
        if owner != ino {
            return None;
        }
        known.streams.insert(ino, stream.clone());
        drop(known);
        self.note_place(ino, uid, &stream);
        Some(stream)
    }

    /// Notes where a stream is, and whose.
    fn note_place(&self, ino: Ino, uid: u32, stream: &Stream) {
        let noted = stream.change_settings(|settings| {
            // Asked for here, so that of two who note it the last one has the last.
            let Some(path) = self.engine.path_of(ino) else { return };
            settings.path = String::from_utf8_lossy(&path).into_owned();
            settings.owner = Some(uid);
            settings.doomed = false;
        });
        if let Err(e) = noted {
            log::warn!("the settings of a stream can't be written: {e}");
        }
    }

    /// Whether another inode than `ino` is where the stream was last, and has its marker.
    fn is_elsewhere(&self, ino: Ino, path: &str, id: StreamId) -> bool {
        if path.is_empty() {
            return false;
        }
        let found = path.split('/').try_fold(Ino::ROOT, |at, name| self.engine.resolve(at, name.as_bytes()));
        let Ok(found) = found else { return false };
        found != ino
            && self.engine.attr(found).is_ok_and(|attr| attr.kind == Kind::File)
            && self.marker(found).is_ok_and(|marker| marker == Some(Marker(id)))
    }

    /// The marker that a file holds, if it holds one.
    fn marker(&self, ino: Ino) -> Result<Option<Marker>> {
        let mut bytes = [0; MARKER_BYTES];
        let read = self.engine.read(ino, 0, &mut bytes)?;
        Ok(Marker::decode(&bytes[..read]))
    }

    /// What a name stands for, if that may be a stream.
    pub fn named(&self, parent: Ino, name: &[u8]) -> Option<Ino> {
        let taken_over = self.taken_over.load(Ordering::Relaxed);
        if self.known.lock().streams.is_empty() && !taken_over {
            return None;
        }
        let ino = self.engine.resolve(parent, name).ok()?;
        if taken_over {
            // The kernel knew it from the last daemon, and did not look it up in this one.
            self.of_inode(ino);
        }
        Some(ino)
    }

    /// A stream's name or owner changed.
    pub fn changed(&self, ino: Ino) {
        if let (Some(stream), Ok(attr)) = (self.of_known(ino), self.engine.attr(ino)) {
            self.note_place(ino, attr.uid, &stream);
        }
    }

    /// The stream that an inode stands for, by its number alone.
    pub fn of_inode(&self, ino: Ino) -> Option<Arc<Stream>> {
        if let Some(stream) = self.of_known(ino) {
            return Some(stream);
        }
        let attr = self.engine.attr(ino).ok()?;
        self.of(ino, &attr)
    }

    /// Makes an empty file of the namespace a stream.
    pub fn make(&self, ino: Ino, settings: &Settings) -> Result<Arc<Stream>> {
        let stream = self.streams.create(settings).map_err(error)?;
        self.engine.write(ino, 0, &Marker(stream.id()).encode(), false)?;
        let uid = self.engine.attr(ino)?.uid;
        self.enter(ino, uid, stream).ok_or(Error::Exists)
    }

    /// A name is gone: a stream without any goes, too.
    pub fn name_gone(&self, ino: Ino) {
        let Some(stream) = self.of_known(ino) else { return self.broken_gone(ino) };
        let nameless = self.engine.attr(ino).map_or(true, |attr| attr.nlink == 0);
        if nameless {
            self.streams.doom(&stream);
            let mut known = self.known.lock();
            known.streams.remove(&ino);
            known.owners.remove(&stream.id());
        }
    }

    /// The same for one whose log can't be opened: nobody misses what memory has of it, and its log stays.
    fn broken_gone(&self, ino: Ino) {
        let is_broken = self.known.lock().broken.contains(&ino);
        if !is_broken || self.engine.attr(ino).is_ok_and(|attr| attr.nlink > 0) {
            return;
        }
        if let Ok(Some(marker)) = self.marker(ino) {
            log::warn!(
                "stream {} is removed, and its log, which can't be opened, stays; see `aimss fsck`",
                marker.0
            );
            self.streams.give_up(marker.0);
        }
    }

    /// How an open of a stream is to be answered. `passthrough`: the kernel may append by itself.
    pub fn way(
        &self,
        ino: Ino,
        stream: &Arc<Stream>,
        flags: i32,
        passthrough: bool,
        thread: u32,
    ) -> Result<Way> {
        if flags & libc::O_TRUNC != 0 && view(stream)?.bytes > 0 {
            return Err(not_permitted());
        }
        let appends = flags & libc::O_ACCMODE == libc::O_WRONLY && flags & libc::O_APPEND != 0;
        if !appends || !passthrough || stream.framing() == Framing::Write {
            return Ok(Way::Served);
        }
        if self.begun.elapsed() < SENT_FOR {
            // The last daemon may have sent this thread to the twin, and the kernel looks again only once.
            return Ok(Way::Served);
        }
        let before = self.sent.lock().remove(&thread);
        if let Some((of, _)) = before {
            if of == ino {
                // It came back to the same node, by a descriptor in /proc: there is no name to be looked up.
                stream.writer_closed(true);
                return Ok(Way::Served);
            }
            if let Some(other) = self.of_known(of) {
                other.writer_closed(true);
            }
        }
        if !stream.writer_opened(true) {
            return Ok(Way::Served);
        }
        self.sent.lock().insert(thread, (ino, Instant::now()));
        Ok(Way::Elsewhere)
    }

    /// Threads that were sent to a twin and did not get there in time don't count as writers any more; true if there
    /// may be more of them later.
    pub fn forget_lost_threads(&self) -> bool {
        let mut sent = self.sent.lock();
        let lost: Vec<Ino> =
            sent.extract_if(|_, (_, since)| since.elapsed() >= SENT_FOR).map(|(_, (of, _))| of).collect();
        let more = !sent.is_empty();
        drop(sent);
        for stream in lost.into_iter().filter_map(|ino| self.of_known(ino)) {
            stream.writer_closed(true);
        }
        more
    }

    fn of_known(&self, ino: Ino) -> Option<Arc<Stream>> {
        self.known.lock().streams.get(&ino).cloned()
    }

    /// Whether this thread was sent to the twin of `ino`.
    pub fn was_sent(&self, ino: Ino, thread: u32) -> bool {
        let sent = self.sent.lock();
        !sent.is_empty() && sent.get(&thread).is_some_and(|(of, _)| *of == ino)
    }

    /// It has arrived; the writer is counted already.
    pub fn arrived(&self, ino: Ino, thread: u32) -> bool {
        let mut sent = self.sent.lock();
        let right = sent.get(&thread).is_some_and(|(of, _)| *of == ino);
        if right {
            sent.remove(&thread);
        }
        right
    }

    /// Keeps an open file, for the next daemon, too; returns the number of its handle.
    fn keep(&self, handle: Handle, kept: KeptHandle) -> u64 {
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.note_handle(number, kept);
        self.handles.lock().insert(number, handle);
        number
    }

    /// Keeps one that appends by passthrough, with the kernel's backing id.
    pub fn keep_appender(&self, ino: Ino, stream: Arc<Stream>, id: u32) -> u64 {
        self.keep(Handle::Appender { stream }, KeptHandle::Appender { ino: ino.0, id })
    }

    /// The open file of a handle, if it is a stream's.
    pub fn handle(&self, number: u64) -> Option<Handle> {
        if number < HANDLE_FIRST { None } else { self.handles.lock().get(&number).cloned() }
    }

    /// A handle is closed.
    pub fn close(&self, number: u64) -> Option<Handle> {
        if number < HANDLE_FIRST {
            return None;
        }
        let handle = self.handles.lock().remove(&number)?;
        self.forget_handle(number);
        match &handle {
            Handle::Plain { stream, write, .. } => {
                if *write {
                    stream.writer_closed(false);
                }
            }
            Handle::Appender { stream } => stream.writer_closed(true),
            Handle::Member { stream, group, member, .. } => stream.leave(group, *member),
            Handle::Partitioned { group, member, .. } => group.leave(*member),
        }
        Some(handle)
    }

    /// Opens a stream for us to serve, from this byte on.
    pub fn open_plain(&self, ino: Ino, stream: Arc<Stream>, begin: Position, write: bool) -> u64 {
        if write {
            stream.writer_opened(false);
        }
        let kept = KeptHandle::Plain { ino: ino.0, begin: begin.0, write };
        self.keep(Handle::Plain { stream, begin, write }, kept)
    }

    /// Opens a group, of a stream or of a directory of partitions, for a member.
    pub fn open_group(&self, node: &GroupNode) -> Result<u64> {
        let handle = self.join(node)?;
        Ok(self.keep(handle, KeptHandle::Member(KeptNode::of_group(node))))
    }

    fn join(&self, node: &GroupNode) -> Result<Handle> {
        let Some(stream) = self.of_inode(node.stream) else { return self.join_partitioned(node) };
        let member = stream.join(&node.group)?;
        Ok(Handle::Member { stream, group: node.group.clone(), member, eof: node.eof })
    }

    /// Removes such a group.
    pub fn remove_group(&self, node: &GroupNode) -> Result<()> {
        let removed = match self.of_inode(node.stream) {
            Some(stream) => stream.remove_group(&node.group)?,
            None => self.remove_partitioned_group(node)?,
        };
        if removed { Ok(()) } else { Err(Error::NotFound) }
    }

    /// What `user.aimss.*` says of a stream; `None` for other names.
    pub fn xattr(&self, stream: &Stream, name: &[u8]) -> Option<String> {
        let name = std::str::from_utf8(name).ok()?.strip_prefix(XATTR_PREFIX)?;
        xattrs(stream).into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The names of those.
    pub fn xattr_names(&self, stream: &Stream) -> Vec<Box<[u8]>> {
        xattrs(stream).iter().map(|(key, _)| format!("{XATTR_PREFIX}{key}").into_bytes().into()).collect()
    }
}

/// How the names of a stream's attributes begin.
const XATTR_PREFIX: &str = "user.aimss.";

fn xattrs(stream: &Stream) -> Vec<(&'static str, String)> {
    let settings = stream.settings();
    let partition = settings.partition.map(|partition| ("partition", partition.to_string()));
    settings.pairs().into_iter().chain(partition).collect()
}

/// Every stream's name has a marker, and every marker this size.
fn may_be_marker(attr: &Attr) -> bool {
    attr.kind == Kind::File && attr.size == MARKER_BYTES as u64
}

/// A stream as a file.
pub fn view(stream: &Stream) -> Result<View> {
    stream.view().map_err(error)
}

/// Writes a stream's size, from this byte on, and times over those of its marker.
pub fn show(stream: &Stream, begin: Position, attr: &mut Attr) {
    let Ok(view) = stream.view() else { return };
    attr.size = (view.begin.0 + view.bytes).saturating_sub(begin.0);
    attr.blocks = view.bytes.div_ceil(512);
    attr.mtime = view.mtime;
    attr.ctime = attr.ctime.max(attr.mtime);
}

/// The attributes of a group's name, from its stream's.
pub fn group_attr(stream: &Attr) -> Attr {
    Attr { kind: Kind::File, mode: stream.mode & 0o444, size: 0, blocks: 0, nlink: 1, ..*stream }
}

/// A record is not changed.
pub fn not_permitted() -> Error {
    Error::Io(std::io::Error::from_raw_os_error(libc::EPERM))
}

/// An error of a log, for an application.
pub fn error(e: aimss_engine::stream::Error) -> Error {
    use aimss_engine::stream::Error as Log;
    match e {
        Log::Io(e) => Error::Io(e),
        Log::Framing(_) | Log::Settings(_) => Error::Invalid,
        Log::Trimmed { .. } => Error::Io(std::io::Error::from_raw_os_error(libc::ENODATA)),
        other => {
            log::warn!("a stream can't be served: {other}");
            Error::Io(std::io::Error::from_raw_os_error(libc::EIO))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_groups_are_taken_apart() {
        let of = |name| group_name(name).map(|(stream, group)| (stream, group.ok()));
        let good = |group, eof| Some((&b"a.stream"[..], Some(GroupName { group, eof })));
        assert_eq!(of(b"a.stream@g"), good("g", false));
        assert_eq!(of(b"a.stream@g+eof"), good("g", true));
        assert_eq!(of(b"a.stream"), None);
        assert_eq!(of(b"@g"), None);
        for bad in [&b"a@"[..], b"a@.g", b"a@b@c", b"a@g h", b"a@\xff", b"a@+eof"] {
            assert_eq!(of(bad), Some((&b"a"[..], None)));
        }
        let long = [b"a@".as_slice(), &[b'g'; 300]].concat();
        assert!(matches!(group_name(&long), Some((_, Err(Error::NameTooLong)))));
    }
}
