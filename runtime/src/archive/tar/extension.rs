//! Extended headers of POSIX (PAX): records `LENGTH KEY=VALUE\n` that stand before an entry and say more of it.

use super::{PATH_BYTES_MAX, SIZE_MAX};

/// What we use of the records.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
}

impl Records {
    /// Reads all of an extended header.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, String> {
        let mut records = Self::default();
        while !bytes.is_empty() {
            let (record, rest) = split(bytes).ok_or("a record of an extended header is not as long as it says")?;
            let equals = record.iter().position(|byte| *byte == b'=');
            let (key, value) = record.split_at(equals.ok_or("a record of an extended header has no `=`")?);
            records.take(key, &value[1..])?;
            bytes = rest;
        }
        Ok(records)
    }

    /// Whether there is nothing that we would use.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let twice = match key {
            b"path" => self.path.replace(text(value, "path")?).is_some(),
            b"linkpath" => self.link.replace(text(value, "link's target")?).is_some(),
            b"size" => self.size.replace(number(value)?).is_some(),
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err("an extended header is that of a sparse file, which is not supported".to_owned());
            }
            // Times, users, comments, attributes: we take none of them over.
            _ => false,
        };
        if twice { Err("an extended header says the same thing twice".to_owned()) } else { Ok(()) }
    }
}

/// The first record without its length and line end, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let digits = std::str::from_utf8(&bytes[..space]).ok().filter(|text| is_number(text))?;
    let length: usize = digits.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    Some((record, rest))
}

/// A text that readers in C see whole. An empty one would mean that the header's own is not to be used either.
fn text(value: &[u8], what: &str) -> Result<Vec<u8>, String> {
    if value.is_empty() || value.contains(&0) {
        return Err(format!("a {what} in an extended header is empty or has a NUL in it"));
    }
    if value.len() > PATH_BYTES_MAX {
        return Err(format!("a {what} in an extended header is longer than {PATH_BYTES_MAX} bytes"));
    }
    Ok(value.to_vec())
}

fn number(value: &[u8]) -> Result<u64, String> {
    let text = std::str::from_utf8(value).ok().filter(|text| is_number(text));
    let number = text.and_then(|text| text.parse().ok()).filter(|size| *size <= SIZE_MAX);
    number.ok_or_else(|| "a size in an extended header is no number that a file's size could be".to_owned())
}

/// Whether these are digits alone: what is parsed as a number may otherwise have a sign.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
