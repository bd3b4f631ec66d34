//! What an operator is told when it is made, and the file that it is told by.
//!
//! ```toml
//! function = "shuffle"
//! inputs = ["clicks.stream"]
//! output = "by-user"
//! key = "json:user"
//! partitions = 8
//! partitioning = "hash"
//! ```

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Outputs of one operator, at most.
pub const PARTITIONS_MAX: u32 = crate::stream::partition::PARTITIONS_MAX;
/// Inputs of one operator, at most.
pub const INPUTS_MAX: usize = 256;

/// What an operator does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Definition {
    /// To each record.
    pub function: Function,
    /// Streams, relative to the mount's root.
    pub inputs: Vec<String>,
    /// A directory of partitions, or a stream; of the operator alone.
    pub output: String,
    /// Where in a record the key is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// How many outputs there are; one that is a stream by itself, and no directory, where this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
    /// Which key goes where.
    #[serde(default)]
    pub partitioning: Partitioning,
    /// Of a filter: what is true of the records that stay.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    /// Of a projection: the fields that stay, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// Of range partitioning: the first key of each output but the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bounds: Vec<String>,
}

/// What is done to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Function {
    /// It goes to the output of its key.
    Shuffle,
    /// The records of all inputs go to one output, those of each in their order.
    Merge,
    /// Those stay of which an expression is true. It sees `value`, the record as JSON (`()` if it is none), and `text`, the
    /// record as text; it is Rhai's.
    Filter,
    /// Of each, which is a JSON object, some fields stay.
    Project,
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Function::Shuffle => "shuffle",
            Function::Merge => "merge",
            Function::Filter => "filter",
            Function::Project => "project",
        })
    }
}

/// Which key goes to which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Partitioning {
    /// XXH3-64 of the key, modulo the number of outputs. This does not change.
    #[default]
    Hash,
    /// By [`Definition::bounds`], as bytes are ordered.
    Range,
    /// The outputs in turn, whatever the key is.
    RoundRobin,
}

/// Where in a record the key is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Key {
    /// The value of a field of a JSON object, `a.b` for one in an object in it: of a string what is between its quotes, as it
    /// is written; of others their text.
    Json(Vec<String>),
    /// A field of a line of comma-separated values, counted from 0; without its quotes.
    Csv(usize),
    /// What the first group of a regular expression matches, or all of it where it has no groups.
    Regex(String),
    /// The record begins with a length, a little-endian u32 (behind that of a `len32` record), and then has a key of so many
    /// bytes.
    Len32,
    /// The whole record, without its framing.
    Record,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Json(path) => write!(f, "json:{}", path.join(".")),
            Key::Csv(number) => write!(f, "csv:{number}"),
            Key::Regex(pattern) => write!(f, "regex:{pattern}"),
            Key::Len32 => f.write_str("len32-key"),
            Key::Record => f.write_str("record"),
        }
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        key.to_string()
    }
}

impl TryFrom<String> for Key {
    type Error = DefinitionError;

    fn try_from(text: String) -> Result<Key, DefinitionError> {
        text.parse()
    }
}

impl FromStr for Key {
    type Err = DefinitionError;

    fn from_str(text: &str) -> Result<Key, DefinitionError> {
        match text.split_once(':') {
            Some(("json", path)) if path.split('.').all(|name| !name.is_empty()) => {
                Ok(Key::Json(path.split('.').map(str::to_owned).collect()))
            }
            Some(("csv", number)) => {
                number.parse().map(Key::Csv).map_err(|_| DefinitionError::CsvField { said: number.into() })
            }
            Some(("regex", pattern)) => Ok(Key::Regex(pattern.into())),
            None if text == "len32-key" => Ok(Key::Len32),
            None if text == "record" => Ok(Key::Record),
            _ => Err(DefinitionError::Key { said: text.into() }),
        }
    }
}

/// Why a definition is none; nothing was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    /// The text.
    #[error("{0}")]
    Text(String),
    /// The word for a key.
    #[error("'{said}' says no key: write json:FIELD, csv:N, regex:PATTERN, len32-key or record")]
    Key {
        /// As it was said.
        said: String,
    },
    /// The number of a field.
    #[error("'{said}' is no number of a field: they are counted from 0, as in csv:2")]
    CsvField {
        /// As it was said.
        said: String,
    },
    /// The regular expression.
    #[error("the regular expression of the key doesn't parse:\n{why}")]
    Regex {
        /// With the place.
        why: String,
    },
    /// The expression of a filter.
    #[error("the expression doesn't parse at column {column}: {why}")]
    Expression {
        /// From 1 on.
        column: usize,
        /// What is wrong there.
        why: String,
    },
    /// The number of inputs.
    #[error("a {function} has 1 to {INPUTS_MAX} inputs, not {count}")]
    Inputs {
        /// Of which.
        function: Function,
        /// As many were said.
        count: usize,
    },
    /// The same twice.
    #[error("{name} is named twice among the inputs")]
    Twice {
        /// The input.
        name: String,
    },
    /// The number of outputs.
    #[error("an operator has 1 to {PARTITIONS_MAX} partitions, not {count}")]
    Partitions {
        /// As many were said.
        count: u32,
    },
    /// Something is missing, or makes no sense there.
    #[error("{0}")]
    Not(&'static str),
    /// An operator would read what it writes.
    #[error("{name} would be an input and the output")]
    Itself {
        /// Which.
        name: String,
    },
}

impl Definition {
    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// With the line where the text is wrong.
    pub fn parse(text: &str) -> Result<Definition, DefinitionError> {
        let definition: Definition =
            toml::from_str(text).map_err(|e| DefinitionError::Text(e.to_string().trim_end().to_owned()))?;
        definition.check()?;
        Ok(definition)
    }

    /// The text of the file that says this.
    pub fn text(&self) -> String {
        toml::to_string(self).expect("all of it has a place in TOML")
    }

    /// How many outputs it has.
    pub fn outputs(&self) -> u32 {
        self.partitions.unwrap_or(1)
    }

    /// Whether it says something that can be done.
    pub fn check(&self) -> Result<(), DefinitionError> {
        use DefinitionError::Not;
        if self.inputs.is_empty() || self.inputs.len() > INPUTS_MAX {
            return Err(DefinitionError::Inputs { function: self.function, count: self.inputs.len() });
        }
        for (number, name) in self.inputs.iter().enumerate() {
            if self.inputs[..number].contains(name) {
                return Err(DefinitionError::Twice { name: name.clone() });
            }
            if *name == self.output {
                return Err(DefinitionError::Itself { name: name.clone() });
            }
        }
        match self.partitions {
            Some(count) if count == 0 || count > PARTITIONS_MAX => {
                return Err(DefinitionError::Partitions { count });
            }
            _ => {}
        }
        if let Some(key) = &self.key {
            super::KeyOf::new(key)?;
        }
        let keyed = self.partitioning != Partitioning::RoundRobin;
        match self.function {
            Function::Shuffle if self.partitions.is_none() => {
                Err(Not("a shuffle needs the number of its partitions"))
            }
            Function::Shuffle if keyed && self.key.is_none() => {
                Err(Not("a shuffle needs a key, unless its partitioning is round-robin"))
            }
            Function::Merge | Function::Filter | Function::Project
                if self.partitions.is_some() || self.key.is_some() =>
            {
                Err(Not("only a shuffle has partitions and a key; others have one output"))
            }
            Function::Filter if self.expression.is_none() => Err(Not("a filter needs an expression")),
            Function::Project if self.fields.is_empty() => Err(Not("a projection needs fields")),
            _ if self.expression.is_some() && self.function != Function::Filter => {
                Err(Not("an expression is for a filter"))
            }
            _ if !self.fields.is_empty() && self.function != Function::Project => {
                Err(Not("fields are for a projection"))
            }
            _ => Ok(()),
        }?;
        super::transform::Transform::new(self)?;
        let bounds = self.bounds.len() as u32;
        match self.partitioning {
            Partitioning::Range if bounds + 1 != self.outputs() => {
                Err(Not("range partitioning needs the first key of each partition but the first as a bound"))
            }
            Partitioning::Range if !self.bounds.is_sorted() => Err(Not("the bounds are not in their order")),
            Partitioning::Range => Ok(()),
            _ if bounds > 0 => Err(Not("bounds are for range partitioning")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHUFFLE: &str = "function = \"shuffle\"\ninputs = [\"a\"]\noutput = \"b\"\nkey = \"json:user.id\"\n\
                           partitions = 8\n";

    #[test]
    fn what_is_written_is_read() {
        let definition = Definition::parse(SHUFFLE).expect("it is one");
        assert_eq!(definition.key, Some(Key::Json(vec!["user".into(), "id".into()])));
        assert_eq!((definition.outputs(), definition.partitioning), (8, Partitioning::Hash));
        assert_eq!(Definition::parse(&definition.text()), Ok(definition));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let wrong = SHUFFLE.replace("partitions = 8", "partitions = eight");
        let sentence = Definition::parse(&wrong).expect_err("no number").to_string();
        assert!(sentence.contains("line 5"), "{sentence}");
        let sentence = Definition::parse(&SHUFFLE.replace("json:", "jsn:")).expect_err("no key").to_string();
        assert!(sentence.contains("'jsn:user.id' says no key") && sentence.contains("line 4"), "{sentence}");
        for (from, to, expected) in [
            ("[\"a\"]", "[]", "1 to 256 inputs"),
            ("[\"a\"]", "[\"a\", \"a\"]", "named twice"),
            ("[\"a\"]", "[\"b\"]", "an input and the output"),
            ("partitions = 8", "partitions = 0", "1 to 1024 partitions"),
            ("partitions = 8", "", "needs the number"),
            ("key = \"json:user.id\"", "", "needs a key"),
            ("key = \"json:user.id\"", "key = \"regex:a(b\"", "doesn't parse"),
            (
                "partitions = 8",
                "partitions = 3\npartitioning = \"range\"\nbounds = [\"m\"]",
                "first key of each",
            ),
            (
                "partitions = 8",
                "partitions = 3\npartitioning = \"range\"\nbounds = [\"m\", \"a\"]",
                "their order",
            ),
            ("\"shuffle\"", "\"merge\"", "only a shuffle has partitions"),
            ("partitions = 8", "partitions = 8\nwhere = \"true\"", "an expression is for a filter"),
        ] {
            let text = SHUFFLE.replace(from, to);
            let sentence = Definition::parse(&text).expect_err(&text).to_string();
            assert!(sentence.contains(expected), "{text}: {sentence}");
        }
    }
}
