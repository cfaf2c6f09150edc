//! Request headers as Kong's wasm host keeps them: with ways of its own.

use http::{HeaderMap, HeaderName, HeaderValue};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    name: String,
    value: Vec<u8>,
    /// A filter removed it: the filter no longer sees it, the upstream still gets it.
    removed: bool,
}

/// The header lines of a request, in order. Names are compared without regard to case; `_` and `-` differ.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    lines: Vec<Line>,
}

impl Headers {
    /// Those of a request as it arrived.
    pub fn from_map(map: &HeaderMap) -> Self {
        let line = |(n, v): (&HeaderName, &HeaderValue)| Line {
            name: n.as_str().to_owned(),
            value: v.as_bytes().to_vec(),
            removed: false,
        };
        Self { lines: map.iter().map(line).collect() }
    }

    /// Those that the upstream gets. Lines that HTTP does not allow are left out.
    pub fn to_map(&self) -> HeaderMap {
        let pair = |l: &Line| {
            Some((HeaderName::from_bytes(l.name.as_bytes()).ok()?, HeaderValue::from_bytes(&l.value).ok()?))
        };
        let mut map = HeaderMap::new();
        for (name, value) in self.lines.iter().filter_map(pair) {
            map.append(name, value);
        }
        map
    }

    /// What a filter sees: names and values in order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.lines.iter().filter(|l| !l.removed).map(|l| (l.name.as_str(), l.value.as_slice()))
    }

    /// The first value of `name` that a filter sees.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.pairs().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    /// How many lines have this name, seen by a filter or not.
    pub fn count(&self, name: &str) -> usize {
        self.lines.iter().filter(|l| l.name.eq_ignore_ascii_case(name)).count()
    }

    /// A filter's "replace": the first of duplicates gets the value, the others stay.
    pub fn replace(&mut self, name: &str, value: &[u8]) {
        match self.lines.iter_mut().find(|l| !l.removed && l.name.eq_ignore_ascii_case(name)) {
            Some(line) => line.value = value.to_vec(),
            None => self.add(name, value),
        }
    }

    /// A filter's "add".
    pub fn add(&mut self, name: &str, value: &[u8]) {
        self.lines.push(Line { name: name.to_owned(), value: value.to_vec(), removed: false });
    }

    /// A filter's "remove": it takes effect for the filter alone.
    pub fn remove(&mut self, name: &str) {
        for line in self.lines.iter_mut().filter(|l| l.name.eq_ignore_ascii_case(name)) {
            line.removed = true;
        }
    }

    /// The removal of a Lua plugin, which works; but it looks at the first `limit` lines alone.
    pub fn remove_by_plugin(&mut self, name: &str, limit: usize) {
        if self.lines.iter().take(limit).any(|l| l.name.eq_ignore_ascii_case(name)) {
            self.lines.retain(|l| !l.name.eq_ignore_ascii_case(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        lines.iter().for_each(|(n, v)| headers.add(n, v.as_bytes()));
        headers
    }

    fn sent(headers: &Headers, name: &str) -> Vec<String> {
        headers.to_map().get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_removed_header_still_reaches_the_upstream() {
        let mut h = headers(&[("X-Userinfo", "forged")]);
        h.remove("x-userinfo");
        assert_eq!(h.get("x-userinfo"), None);
        assert_eq!(sent(&h, "x-userinfo"), ["forged"]);
        h.replace("x-userinfo", b"real");
        assert_eq!(sent(&h, "x-userinfo"), ["forged", "real"]);
        assert_eq!(h.get("x-userinfo"), Some(&b"real"[..]));
    }

    #[test]
    fn replacing_changes_the_first_of_duplicates() {
        let mut h = headers(&[("a", "1"), ("A", "2")]);
        h.replace("a", b"3");
        assert_eq!(sent(&h, "a"), ["3", "2"]);
        h.replace("b", b"4");
        assert_eq!(sent(&h, "b"), ["4"]);
    }

    #[test]
    fn a_plugin_removes_but_looks_only_so_far() {
        let mut h = headers(&[("x_userinfo", "1"), ("x-userinfo", "2"), ("a", "3"), ("x-userinfo", "4")]);
        h.remove_by_plugin("X-Userinfo", 1);
        assert_eq!(h.count("x-userinfo"), 2);
        h.remove_by_plugin("X-Userinfo", 2);
        assert_eq!((h.count("x-userinfo"), h.count("x_userinfo")), (0, 1));
    }
}
