//! Paths and queries as functions see them: as in a URI, percent-encoded, whatever the protocol calls its parts (RFC 7252, 6.4 and 6.5).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What is encoded in a segment of a path: all but `unreserved`, `sub-delims`, `:` and `@`.
const IN_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// What is encoded in a part of a query: the same, but `&`, which stands between parts, and not `/` and `?`.
const IN_QUERY: &AsciiSet = &IN_SEGMENT.add(b'&').remove(b'/').remove(b'?');

/// Segments of a path, with slashes between.
pub(crate) fn path<S: AsRef<str>>(segments: &[S]) -> String {
    joined(segments, '/', IN_SEGMENT)
}

/// Parts of a query, with `&` between.
pub(crate) fn query<S: AsRef<str>>(parts: &[S]) -> String {
    joined(parts, '&', IN_QUERY)
}

fn joined<S: AsRef<str>>(parts: &[S], between: char, encoded: &'static AsciiSet) -> String {
    let mut joined = String::new();
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            joined.push(between);
        }
        joined.extend(utf8_percent_encode(part.as_ref(), encoded));
    }
    joined
}

/// Where something is to be found on this host, in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) path: Vec<Vec<u8>>,
    pub(crate) query: Vec<Vec<u8>>,
}

impl Location {
    /// Bytes of a part, at most: as the options Location-Path and Location-Query hold.
    const PART_BYTES_MAX: usize = 255;

    /// Reads a path and a query, if there is one. `None` if a part is longer than a part may be, or there is nothing.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
        let decoded = |part: &str| percent_decode_str(part).collect::<Vec<u8>>();
        let path = path.strip_prefix('/').unwrap_or(path);
        let segments = (!path.is_empty()).then(|| path.split('/').map(decoded).collect());
        let parts = query.map(|query| query.split('&').map(decoded).collect());
        let read = Self { path: segments.unwrap_or_default(), query: parts.unwrap_or_default() };
        let fits = read.path.iter().chain(&read.query).all(|part| part.len() <= Self::PART_BYTES_MAX);
        (fits && read != Self::default()).then_some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_as_in_a_uri() {
        assert_eq!(path(&["living room", "lamp/1", "ä", "a&b=c"]), "living%20room/lamp%2F1/%C3%A4/a&b=c");
        assert_eq!(path::<&str>(&[]), "");
        assert_eq!(path(&["", ""]), "/");
        assert_eq!(query(&["a=1", "b=x&y", "c=/?"]), "a=1&b=x%26y&c=/?");
    }

    #[test]
    fn a_location_is_read_in_parts() {
        let read = Location::read("/lamps/a%2Fb?x=1&y=%26").unwrap();
        assert_eq!(read.path, [b"lamps".to_vec(), b"a/b".to_vec()]);
        assert_eq!(read.query, [b"x=1".to_vec(), b"y=&".to_vec()]);
        assert_eq!(Location::read("one"), Location::read("/one"));
        assert_eq!(Location::read(""), None);
        assert_eq!(Location::read(&"x".repeat(256)), None);
    }
}
