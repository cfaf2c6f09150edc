//! Templates: `${NAME}` in the configuration files of the parts.
//!
//! One form, one function. A name without a value is an error, and so is a value that could not stand in
//! a configuration line (control characters): a wrong file must be found here, not by the part that reads it.

use std::collections::BTreeMap;
use std::path::Path;

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
                        .mend("correct the name in the template, or give it a value in cli/src/parts")
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

/// Renders the file `template` into the file `target` (mode 600: rendered files carry secrets).
///
/// # Errors
/// As [`render`], and when a file cannot be read or written.
pub fn render_file(template: &Path, target: &Path, values: &Values) -> Result<()> {
    let size = std::fs::metadata(template).map_err(|e| Problem::io("read", template, &e))?.len();
    if size > MAX_TEMPLATE {
        return Err(Problem::new(format!("{} is larger than {MAX_TEMPLATE} bytes", template.display())));
    }
    let text = std::fs::read_to_string(template).map_err(|e| Problem::io("read", template, &e))?;
    let rendered = render(&text, values)
        .map_err(|p| Problem { what: format!("{}: {}", template.display(), p.what), ..p })?;
    crate::paths::write_private(target, rendered.as_bytes())
}

fn is_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn names_are_replaced_and_other_dollars_stay() {
        let text = "port=${PORT} scope=${profileScopeConsentText} cost=$5 ${ ${PORT}${NAME}";
        let done = render(text, &values(&[("PORT", "80"), ("NAME", "a")])).unwrap();
        assert_eq!(done, "port=80 scope=${profileScopeConsentText} cost=$5 ${ 80a");
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let problem = render("x ${NOPE}", &values(&[])).unwrap_err();
        assert!(problem.what.contains("${NOPE}"));
    }

    #[test]
    fn a_value_is_not_rendered_again() {
        assert_eq!(render("${A}", &values(&[("A", "${B}"), ("B", "x")])).unwrap(), "${B}");
    }

    #[test]
    fn control_characters_are_refused() {
        assert!(render("${A}", &values(&[("A", "x\r")])).is_err());
    }
}
