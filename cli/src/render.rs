//! Templates: `${NAME}` in the configuration files of the parts.
//!
//! One form, one function. A name without a value is an error, and so is a value that could not stand in
//! a configuration line (control characters): a wrong file must be found here, not by the part that reads it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::paths::{read_text, write_private};
use crate::problem::{Problem, Result};

/// Names and their values.
pub type Values = BTreeMap<String, String>;

/// Largest template that is read, in bytes.
const MAX_TEMPLATE: u64 = 1 << 20;

/// Replaces each `${NAME}` (`A-Z`, `0-9`, `_`) by its value. Any other `${…}` stays as it is, because the
/// files of Keycloak and nginx use that form themselves (in lower case).
///
/// # Errors
/// A placeholder without a value, or a value with a control character in it.
pub fn render(template: &str, values: &Values) -> Result<String> {
    let mut out = String::with_capacity(template.len() + 256);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        match after.split_once('}') {
            Some((name, tail)) if is_name(name) => {
                let value = values.get(name).ok_or_else(|| {
                    Problem::new(format!("the template names ${{{name}}}, which has no value"))
                        .hint("correct the name in the template, or give it a value in cli/src/parts")
                })?;
                if value.chars().any(|c| c.is_control() && c != '\n') {
                    return Err(Problem::new(format!("the value of ${{{name}}} has a control character")));
                }
                out.push_str(value);
                rest = tail;
            }
            _ => {
                out.push_str("${");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Names with their values.
pub fn values<const N: usize>(pairs: [(&str, String); N]) -> Values {
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Renders the file `template`.
///
/// # Errors
/// As [`render`], with the template's name, and when it cannot be read.
pub fn render_template(template: &Path, values: &Values) -> Result<String> {
    let text = read_text(template, MAX_TEMPLATE)?;
    render(&text, values).map_err(|p| Problem { what: format!("{}: {}", template.display(), p.what), ..p })
}

/// Renders the file `template` into the file `target` (mode 600: rendered files carry secrets).
///
/// # Errors
/// As [`render_template`], and when the target cannot be written.
pub fn render_file(template: &Path, target: &Path, values: &Values) -> Result<()> {
    write_private(target, render_template(template, values)?.as_bytes())
}

fn is_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_and_other_dollars_stay() {
        let text = "port=${PORT} scope=${profileScopeConsentText} cost=$5 ${ ${PORT}${NAME}";
        let done = render(text, &values([("PORT", "80".to_owned()), ("NAME", "a".to_owned())])).unwrap();
        assert_eq!(done, "port=80 scope=${profileScopeConsentText} cost=$5 ${ 80a");
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let problem = render("x ${NOPE}", &values([])).unwrap_err();
        assert!(problem.what.contains("${NOPE}"));
    }

    #[test]
    fn a_value_is_not_rendered_again() {
        assert_eq!(
            render("${A}", &values([("A", "${B}".to_owned()), ("B", "x".to_owned())])).unwrap(),
            "${B}"
        );
    }

    #[test]
    fn control_characters_are_refused() {
        assert!(render("${A}", &values([("A", "x\r".to_owned())])).is_err());
    }
}
