//! The output of a key.

use super::definition::{Definition, Partitioning};
use crate::stream::dataflow::output_of;

/// Which output a record goes to.
#[derive(Debug)]
pub(super) struct Route {
    partitioning: Partitioning,
    outputs: usize,
    bounds: Vec<Box<[u8]>>,
}

impl Route {
    pub fn new(definition: &Definition) -> Route {
        let bounds = definition.bounds.iter().map(|bound| bound.as_bytes().into()).collect();
        Route { partitioning: definition.partitioning, outputs: definition.outputs() as usize, bounds }
    }

    /// Whether the key counts.
    pub fn needs_key(&self) -> bool {
        self.outputs > 1 && self.partitioning != Partitioning::RoundRobin
    }

    /// Whether a record goes to the same output always.
    pub fn is_by_key(&self) -> bool {
        self.partitioning != Partitioning::RoundRobin
    }

    /// The output of a record with this key, which is the `turn`-th of all.
    pub fn output(&self, key: &[u8], turn: u64) -> usize {
        match self.partitioning {
            Partitioning::Hash => output_of(key, self.outputs),
            Partitioning::Range => self.bounds.partition_point(|bound| **bound <= *key),
            Partitioning::RoundRobin => (turn % self.outputs as u64) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(rest: &str) -> Route {
        let head =
            "function = \"shuffle\"\ninputs = [\"a\"]\noutput = \"b\"\nkey = \"record\"\npartitions = 3\n";
        Route::new(&Definition::parse(&format!("{head}{rest}")).expect("it is one"))
    }

    #[test]
    fn each_partitioning_has_its_rule() {
        let range = route("partitioning = \"range\"\nbounds = [\"h\", \"p\"]");
        for (key, output) in [("", 0), ("a", 0), ("gz", 0), ("h", 1), ("oz", 1), ("p", 2), ("\u{ff}", 2)] {
            assert_eq!(range.output(key.as_bytes(), 7), output, "{key}");
        }
        let turns = route("partitioning = \"round-robin\"");
        assert_eq!([0, 1, 2, 3].map(|turn| turns.output(b"same", turn)), [0, 1, 2, 0]);
        assert!(!turns.needs_key());
        let hash = route("");
        assert_eq!(hash.output(b"user-17", 0), output_of(b"user-17", 3));
    }
}
