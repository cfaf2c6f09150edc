//! What is wrong with arguments, in words that a model can act upon: the member, what is expected in JSON's words, and
//! the value that came.

use boon::{ErrorKind, InstanceToken, Type, ValidationError};
use serde_json::{Number, Value};

use super::schema::{Applied, applied, members_of};
use crate::protocol::decimal;

/// Errors that go into one message.
const MOST: usize = 5;
/// Characters of a value that are shown.
const SHOWN: usize = 60;
/// Names or values of a list that are shown.
const LISTED: usize = 20;

/// The text; none when nothing is wrong after all.
pub(super) fn text(error: &ValidationError<'_, '_>, root: &Value, arguments: &Value) -> Option<String> {
    let mut found = Vec::new();
    leaves(error, root, arguments, &mut found);
    found.dedup();
    let more = found.len().saturating_sub(MOST);
    found.truncate(MOST);
    if found.is_empty() {
        return None;
    }
    let text = found.join("; ");
    Some(if more == 0 { text } else { format!("{text}; and {more} more") })
}

/// The errors that say something, of all that lead to them.
fn leaves(error: &ValidationError<'_, '_>, root: &Value, arguments: &Value, found: &mut Vec<String>) {
    if !error.causes.is_empty() {
        if matches!(error.kind, ErrorKind::AnyOf | ErrorKind::OneOf(None)) {
            return alternatives(error, root, arguments, found);
        }
        return error.causes.iter().for_each(|cause| leaves(cause, root, arguments, found));
    }
    let place = Place::of(error, root, arguments);
    match &error.kind {
        // The library divides floating-point numbers.
        ErrorKind::MultipleOf { got, want } if is_multiple(got, want) => {}
        ErrorKind::Required { want } => found.extend(want.iter().map(|name| place.missing(name))),
        ErrorKind::AdditionalProperties { got } => {
            found.extend(got.iter().map(|name| place.unknown(name)));
        }
        kind => found.push(place.wrong(kind)),
    }
}

/// None of several schemas fits. If all of them fail at the value itself, the message says what may stand there; else the
/// errors of the one that comes furthest count: it is what was meant.
fn alternatives(error: &ValidationError<'_, '_>, root: &Value, arguments: &Value, found: &mut Vec<String>) {
    let here = error.instance_location.tokens.len();
    let deep = |cause: &&ValidationError<'_, '_>| depth(cause) > here || speaks_of_members(cause);
    match error.causes.iter().filter(deep).max_by_key(|cause| depth(cause)) {
        Some(cause) => leaves(cause, root, arguments, found),
        None => {
            let mut wanted = Vec::new();
            error.causes.iter().for_each(|cause| expected(cause, &mut wanted));
            wanted.dedup();
            let place = Place::of(error, root, arguments);
            found.push(match wanted.is_empty() {
                true => format!("{} fits none of the schemas that it may have", place.name),
                false => format!("{} must be {}, but is {}", place.name, wanted.join(" or "), place.value()),
            });
        }
    }
}

/// The deepest place that an error, or what caused it, speaks of.
fn depth(error: &ValidationError<'_, '_>) -> usize {
    error.causes.iter().map(depth).max().unwrap_or_default().max(error.instance_location.tokens.len())
}

fn speaks_of_members(error: &ValidationError<'_, '_>) -> bool {
    matches!(error.kind, ErrorKind::Required { .. } | ErrorKind::AdditionalProperties { .. })
        || error.causes.iter().any(speaks_of_members)
}

/// What the schemas that failed at the value itself expect there.
fn expected(error: &ValidationError<'_, '_>, wanted: &mut Vec<String>) {
    error.causes.iter().for_each(|cause| expected(cause, wanted));
    match &error.kind {
        ErrorKind::Type { want, .. } => wanted.extend(want.iter().map(|kind| word(kind).to_owned())),
        ErrorKind::Enum { want } => wanted.extend(want.iter().take(LISTED).map(excerpt)),
        ErrorKind::Const { want } => wanted.push(excerpt(want)),
        kind if error.causes.is_empty() => wanted.push(format!("what its schema allows ({kind})")),
        _ => {}
    }
}

/// Where an error is.
struct Place<'a> {
    /// As `groups[0].name`, in backticks.
    name: String,
    value: Option<&'a Value>,
    schemas: Applied<'a>,
    root: &'a Value,
}

impl<'a> Place<'a> {
    fn of(error: &ValidationError<'_, '_>, root: &'a Value, arguments: &'a Value) -> Self {
        let (mut name, mut value) = (String::new(), Some(arguments));
        let mut schemas = applied(root, [root]);
        for token in &error.instance_location.tokens {
            match token {
                InstanceToken::Prop(member) => {
                    name = join(&name, member);
                    value = value.and_then(|value| value.get(&**member));
                    schemas = applied(root, members_of(&schemas, member));
                }
                InstanceToken::Item(index) => {
                    name = format!("{name}[{index}]");
                    value = value.and_then(|value| value.get(*index));
                    schemas = applied(root, schemas.of_item(*index));
                }
            }
        }
        let name = if name.is_empty() { "the object of arguments".to_owned() } else { format!("`{name}`") };
        Self { name, value, schemas, root }
    }

    fn value(&self) -> String {
        self.value.map(excerpt).unwrap_or_default()
    }

    /// The name of a member of what is here.
    fn member(&self, name: &str) -> String {
        let own = self.name.strip_prefix('`').and_then(|own| own.strip_suffix('`')).unwrap_or_default();
        format!("`{}`", join(own, name))
    }

    fn missing(&self, name: &str) -> String {
        let kinds = types(&applied(self.root, members_of(&self.schemas, name)));
        let kinds = kinds.map(|kinds| format!(": it must be {kinds}")).unwrap_or_default();
        format!("{} is missing{kinds}", self.member(name))
    }

    fn unknown(&self, name: &str) -> String {
        let known: Vec<String> =
            self.schemas.names().iter().take(LISTED).map(|name| format!("`{name}`")).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let value = self.value.and_then(|value| value.get(name)).map(excerpt).unwrap_or_default();
        format!("{} is not known here (its value is {value}); the members are {known}", self.member(name))
    }

    fn wrong(&self, kind: &ErrorKind<'_, '_>) -> String {
        let (name, value) = (&self.name, self.value());
        let but = format!("but is {value}");
        let of = |fallback: &str| types(&self.schemas).unwrap_or_else(|| fallback.to_owned());
        match kind {
            ErrorKind::Type { want, .. } => {
                let want: Vec<&str> = want.iter().map(word).collect();
                format!("{name} must be {}, {but}", want.join(" or "))
            }
            ErrorKind::Enum { want } => {
                let want: Vec<String> = want.iter().take(LISTED).map(excerpt).collect();
                format!("{name} must be one of {}, {but}", want.join(", "))
            }
            ErrorKind::Const { want } => format!("{name} must be {}, {but}", excerpt(want)),
            ErrorKind::Minimum { want, .. } => {
                format!("{name} must be {} of at least {want}, {but}", of("a number"))
            }
            ErrorKind::Maximum { want, .. } => {
                format!("{name} must be {} of at most {want}, {but}", of("a number"))
            }
            ErrorKind::ExclusiveMinimum { want, .. } => {
                format!("{name} must be {} greater than {want}, {but}", of("a number"))
            }
            ErrorKind::ExclusiveMaximum { want, .. } => {
                format!("{name} must be {} less than {want}, {but}", of("a number"))
            }
            ErrorKind::MultipleOf { want, .. } => format!("{name} must be a multiple of {want}, {but}"),
            ErrorKind::MinLength { got, want } => {
                format!("{name} must be a string of at least {want} characters, but has {got}: {value}")
            }
            ErrorKind::MaxLength { got, want } => {
                format!("{name} must be a string of at most {want} characters, but has {got}: {value}")
            }
            ErrorKind::Pattern { want, .. } => {
                format!("{name} must be a string that matches {}, {but}", clip(want))
            }
            ErrorKind::MinItems { got, want } => {
                format!("{name} must be an array of at least {want} items, but has {got}: {value}")
            }
            ErrorKind::MaxItems { got, want } => {
                format!("{name} must be an array of at most {want} items, but has {got}: {value}")
            }
            ErrorKind::UniqueItems { got: [one, other] } => {
                format!(
                    "{name} must be an array of different items, but items {one} and {other} are equal: {value}"
                )
            }
            kind => {
                format!("{name} is {value}, which its schema does not allow ({})", clip(&kind.to_string()))
            }
        }
    }
}

fn join(own: &str, member: &str) -> String {
    let member = clip(member);
    if own.is_empty() { member } else { format!("{own}.{member}") }
}

/// The types that schemas ask for; none when they ask for none.
fn types(schemas: &Applied<'_>) -> Option<String> {
    let words: Vec<&str> = schemas.types().iter().filter_map(|kind| word_of(kind)).collect();
    (!words.is_empty()).then(|| words.join(" or "))
}

fn word(kind: Type) -> &'static str {
    match kind {
        Type::Null => "null",
        Type::Boolean => "a boolean",
        Type::Number => "a number",
        Type::Integer => "an integer",
        Type::String => "a string",
        Type::Array => "an array",
        Type::Object => "an object",
    }
}

fn word_of(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "null" => "null",
        "boolean" => "a boolean",
        "number" => "a number",
        "integer" => "an integer",
        "string" => "a string",
        "array" => "an array",
        "object" => "an object",
        _ => return None,
    })
}

/// A value as JSON, not more than a line.
fn excerpt(value: &Value) -> String {
    clip(&value.to_string())
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Whether a number is a multiple of another, without rounding. True as well where it can't be computed.
fn is_multiple(number: &Number, of: &Number) -> bool {
    let parts = |number: &Number| {
        let (_, digits, power) = decimal(&number.to_string())?;
        Some((if digits.is_empty() { 0 } else { digits.parse::<i128>().ok()? }, power))
    };
    let (Some((one, power)), Some((other, other_power))) = (parts(number), parts(of)) else { return true };
    let least = power.min(other_power);
    let scaled = |digits: i128, power: i64| {
        let ten = 10_i128.checked_pow(u32::try_from(power.checked_sub(least)?).ok()?)?;
        digits.checked_mul(ten)
    };
    match (scaled(one, power), scaled(other, other_power)) {
        (Some(one), Some(other)) => one.checked_rem(other) == Some(0),
        _ => true,
    }
}
