//! What `aimss op` asks of a daemon.

use super::Daemon;
use super::streams::Answer;
use crate::control::operators::{OperatorInfo, OperatorRequest};
use crate::control::protocol::Reply;
use aimss_engine::operator::Definition;
use aimss_engine::stream::live::Stream;
use std::path::Path;
use std::sync::Arc;

impl Daemon {
    /// What is asked of operators.
    pub fn operator(&self, request: OperatorRequest) -> Reply {
        let answer = match request {
            OperatorRequest::List => Ok(()),
            OperatorRequest::Create { name, definition } => self.create_operator(&name, &definition),
            OperatorRequest::Remove { name } => {
                return match self.operators.remove(&name) {
                    Ok(()) => Reply::Done,
                    Err(e) => Reply::Error(e.to_string()),
                };
            }
        };
        match answer {
            Ok(()) => Reply::Operators(self.operators.status().into_iter().map(OperatorInfo::from).collect()),
            Err(sentence) => Reply::Error(sentence),
        }
    }

    /// Makes an operator and its output. One that is there and does just that is the one that is wanted: whoever asks may not
    /// have heard of it.
    fn create_operator(&self, name: &str, definition: &str) -> Answer<()> {
        let definition = Definition::parse(definition).map_err(|e| e.to_string())?;
        if self.operators.definition(name).as_ref() == Some(&definition) {
            return Ok(());
        }
        self.operators.check(name, &definition).map_err(|e| e.to_string())?;
        let mut inputs = Vec::new();
        for input in &definition.inputs {
            inputs.extend(self.streams_at(Path::new(input)).map_err(|e| format!("{input}: {e}"))?);
        }
        let output = Path::new(&definition.output);
        let framing = inputs.first().map(|input| input.framing().to_string()).unwrap_or_default();
        let new = !self.has_empty_output(name, &definition)?;
        if new {
            self.make_output(output, definition.partitions, &[("framing".into(), framing)])?;
        }
        let made = self.streams_at(output).and_then(|outputs| {
            self.operators.create(name, &definition, &inputs, &outputs).map_err(|e| e.to_string())
        });
        made.inspect_err(|_| {
            if new {
                self.unmake_output(output, definition.partitions);
            }
        })
    }

    /// Whether the output is there, for this operator or nobody, with nothing in it: a daemon that made it may not have lived
    /// to make the operator. An error if something else is there.
    fn has_empty_output(&self, name: &str, definition: &Definition) -> Answer<bool> {
        let path = Path::new(&definition.output);
        if self.resolve(path).is_err() {
            return Ok(false);
        }
        let named = |e: String| format!("{}: {e}", definition.output);
        let streams = self
            .streams_at(path)
            .map_err(|_| named("there is such a name already; an operator makes its output itself".into()))?;
        let partitioned = streams.iter().all(|stream| stream.settings().partition.is_some());
        if streams.len() as u32 != definition.outputs() || partitioned != definition.partitions.is_some() {
            return Err(named("it is there already, with another number of partitions".into()));
        }
        let is_free = |stream: &Arc<Stream>| {
            let settings = stream.settings();
            let mine = settings.operator.is_none_or(|operator| operator == name);
            mine && stream.writers() == 0 && stream.inspect(|now| now.log.end().0.0) == 0
        };
        if streams.iter().all(is_free) {
            return Ok(true);
        }
        Err(named("it is there already, and has records or writers; an operator's output is its own".into()))
    }

    /// The stream at `path`, or all of the partitions of the directory that is there.
    fn streams_at(&self, path: &Path) -> Answer<Vec<Arc<Stream>>> {
        let ino = self.resolve(path).map_err(|e| e.to_string())?;
        if let Some(stream) = self.streams.of_inode(ino) {
            return Ok(vec![stream]);
        }
        let found = self.streams.partitions(ino).ok_or("it is no stream, and has no partitions")?;
        let missing = found.missing();
        if !missing.is_empty() {
            return Err(format!("of its partitions these are not there: {missing:?}"));
        }
        Ok(found.streams.into_iter().flatten().collect())
    }

    fn make_output(&self, path: &Path, partitions: Option<u32>, settings: &[(String, String)]) -> Answer<()> {
        let made = match partitions {
            Some(count) => self.create_partitions(path, count, settings),
            None => self.stream(crate::control::stream::StreamRequest::Create {
                path: path.to_owned(),
                settings: settings.to_vec(),
            }),
        };
        match made {
            Reply::Error(sentence) => Err(sentence),
            _ => Ok(()),
        }
    }

    /// Takes an output away that was made for an operator that is not.
    fn unmake_output(&self, path: &Path, partitions: Option<u32>) {
        let Ok((parent, name)) = self.place(path) else { return };
        let Ok(ino) = self.engine.resolve(parent, name) else { return };
        match partitions {
            Some(count) => self.unmake((parent, name), ino, 0..count),
            None => {
                if self.engine.unlink(parent, name).is_ok() {
                    self.streams.name_gone(ino);
                }
            }
        }
    }
}
