//! The `${NAME}` templates of `kong/`, filled in as `./asgard` and `./setup.sh` do.

use std::collections::BTreeMap;

/// A template names something that has no value.
#[derive(Debug, thiserror::Error)]
#[error("the template names ${{{0}}}, which has no value")]
pub struct UnknownName(pub String);

/// Replaces each `${NAME}` (capitals, digits, `_`) in `template` by its value; any other `${…}` stays.
///
/// # Errors
/// [`UnknownName`] when a name has no value.
pub fn render(template: &str, values: &BTreeMap<&str, String>) -> Result<String, UnknownName> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        match after.split_once('}') {
            Some((name, tail)) if is_name(name) => {
                out.push_str(values.get(name).ok_or_else(|| UnknownName(name.to_owned()))?);
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

fn is_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_and_leaves_the_rest() {
        let values = BTreeMap::from([("A_1", "x".to_owned())]);
        assert_eq!(render("${A_1}-$b-${lower}", &values).unwrap(), "x-$b-${lower}");
        assert!(render("${NOPE}", &values).is_err());
    }
}
