//! Operators over the control socket: what is asked of them, and what they are in numbers. `aimss op ls --json` prints
//! [`OperatorInfo`], so it is a stable schema like that of `status`: fields are added, never renamed.

use aimss_engine::operator::{Definition, OperatorState, OperatorStatus};
use serde::{Deserialize, Serialize};

/// What a client asks of operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorRequest {
    /// Make one, and its output. Answered by [`Reply::Operators`](super::protocol::Reply::Operators).
    Create {
        /// Its name.
        name: String,
        /// What it does, as [`Definition::text`] has it; paths are relative to the mount's root.
        definition: String,
    },
    /// End one; what it made stays. Answered by [`Reply::Done`](super::protocol::Reply::Done).
    Remove {
        /// Its name.
        name: String,
    },
    /// All of the mount. Answered by `Reply::Operators`.
    List,
}

/// An operator, as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatorInfo {
    /// Its name.
    pub name: String,
    /// What it does.
    pub definition: Definition,
    /// `running`, `waiting` for records, `failing` and trying again, or `stopped` until somebody does something.
    pub state: String,
    /// Why it is failing or stopped.
    pub why: Option<String>,
    /// Records that it took from its inputs.
    pub taken: u64,
    /// Taken a second, over the last seconds.
    pub records_per_second: f64,
    /// Records that wait in the inputs.
    pub lag: u64,
    /// Records taken that had no key.
    pub unkeyed: u64,
    /// Records taken of which the expression failed, or that were no objects; they are in no output.
    pub failed: u64,
    /// Records that its inputs lost before it could take them.
    pub lost: u64,
    /// Records in each output.
    pub outputs: Vec<u64>,
}

impl From<OperatorStatus> for OperatorInfo {
    fn from(status: OperatorStatus) -> OperatorInfo {
        let (state, why) = match status.state {
            OperatorState::Running => ("running", None),
            OperatorState::Waiting => ("waiting", None),
            OperatorState::Failing(why) => ("failing", Some(why)),
            OperatorState::Stopped(why) => ("stopped", Some(why)),
        };
        OperatorInfo {
            name: status.name,
            definition: status.definition,
            state: state.into(),
            why,
            taken: status.taken,
            records_per_second: status.rate,
            lag: status.lag,
            unkeyed: status.unkeyed,
            failed: status.failed,
            lost: status.lost,
            outputs: status.outputs,
        }
    }
}
