//! Operators: streams that are kept up to date from others, inside the storage.
//!
//! An operator has inputs, a function, and outputs: what comes to an input goes through the function, record by record, and
//! to the output that the function says ([`definition`]). It is known by its name, lies in `.aimss/operators/NAME` of the
//! backing, and goes on where it was, whatever dies.
//!
//! **Each record of an input has its effect on the outputs once.** Streams can't be cut, and what dies half way has appended
//! to some outputs and not to others. So before a batch is appended the operator notes its [`place`]: how far it was in each
//! input, and how many records of its own each output had. Outputs have no other writer, and what a batch comes to depends
//! on its records alone; whoever goes on from a place does the batch again, and passes over as many records of each output
//! as are there already, the first bytes of one that was torn included.
//!
//! The place is noted twice:
//!
//! 1. In memory that outlives the process, before each batch. The next daemon goes on from there.
//! 2. On the backing, once a second: a place whose records are durable in the outputs by then. So a node that loses its power
//!    finds outputs that have what the place says, and perhaps more. Inputs are acknowledged up to there, and not further:
//!    retention waits.
//!
//! After a loss of power the inputs, too, may have lost their ends, and of several inputs nobody knows in which order their
//! records came. So what the outputs have behind the place is looked for among what comes ([`run`]).
//!
//! - [`definition`]: what an operator is told when it is made. `transform`: what becomes of a record.
//! - `key`: the key in a record. `route`: the output of a key.
//! - [`place`]: how far one is.
//! - [`run`]: the work. `hub`: all operators of a mount, their threads, and what they are asked.

pub mod definition;
mod hub;
mod key;
mod place;
mod route;
mod run;
mod transform;

pub use definition::{Definition, DefinitionError, Function, Key, Partitioning};
pub use hub::{OperatorError, OperatorState, OperatorStatus, Operators, check};
pub use key::KeyOf;
