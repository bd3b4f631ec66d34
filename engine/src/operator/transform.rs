//! What becomes of a record: itself, a part of it, or nothing.
//!
//! Expressions are Rhai's: they see the record, and nothing else; they can't loop for ever, nor take much memory.

use super::definition::{Definition, DefinitionError, Function};
use super::key::body;
use crate::stream::Framing;
use rhai::{AST, Dynamic, Scope};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Steps of an expression, at most: some milliseconds.
const OPERATIONS_MAX: u64 = 100_000;
/// Characters of a string, and elements of an array or a map, that an expression may make.
const STRING_MAX: usize = 1 << 24;
const ELEMENTS_MAX: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(super) enum Transform {
    /// The record as it is.
    Whole,
    /// It, where the expression is true.
    Where(Box<Expression>),
    /// An object of these fields of it.
    Fields(Vec<String>),
}

/// What becomes of one record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Becomes<'r> {
    Record(Cow<'r, [u8]>),
    Nothing,
    /// Nothing, because that failed.
    Failed,
}

impl Transform {
    pub fn new(definition: &Definition) -> Result<Transform, DefinitionError> {
        match (definition.function, &definition.expression) {
            (Function::Filter, Some(expression)) => {
                Ok(Transform::Where(Box::new(Expression::new(expression)?)))
            }
            (Function::Project, _) => Ok(Transform::Fields(definition.fields.clone())),
            _ => Ok(Transform::Whole),
        }
    }

    pub fn apply<'r>(&self, record: &'r [u8], framing: Framing) -> Becomes<'r> {
        match self {
            Transform::Whole => Becomes::Record(Cow::Borrowed(record)),
            Transform::Where(expression) => match expression.is_true(body(record, framing)) {
                Some(true) => Becomes::Record(Cow::Borrowed(record)),
                Some(false) => Becomes::Nothing,
                None => Becomes::Failed,
            },
            Transform::Fields(fields) => match project(body(record, framing), fields) {
                Some(text) => Becomes::Record(Cow::Owned(framed(text, framing))),
                None => Becomes::Failed,
            },
        }
    }
}

/// The fields of a JSON object that are there, in this order, as they are written.
fn project(body: &[u8], fields: &[String]) -> Option<Vec<u8>> {
    let object: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(body).ok()?;
    let mut text = vec![b'{'];
    for field in fields {
        let Some(value) = object.get(field.as_str()) else { continue };
        if text.len() > 1 {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, field).ok()?;
        text.push(b':');
        text.extend_from_slice(value.get().as_bytes());
    }
    text.push(b'}');
    Some(text)
}

fn framed(mut text: Vec<u8>, framing: Framing) -> Vec<u8> {
    match framing {
        Framing::Line => {
            // Between tokens a newline says nothing, and within a string there is none.
            text.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
            text.push(b'\n');
            text
        }
        Framing::Len32 => [&(text.len() as u32).to_le_bytes()[..], &text].concat(),
        Framing::Fixed(_) | Framing::Write => text,
    }
}

/// An expression over a record.
pub(super) struct Expression {
    engine: rhai::Engine,
    ast: AST,
    /// What of a record it mentions.
    value: bool,
    text: bool,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expression").field("source", &self.ast.source()).finish_non_exhaustive()
    }
}

impl Expression {
    /// # Errors
    ///
    /// With the column.
    pub fn new(source: &str) -> Result<Expression, DefinitionError> {
        let mut engine = rhai::Engine::new();
        engine.disable_symbol("eval").set_max_operations(OPERATIONS_MAX).set_max_string_size(STRING_MAX);
        engine.set_max_array_size(ELEMENTS_MAX).set_max_map_size(ELEMENTS_MAX);
        engine.on_print(|_| {}).on_debug(|_, _, _| {});
        let mut scope = Scope::new();
        scope.push_dynamic("value", Dynamic::UNIT).push_dynamic("text", Dynamic::UNIT);
        engine.set_strict_variables(true);
        let ast = engine.compile_expression_with_scope(&scope, source).map_err(|e| {
            let column = e.position().position().unwrap_or(0);
            DefinitionError::Expression { column, why: e.err_type().to_string() }
        })?;
        let mentions =
            |name| source.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name);
        Ok(Expression { value: mentions("value"), text: mentions("text"), engine, ast })
    }

    /// Whether it is true of a record; `None` where it fails, or is no truth.
    fn is_true(&self, record: &[u8]) -> Option<bool> {
        let mut scope = Scope::new();
        if self.value {
            let value: Value = serde_json::from_slice(record).unwrap_or_default();
            scope.push_dynamic("value", rhai::serde::to_dynamic(value).ok()?);
        }
        if self.text {
            scope.push("text", String::from_utf8_lossy(record).into_owned());
        }
        self.engine.eval_ast_with_scope::<bool>(&mut scope, &self.ast).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_true(expression: &str, record: &str) -> Option<bool> {
        Expression::new(expression).expect(expression).is_true(record.as_bytes())
    }

    #[test]
    fn expressions_see_the_record_and_nothing_else() {
        let record = r#"{"price": 7.5, "user": {"name": "ann"}, "tags": ["a", "b"]}"#;
        for (expression, expected) in [
            ("value.price > 7", Some(true)),
            ("value.price < 7.0", Some(false)),
            ("value.user.name == \"ann\" && value.tags.len() == 2", Some(true)),
            ("value.user.name.starts_with(\"b\")", Some(false)),
            ("\"b\" in value.tags", Some(true)),
            ("value.nothing == ()", Some(true)),
            ("value.nothing.at.all", None),
            ("value.price", None),
            ("text.contains(\"ann\")", Some(true)),
        ] {
            assert_eq!(is_true(expression, record), expected, "{expression}");
        }
        assert_eq!(is_true("text.contains(\"ERROR\")", "2026 ERROR disk"), Some(true));
        assert_eq!(is_true("value == ()", "no JSON"), Some(true));
    }

    #[test]
    fn what_does_not_parse_is_said_with_its_column() {
        for (expression, column) in [("value.price >", 14), ("valu.price > 3", 1), ("value.a == \"x", 12)] {
            match Expression::new(expression).expect_err(expression) {
                DefinitionError::Expression { column: said, .. } => assert_eq!(said, column, "{expression}"),
                other => panic!("{other}"),
            }
        }
        for wrong in ["eval(\"1\") == 1", "let x = 3; true", "while true {}"] {
            assert!(Expression::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_expression_goes_on_for_ever() {
        let long = "value.n.reduce(|sum, v| sum + v, 0) > 0";
        let record = format!("{{\"n\": [{}1]}}", "1,".repeat(400_000));
        assert_eq!(is_true(long, &record), None);
    }

    #[test]
    fn fields_are_put_together_as_they_are_written() {
        let fields = ["b", "missing", "a"].map(str::to_owned).to_vec();
        let transform = Transform::Fields(fields);
        let record = b"{\"a\": 1.50, \"c\": 2, \"b\": {\"x\":\"\\u0061\"}}\n";
        let Becomes::Record(text) = transform.apply(record, Framing::Line) else { panic!("a record") };
        assert_eq!(&*text, b"{\"b\":{\"x\":\"\\u0061\"},\"a\":1.50}\n");
        assert_eq!(transform.apply(b"{}\n", Framing::Line), Becomes::Record(Cow::Borrowed(b"{}\n")));
        assert_eq!(transform.apply(b"no object\n", Framing::Line), Becomes::Failed);
    }
}
