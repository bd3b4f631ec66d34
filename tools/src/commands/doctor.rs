//! `aimss doctor`: the checks as text or JSON. What is missing comes with its cost and the command that gives
//! it.

use crate::cli;
use crate::doctor::{self, Check, Verdict};
use anyhow::Result;
use serde::Serialize;

/// The JSON.
#[derive(Serialize)]
struct Report {
    checks: Vec<Check>,
}

/// Shows all checks.
pub fn run(asked: &cli::Doctor) -> Result<()> {
    let checks = doctor::checks(&asked.backings)?;
    if asked.json {
        println!("{}", serde_json::to_string_pretty(&Report { checks })?);
        return Ok(());
    }
    for check in &checks {
        print!("{}", text(check));
    }
    let missing = checks.iter().filter(|check| check.verdict == Verdict::Missing).count();
    match missing {
        0 => println!("\nNothing is missing: aimss runs at full speed here."),
        1 => println!("\nOne thing is missing; aimss works without it, at the cost named above."),
        count => {
            println!("\n{count} things are missing; aimss works without them, at the costs named above.");
        }
    }
    Ok(())
}

fn text(check: &Check) -> String {
    let verdict = match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Missing => "missing",
        Verdict::Unknown => "unknown",
    };
    let found = format!("{verdict:<8} {:<24} {}\n", check.name, check.found);
    if check.verdict == Verdict::Ok {
        return found;
    }
    format!("{found}         costs: {}\n         to get it: {}\n", check.cost, check.remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_thing_is_shown_with_its_cost_and_its_command() {
        let check = Check {
            name: "swap",
            verdict: Verdict::Missing,
            found: "on".into(),
            cost: "time",
            remedy: "swapoff -a".into(),
        };
        let shown = text(&check);
        assert_eq!(
            shown,
            "missing  swap                     on\n         costs: time\n         to get it: swapoff -a\n"
        );
    }
}
