//! The streams of a mount: appended to by programs that know nothing of us, read by members who wait.
//!
//! 1. A [`Stream`] is a log whose active file is in memory. Writers append to that file, through the kernel
//!    or through [`Stream::append`]; nobody tells us of the former.
//! 2. Members of groups ask for records ([`Stream::read_group`]). Where there are none, the question waits,
//!    and only then the active file is *watched*: one event of the next append, which costs the writer a few
//!    microseconds, once. [`service`](self) takes the event, indexes what came, and answers.
//! 3. Behind that, threads index what nobody waits for, copy the active file's tail to the backing, write
//!    group offsets down, seal, trim, and give memory back.
//!
//! Idle streams cost nothing: each is watched for its next append, and nobody looks at it until then.
//!
//! A group that lags has its next batch read, or unpacked, while its member works on the last one (`ahead`).
//!
//! The members of a group over partitions ask [`PartitionedGroup`], which asks the streams in their place
//! (`partitions`).
//!
//! Locks, in the order they may be taken: `copied` or `saving` (held across I/O), `writers` (across I/O where a torn
//! tail goes aside: see [`Stream::writers_wait`]), `groups`, `log`; the others are leaves. Answers are given with none
//! of them held.

mod ahead;
mod hub;
mod lend;
mod members;
mod partitions;
mod pins;
mod rate;
mod service;
mod stream;
mod summary;
mod watch;
mod window;

pub use hub::{Limits, Streams};
pub use lend::{AtHand, Lending, Lent, Records};
pub use members::{Answer, AtEnd, Refusal, Waiting};
pub use partitions::PartitionedGroup;
pub use stream::{Moment, Start, Stream, View};
pub use summary::{Behind, Summary};
