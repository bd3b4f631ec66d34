//! `aimss op create`: from flags, or from a file.

use super::mount;
use crate::cli::op::{Create, Function};
use crate::commands::Usage;
use crate::commands::stream::place;
use crate::{control, escape};
use aimss_engine::operator::{Definition, Function as Does, Key, Partitioning};
use aimss_fs::control::client::Known;
use aimss_fs::control::operators::OperatorRequest;
use anyhow::{Context as _, Result, anyhow, bail};
use std::path::{Path, PathBuf};

/// Makes an operator.
pub fn run(asked: &Create) -> Result<()> {
    let (known, name, definition) = match (&asked.function, &asked.file, &asked.mountpoint) {
        (Some(function), ..) => from_flags(function)?,
        (None, Some(file), Some(mountpoint)) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("{} can't be read", escape::path(file)))?;
            let definition = Definition::parse(&text).map_err(|e| anyhow!("{}: {e}", escape::path(file)))?;
            let name = asked.name.clone().or_else(|| name_of(&file.with_extension("")));
            (mount(mountpoint)?, name.unwrap_or_default(), definition)
        }
        _ => bail!(Usage(
            "say what it does: shuffle, merge, filter or project, or a --file and a mount".into()
        )),
    };
    definition.check().map_err(|e| Usage(e.to_string()))?;
    control::operators(&known, OperatorRequest::Create { name, definition: definition.text() }).map(drop)
}

fn from_flags(function: &Function) -> Result<(Known, String, Definition)> {
    let (does, inputs, into, name) = match function {
        Function::Shuffle(asked) => (Does::Shuffle, &asked.inputs, &asked.into, &asked.name),
        Function::Merge(asked) => (Does::Merge, &asked.inputs, &asked.into, &asked.name),
        Function::Filter(asked) => (Does::Filter, &asked.inputs, &asked.into, &asked.name),
        Function::Project(asked) => (Does::Project, &asked.inputs, &asked.into, &asked.name),
    };
    let (known, output) = on_mount(into)?;
    let mut definition = Definition {
        function: does,
        inputs: Vec::new(),
        output,
        key: None,
        partitions: None,
        partitioning: Partitioning::default(),
        expression: None,
        fields: Vec::new(),
        bounds: Vec::new(),
    };
    for input in inputs {
        let (of, path) = on_mount(input)?;
        if of.mountpoint != known.mountpoint {
            let (input, into) = (escape::path(input), escape::path(into));
            bail!("{input} and {into} are on different mounts; an operator works within one");
        }
        definition.inputs.push(path);
    }
    if let Function::Shuffle(asked) = function {
        definition.key =
            asked.by.as_deref().map(str::parse::<Key>).transpose().map_err(|e| Usage(e.to_string()))?;
        definition.partitions = asked.partitions;
        if asked.round_robin {
            definition.partitioning = Partitioning::RoundRobin;
        } else if !asked.range.is_empty() {
            definition.partitioning = Partitioning::Range;
            definition.partitions = Some(asked.range.len() as u32 + 1);
            definition.bounds.clone_from(&asked.range);
        }
    }
    match function {
        Function::Filter(asked) => definition.expression = Some(asked.expression.clone()),
        Function::Project(asked) => definition.fields.clone_from(&asked.fields),
        Function::Shuffle(_) | Function::Merge(_) => {}
    }
    let name = name.clone().or_else(|| name_of(into)).unwrap_or_default();
    Ok((known, name, definition))
}

fn name_of(path: &Path) -> Option<String> {
    path.file_name().and_then(|name| name.to_str()).map(str::to_owned)
}

/// The mount of a path, and the path in it.
fn on_mount(path: &Path) -> Result<(Known, String)> {
    let shown = escape::path(path);
    let found: Option<(Known, PathBuf)> = place::of_mount(&place::resolve_name(path)?)?;
    let Some((known, path)) = found else {
        bail!("{shown} is on no aimss mount, and operators work in one; `aimss status` lists mounts");
    };
    match path.to_str() {
        Some(path) => Ok((known, path.to_owned())),
        None => bail!("{shown} is no text, and operators know their streams by names that are"),
    }
}
