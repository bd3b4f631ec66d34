//! Random histories: inputs are appended to, batches are taken, and what runs dies, at any place, with half of an append done,
//! or with all that is in memory. In the end each record of an input is in the output that its key says, once, in the order
//! of its input; and what was lost of inputs is there once at most.
//!
//! `AIMSS_OPERATORS=N` for more histories, `AIMSS_SEED=N` for one of them.

use super::*;
use crate::dice::Dice;
use crate::operator::Function;
use crate::stream::live::{Limits, Streams};
use crate::stream::{Settings, StreamId};
use std::collections::HashSet;
use tempfile::TempDir;

const LIMITS: Limits =
    Limits { flush_every: Duration::from_secs(60), hot_bytes: 1 << 20, removed_after: Duration::ZERO };

/// Where it dies.
#[derive(Debug)]
pub(super) struct Death {
    pub after: u32,
    /// Of what is about to be appended, this many thousandths are.
    pub torn: usize,
}

impl Death {
    pub fn come(&self, output: Option<&Output>) -> Stopped {
        if let Some(output) = output {
            let bytes = output.gathered.len() * self.torn / 1000;
            if bytes > 0 {
                output.append_all(&output.gathered[..bytes]).expect("room");
            }
        }
        Stopped::Place(io::Error::other("it dies here"))
    }
}

struct World {
    backing: TempDir,
    arena: TempDir,
    definition: Definition,
    streams: Arc<Streams>,
    inputs: Vec<StreamId>,
    outputs: Vec<StreamId>,
    durable: Place,
    /// Of each input, what it has.
    written: Vec<Vec<String>>,
    lost: HashSet<String>,
    number: u64,
    dice: Dice,
}

impl World {
    fn new(seed: u64) -> World {
        let dice = Dice::new(seed);
        let backing = tempfile::tempdir().expect("a scratch directory");
        let arena = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
        let several = dice.roll() % 2 == 0;
        let text = match dice.roll() % 6 {
            4 => "function = \"filter\"\ninputs = [\"a\"]\noutput = \"o\"\nwhere = \"text.len() % 3 != 0\"",
            0 => "function = \"merge\"\ninputs = [\"a\", \"b\", \"c\"]\noutput = \"o\"",
            1 => {
                "function = \"shuffle\"\ninputs = [\"a\"]\noutput = \"o\"\npartitions = 3\npartitioning = \"round-robin\""
            }
            _ if several => {
                "function = \"shuffle\"\ninputs = [\"a\", \"b\"]\noutput = \"o\"\npartitions = 3\nkey = \"csv:1\""
            }
            _ => "function = \"shuffle\"\ninputs = [\"a\"]\noutput = \"o\"\npartitions = 4\nkey = \"csv:1\"",
        };
        let definition = Definition::parse(text).expect("a definition");
        let streams = Streams::new(backing.path(), &arena.path().join("streams"), LIMITS).expect("made");
        let mut settings = Settings::default();
        settings.log.segment_bytes = 64 << 10;
        let mut make = |_| streams.create(&settings).expect("made").id();
        let inputs: Vec<StreamId> = (0..definition.inputs.len()).map(&mut make).collect();
        let outputs: Vec<StreamId> = (0..definition.outputs() as usize).map(make).collect();
        let begin = |ids: &[StreamId]| -> Vec<_> { ids.iter().map(|id| (*id, 0)).collect() };
        let durable = Place::at(&begin(&inputs), &begin(&outputs));
        let written = vec![Vec::new(); inputs.len()];
        World {
            backing,
            arena,
            definition,
            streams,
            inputs,
            outputs,
            durable,
            written,
            lost: HashSet::new(),
            number: 0,
            dice,
        }
    }

    fn below(&self, n: u64) -> u64 {
        self.dice.roll() % n
    }

    fn open(&self, id: StreamId) -> Arc<Stream> {
        self.streams.open(id).expect("it opens")
    }

    fn begin(&self) -> Work {
        let noted = self.arena.path().join("noted");
        let open = |id| self.streams.open(StreamId(id));
        let work = Work::new("test", &self.definition, self.durable.clone(), &noted, open);
        work.expect("it begins")
    }

    fn append(&mut self) {
        let input = self.below(self.inputs.len() as u64) as usize;
        let mut text = String::new();
        for _ in 0..=self.below(40) {
            self.number += 1;
            let padding = "x".repeat(self.below(200) as usize);
            let line = format!("{input}-{},key-{},{padding}\n", self.number, self.below(9));
            text.push_str(&line);
            self.written[input].push(line);
        }
        assert_eq!(self.open(self.inputs[input]).append(text.as_bytes()).expect("room"), text.len());
    }

    /// As [`super::super::hub`] does it.
    fn checkpoint(&mut self, work: &Work) {
        let place = Place { batch: None, ..work.place().clone() };
        let (outputs, inputs) = work.ends();
        for stream in inputs.iter().map(|(input, _)| input).chain(&outputs) {
            stream.sync().expect("synced");
        }
        for ((input, member), (_, next)) in inputs.iter().zip(&place.inputs) {
            input.acknowledge_until(&work.group, *member, Offset(*next));
        }
        self.durable = place;
    }

    fn records(&self, id: StreamId) -> Vec<String> {
        let stream = self.open(id);
        let (mut records, mut at_hand) = (Vec::new(), AtHand::default());
        loop {
            let lent = stream.lend(Offset(records.len() as u64), 1 << 20, &mut at_hand).expect("readable");
            assert_eq!(lent.lost(), 0);
            if lent.is_empty() {
                return records;
            }
            records.extend(lent.iter().map(|record| String::from_utf8(record.bytes.to_vec()).expect("text")));
        }
    }

    /// Everything that ran is gone, and with `power`, what was in memory, too.
    fn die(&mut self, power: bool) {
        if power {
            std::fs::remove_dir_all(self.arena.path()).expect("removed");
            std::fs::create_dir(self.arena.path()).expect("made");
        }
        let memory = self.arena.path().join("streams");
        self.streams = Streams::new(self.backing.path(), &memory, LIMITS).expect("made");
        if power {
            for (number, id) in self.inputs.clone().into_iter().enumerate() {
                let there = self.records(id);
                assert!(self.written[number].starts_with(&there), "an input has other records");
                self.lost.extend(self.written[number].split_off(there.len()));
            }
        }
    }

    fn check(&self) {
        let mut seen = HashSet::new();
        let mut got = vec![Vec::new(); self.inputs.len()];
        for (number, id) in self.outputs.iter().enumerate() {
            for line in self.records(*id) {
                assert!(seen.insert(line.clone()), "{line} is there twice");
                if self.lost.contains(&line) {
                    continue;
                }
                let input: usize = line.split('-').next().expect("a number").parse().expect("a number");
                got[input].push((number, line));
            }
        }
        let filters = self.definition.function == Function::Filter;
        let stays = |line: &&String| !filters || !(line.len() - 1).is_multiple_of(3);
        for (got, written) in got.into_iter().zip(&self.written) {
            let written: Vec<&String> = written.iter().filter(stays).collect();
            let mut left: Vec<_> = vec![Vec::new(); self.outputs.len()];
            for (output, line) in &got {
                left[*output].push(line);
            }
            assert_eq!(got.len(), written.len(), "of {} records", written.len());
            let by_key = self.definition.key.as_ref().map(|key| KeyOf::new(key).expect("a key"));
            let route = Route::new(&self.definition);
            for lines in &left {
                // In the order of the input, and where the key says.
                let mut rest = written.iter();
                for line in lines {
                    assert!(rest.any(|written| *written == *line), "{line} is out of order");
                }
            }
            if let Some(key) = by_key {
                for (output, line) in got {
                    let key = key.find(line.as_bytes(), Framing::Line).expect("it has one");
                    assert_eq!(route.output(&key, 0), output, "{line}");
                }
            }
        }
    }
}

fn history(seed: u64) {
    let mut world = World::new(seed);
    let mut work = Some(world.begin());
    for _ in 0..120 {
        match world.below(20) {
            0..8 => world.append(),
            8..15 => {
                let running = work.as_mut().expect("it runs");
                running.death = (world.dice.roll() % 4 == 0).then(|| Death {
                    after: (world.dice.roll() % 6) as u32,
                    torn: (world.dice.roll() % 1001) as usize,
                });
                if running.step().is_err() {
                    drop(work.take());
                    let power = world.below(3) == 0;
                    world.die(power);
                    work = Some(world.begin());
                } else {
                    running.death = None;
                }
            }
            15..17 => {
                let running = work.as_ref().expect("it runs");
                let (outputs, inputs) = running.ends();
                let any = inputs.iter().map(|(input, _)| input).chain(&outputs);
                for stream in any.filter(|_| world.below(2) == 0) {
                    stream.sync().expect("synced");
                }
            }
            17 => {
                let running = work.take().expect("it runs");
                if !running.place().found {
                    world.checkpoint(&running);
                }
                work = Some(running);
            }
            18 => {
                for id in [world.inputs.clone(), world.outputs.clone()].concat() {
                    world.open(id).seal_and_cool().expect("sealed");
                }
            }
            _ => {
                drop(work.take());
                let power = world.below(2) == 0;
                world.die(power);
                work = Some(world.begin());
            }
        }
    }
    let mut running = work.expect("it runs");
    while running.step().expect("it goes on") {}
    assert_eq!(running.lag(), 0);
    drop(running);
    world.check();
}

fn from_environment(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn each_record_takes_effect_once_whatever_dies() {
    let first = from_environment("AIMSS_SEED", 1);
    for seed in first..first + from_environment("AIMSS_OPERATORS", 60) {
        let failed = std::panic::catch_unwind(|| history(seed));
        assert!(failed.is_ok(), "failed with AIMSS_SEED={seed}");
    }
}
