//! All operators of a mount.

use super::definition::{Definition, DefinitionError};
use super::place::Place;
use super::run::{Stopped, Work, group_of};
use crate::stream::bell::Bell;
use crate::stream::group::{self, MemberId};
use crate::stream::live::{Stream, Streams};
use crate::stream::segment::sync_directory;
use crate::stream::{Error as StreamError, StreamId, plain};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where a backing keeps its operators, below its root.
const HOME: &str = ".aimss/operators";
/// Files of one.
const DEFINITION: &str = "definition.toml";
const PLACE: &str = "place";
/// Of a name: with `operator.` before it, it has to be a group's.
const NAME_BYTES_MAX: usize = group::NAME_BYTES_MAX - "operator.".len();
/// Between two places on the backing.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// After a failure; it doubles up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Longest rest of one that has nothing to do.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// What an operator is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum OperatorState {
    /// It has records to take.
    #[default]
    Running,
    /// It waits for some.
    Waiting,
    /// It can't go on, for this reason, and tries again.
    Failing(String),
    /// It can't go on, for this reason, until somebody does something.
    Stopped(String),
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorStatus {
    /// Its name.
    pub name: String,
    /// What it does.
    pub definition: Definition,
    /// What it is doing.
    pub state: OperatorState,
    /// Records taken.
    pub taken: u64,
    /// Of those, without a key.
    pub unkeyed: u64,
    /// Of those, failed: the expression did, or it was no object.
    pub failed: u64,
    /// Records of inputs that were lost before they were taken.
    pub lost: u64,
    /// Records that wait in the inputs.
    pub lag: u64,
    /// Records that were put into each output.
    pub outputs: Vec<u64>,
    /// Taken a second, over the time since this was asked last.
    pub rate: f64,
}

/// See the module of operators.
#[derive(Debug)]
pub struct Operators {
    streams: Arc<Streams>,
    home: PathBuf,
    memory: PathBuf,
    all: Mutex<BTreeMap<String, Arc<Operator>>>,
    /// Held while one is made or removed.
    changing: Mutex<()>,
    stopping: Arc<AtomicBool>,
    checkpoints: Mutex<Option<JoinHandle<()>>>,
    ended: Bell,
}

#[derive(Debug)]
struct Operator {
    name: String,
    definition: Definition,
    directory: PathBuf,
    noted: PathBuf,
    shared: Mutex<Shared>,
    /// Held while the place is brought to the backing.
    checkpoint: Mutex<Place>,
    bell: Arc<Bell>,
    stopping: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: OperatorState,
    place: Place,
    lag: u64,
    /// Where its records come from and go to, once they are open.
    inputs: Vec<(Arc<Stream>, MemberId)>,
    outputs: Vec<Arc<Stream>>,
    asked: Option<(Instant, u64)>,
}

/// Why an operator can't be made or removed; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The definition.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// The name.
    #[error(
        "'{name}' can't be an operator's name: letters, digits, '.', '_' and '-', up to {NAME_BYTES_MAX}, not first a '.'"
    )]
    Name {
        /// As it was said.
        name: String,
    },
    /// There is one of that name.
    #[error("there is an operator {name} already; `aimss op rm` removes it")]
    Exists {
        /// Its name.
        name: String,
    },
    /// There is none.
    #[error("there is no operator {name}; `aimss op ls` shows all")]
    None {
        /// As it was said.
        name: String,
    },
    /// An output of another operator, or of this one.
    #[error("{output} is what operator {other} writes")]
    Output {
        /// The output.
        output: String,
        /// Whose it is.
        other: String,
    },
    /// Operators would feed each other for ever.
    #[error("{} would feed each other for ever", .0.join(", "))]
    Cycle(
        /// Their names, the new one first.
        Vec<String>,
    ),
    /// Inputs and outputs are not divided alike.
    #[error("{name} has records framed as `{framing}`, and another of its streams has not")]
    Framing {
        /// The stream.
        name: String,
        /// Of its records.
        framing: crate::stream::Framing,
    },
    /// A stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The directory of the operators.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl Fn(io::Error) -> OperatorError + '_ {
    move |source| OperatorError::Io { path: path.display().to_string(), source }
}

impl Operators {
    /// Those of `backing`, which note where they are below `memory`. None runs before [`Operators::start`].
    pub fn new(streams: Arc<Streams>, backing: &Path, memory: &Path) -> Operators {
        Operators {
            streams,
            home: backing.join(HOME),
            memory: memory.into(),
            all: Mutex::default(),
            changing: Mutex::default(),
            stopping: Arc::default(),
            checkpoints: Mutex::default(),
            ended: Bell::default(),
        }
    }

    /// Starts those that the backing has. One that can't be read is passed over, and logged.
    pub fn start(self: &Arc<Operators>) {
        let names = match fs::read_dir(&self.home) {
            Ok(entries) => entries.flatten().map(|entry| entry.file_name()).collect(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => {
                log::error!("operators in {} can't be started: {e}", self.home.display());
                Vec::new()
            }
        };
        for name in names.iter().filter_map(|name| name.to_str()).filter(|name| is_name(name)) {
            if let Err(e) = self.start_one(name) {
                log::error!("operator {name} can't be started: {e}");
            }
        }
        let operators = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name("operators".into());
        match thread.spawn(move || look_after(&operators)) {
            Ok(thread) => *self.checkpoints.lock() = Some(thread),
            Err(e) => log::error!("no thread for operators: after a loss of power they begin anew: {e}"),
        }
    }

    fn start_one(&self, name: &str) -> Result<(), OperatorError> {
        let directory = plain::directory_in(&self.home, name).map_err(at(&self.home.join(name)))?;
        let (definition, place) = read(&directory)?;
        fs::create_dir_all(&self.memory).map_err(at(&self.memory))?;
        let operator = Arc::new(Operator {
            name: name.into(),
            definition,
            directory,
            noted: self.memory.join(name),
            shared: Mutex::new(Shared { place: place.clone(), ..Shared::default() }),
            checkpoint: Mutex::new(place),
            bell: Arc::default(),
            stopping: AtomicBool::new(false),
            thread: Mutex::default(),
        });
        let (runs, streams) = (operator.clone(), Arc::downgrade(&self.streams));
        let thread = std::thread::Builder::new().name(format!("op {name}"));
        let thread = thread.spawn(move || runs.run(&streams)).map_err(at(&operator.noted))?;
        *operator.thread.lock() = Some(thread);
        self.all.lock().insert(name.into(), operator);
        Ok(())
    }

    /// What an operator does, if there is one of this name.
    pub fn definition(&self, name: &str) -> Option<Definition> {
        self.all.lock().get(name).map(|operator| operator.definition.clone())
    }

    /// Whether one could be made like this, of inputs and outputs by their names.
    pub fn check(&self, name: &str, definition: &Definition) -> Result<(), OperatorError> {
        definition.check()?;
        if !is_name(name) {
            return Err(OperatorError::Name { name: name.into() });
        }
        let all = self.all.lock();
        if all.contains_key(name) {
            return Err(OperatorError::Exists { name: name.into() });
        }
        if let Some(other) = all.values().find(|other| other.definition.output == definition.output) {
            let output = definition.output.clone();
            return Err(OperatorError::Output { output, other: other.name.clone() });
        }
        // Whoever reads what this one writes, and so on.
        let (mut way, mut ends) = (vec![name.to_owned()], vec![definition.output.clone()]);
        while let Some(output) = ends.pop() {
            if definition.inputs.iter().any(|input| reads(input, &output)) {
                return Err(OperatorError::Cycle(way));
            }
            for other in all.values() {
                let feeds = other.definition.inputs.iter().any(|input| reads(input, &output));
                if feeds && !way.contains(&other.name) {
                    way.push(other.name.clone());
                    ends.push(other.definition.output.clone());
                }
            }
        }
        Ok(())
    }

    /// Makes an operator over these streams, which begins with their first records; the outputs are empty.
    pub fn create(
        &self,
        name: &str,
        definition: &Definition,
        inputs: &[Arc<Stream>],
        outputs: &[Arc<Stream>],
    ) -> Result<(), OperatorError> {
        let _changing = self.changing.lock();
        self.check(name, definition)?;
        let framing = outputs.first().map(|output| output.framing());
        if let Some(other) = inputs.iter().chain(outputs).find(|stream| Some(stream.framing()) != framing) {
            return Err(OperatorError::Framing { name: other.settings().path, framing: other.framing() });
        }
        for output in outputs {
            // From here on nobody else appends.
            output.change_settings(|settings| settings.operator = Some(name.to_owned()))?;
        }
        let first = |stream: &Arc<Stream>| (stream.id(), stream.inspect(|now| now.log.first().0.0));
        let end = |stream: &Arc<Stream>| (stream.id(), stream.inspect(|now| now.log.end().0.0));
        let begins: Vec<(StreamId, u64)> = inputs.iter().map(first).collect();
        let ends: Vec<(StreamId, u64)> = outputs.iter().map(end).collect();
        fs::create_dir_all(&self.home).map_err(at(&self.home))?;
        plain::check_home(&self.home).map_err(at(&self.home))?;
        // It is there as a whole or not at all; nobody has a name with a leading dot.
        let (beside, directory) = (self.home.join(format!(".{name}")), self.home.join(name));
        let made = (|| {
            if_there(fs::remove_dir_all(&beside))?;
            fs::create_dir(&beside)?;
            let mut file = plain::create(&beside.join(DEFINITION))?;
            file.write_all(definition.text().as_bytes())?;
            file.sync_all()?;
            Place::at(&begins, &ends).write(&beside.join(PLACE))?;
            if_there(fs::remove_file(self.memory.join(name)))?;
            fs::rename(&beside, &directory)?;
            sync_directory(&self.home)
        })();
        made.map_err(at(&directory))?;
        self.start_one(name)
    }

    /// Ends an operator. What it made stays.
    pub fn remove(&self, name: &str) -> Result<(), OperatorError> {
        let _changing = self.changing.lock();
        let none = || OperatorError::None { name: name.into() };
        let operator = self.all.lock().get(name).cloned().ok_or_else(none)?;
        let beside = self.home.join(format!(".{name}"));
        let removed = if_there(fs::remove_dir_all(&beside))
            .and_then(|()| fs::rename(&operator.directory, &beside))
            .and_then(|()| sync_directory(&self.home));
        removed.map_err(at(&operator.directory))?;
        self.all.lock().remove(name);
        operator.stop();
        let outputs: Vec<u128> = operator.shared.lock().place.outputs.iter().map(|(id, _)| *id).collect();
        for output in outputs {
            let freed = self
                .streams
                .open(StreamId(output))
                .and_then(|output| output.change_settings(|settings| settings.operator = None));
            if let Err(e) = freed {
                log::warn!("an output of operator {name} can't be appended to still: {e}");
            }
        }
        for (input, _) in std::mem::take(&mut operator.shared.lock().inputs) {
            if let Err(e) = input.remove_group(&group_of(name)) {
                log::warn!("the group of operator {name} stays: {e}");
            }
        }
        let left =
            if_there(fs::remove_dir_all(&beside)).and_then(|()| if_there(fs::remove_file(&operator.noted)));
        if let Err(e) = left {
            log::warn!("of operator {name} something stays in {}: {e}", beside.display());
        }
        Ok(())
    }

    /// All, by their names.
    pub fn status(&self) -> Vec<OperatorStatus> {
        let all: Vec<Arc<Operator>> = self.all.lock().values().cloned().collect();
        all.iter().map(|operator| operator.status()).collect()
    }

    /// Makes what they did durable, with the places behind it.
    pub fn sync(&self) -> Result<(), OperatorError> {
        let all: Vec<Arc<Operator>> = self.all.lock().values().cloned().collect();
        all.iter().try_for_each(|operator| operator.checkpoint())
    }

    /// Ends their work until the next [`Operators::start`] of whoever comes next, and notes on the backing how far they are.
    pub fn stop(&self) -> Result<(), OperatorError> {
        self.stopping.store(true, Ordering::Relaxed);
        self.ended.ring();
        if let Some(thread) = self.checkpoints.lock().take() {
            let _ = thread.join();
        }
        let all: Vec<Arc<Operator>> = self.all.lock().values().cloned().collect();
        for operator in &all {
            operator.stop();
        }
        all.iter().try_for_each(|operator| operator.checkpoint())
    }
}

fn look_after(operators: &Weak<Operators>) {
    loop {
        let Some(operators) = operators.upgrade() else { return };
        let rung = operators.ended.rung();
        if operators.stopping.load(Ordering::Relaxed) {
            return;
        }
        if let Err(e) = operators.sync() {
            log::warn!("how far operators are can't be brought to the backing, which is tried again: {e}");
        }
        operators.ended.wait(rung, Instant::now().checked_add(CHECKPOINT_EVERY));
    }
}

impl Operator {
    fn run(&self, streams: &Weak<Streams>) {
        let mut pause = RETRY_FIRST;
        let mut work: Option<Work> = None;
        while !self.stopping.load(Ordering::Relaxed) {
            let rung = self.bell.rung();
            match self.advance(&mut work, streams) {
                Ok(true) => {
                    pause = RETRY_FIRST;
                    if let Some(pause) = work.as_ref().and_then(Work::pause) {
                        self.bell.wait(rung, Instant::now().checked_add(pause));
                    }
                }
                Ok(false) => {
                    pause = RETRY_FIRST;
                    self.bell.wait(rung, Instant::now().checked_add(IDLE_MAX));
                }
                Err(stopped) => {
                    let sentence = stopped.to_string();
                    let mut shared = self.shared.lock();
                    let told = matches!(&shared.state, OperatorState::Failing(s) | OperatorState::Stopped(s) if *s == sentence);
                    if !told {
                        log::warn!("operator {} does not go on: {sentence}", self.name);
                    }
                    shared.state = match stopped {
                        Stopped::Stream { .. } | Stopped::Place(_) => OperatorState::Failing(sentence),
                        _ => OperatorState::Stopped(sentence),
                    };
                    drop(shared);
                    self.bell.wait(rung, Instant::now().checked_add(pause));
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// One step; false where there is nothing to be done, and the bell rings when there is.
    fn advance(&self, work: &mut Option<Work>, streams: &Weak<Streams>) -> Result<bool, Stopped> {
        let known = match work {
            Some(work) => work,
            None => {
                let place = self.checkpoint.lock().clone();
                let open = |id| {
                    let gone = || io::Error::new(io::ErrorKind::NotFound, "the mount ends");
                    streams.upgrade().ok_or_else(gone)?.open(StreamId(id))
                };
                let new = work.insert(Work::new(&self.name, &self.definition, place, &self.noted, open)?);
                let mut shared = self.shared.lock();
                (shared.outputs, shared.inputs) = new.ends();
                new
            }
        };
        if matches!(self.shared.lock().state, OperatorState::Failing(_) | OperatorState::Stopped(_)) {
            known.find_place()?;
        }
        let moved = known.step()?;
        {
            let mut shared = self.shared.lock();
            shared.place.clone_from(known.place());
            shared.state = if moved { OperatorState::Running } else { OperatorState::Waiting };
            shared.lag = if moved { known.lag() } else { 0 };
        }
        if moved {
            return Ok(true);
        }
        let bell = self.bell.clone();
        Ok(known.poll(&move || bell.ring()))
    }

    /// Brings what it did to the backing, and then how far it is; what it took up to there is acknowledged.
    fn checkpoint(&self) -> Result<(), OperatorError> {
        let mut last = self.checkpoint.lock();
        let (place, inputs, outputs) = {
            let shared = self.shared.lock();
            (shared.place.clone(), shared.inputs.clone(), shared.outputs.clone())
        };
        if place == *last || place.found || outputs.is_empty() {
            return Ok(());
        }
        // The inputs, too: what is taken from them must not be others' places after a loss of power.
        for stream in inputs.iter().map(|(input, _)| input).chain(&outputs) {
            stream.sync()?;
        }
        // A batch on its way is done again from before it, and with one input that is all there is to say.
        let place = Place { batch: None, ..place };
        let path = self.directory.join(PLACE);
        place.write(&path).map_err(at(&path))?;
        for ((input, member), (_, next)) in inputs.iter().zip(&place.inputs) {
            input.acknowledge_until(&group_of(&self.name), *member, crate::stream::Offset(*next));
        }
        *last = place;
        Ok(())
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.bell.ring();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }

    fn status(&self) -> OperatorStatus {
        let mut shared = self.shared.lock();
        let (now, taken) = (Instant::now(), shared.place.taken);
        let rate = shared.asked.replace((now, taken)).map_or(0.0, |(asked, before)| {
            taken.saturating_sub(before) as f64 / now.duration_since(asked).as_secs_f64().max(1e-3)
        });
        OperatorStatus {
            name: self.name.clone(),
            definition: self.definition.clone(),
            state: shared.state.clone(),
            taken,
            unkeyed: shared.place.unkeyed,
            failed: shared.place.failed,
            lost: shared.place.lost,
            lag: shared.lag,
            outputs: shared.place.outputs.iter().map(|(_, end)| *end).collect(),
            rate,
        }
    }
}

/// What the operator in a directory does, and how far it is; the error is a sentence.
fn read(directory: &Path) -> Result<(Definition, Place), OperatorError> {
    let file = directory.join(DEFINITION);
    let text = crate::stream::segment::open_to_read(&file).and_then(io::read_to_string).map_err(at(&file))?;
    let file = directory.join(PLACE);
    Ok((Definition::parse(&text)?, Place::read(&file).map_err(at(&file))?))
}

/// Whether the operator in a directory of the backing could go on; the error is a sentence.
pub fn check(directory: &Path) -> Result<(), String> {
    read(directory).map(drop).map_err(|e| e.to_string())
}

/// Whether an input is what another operator writes, or a part of it.
fn reads(input: &str, output: &str) -> bool {
    input == output || input.strip_prefix(output).is_some_and(|rest| rest.starts_with('/'))
}

fn is_name(name: &str) -> bool {
    group::is_name(name) && name.len() <= NAME_BYTES_MAX
}

fn if_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
