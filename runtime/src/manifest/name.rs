//! Names of applications and functions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes: what a host name's label may have, as names are to be parts of host names one day.
const NAME_BYTES_MAX: usize = 63;

/// The name of an application or a function: `^[a-z0-9][a-z0-9-]{0,62}$`. Safe as a file's name, as a control group's
/// name and as a segment of a URI's path, without any quoting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A text is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a name: names are 1 to 63 of `a` to `z`, `0` to `9` and `-`, with a letter or digit first")]
pub struct NameError {
    /// What was given, with control characters escaped.
    pub text: String,
}

impl Name {
    /// Checks that the text is a name.
    ///
    /// # Errors
    /// It is not.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let legal = text.len() <= NAME_BYTES_MAX
            && text.bytes().next().is_some_and(plain)
            && text.bytes().all(|byte| plain(byte) || byte == b'-');
        if legal { Ok(Self(text.to_owned())) } else { Err(NameError { text: text.escape_debug().collect() }) }
    }

    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn names_are_what_the_pattern_says() {
        for good in ["a", "0", "thermostat", "a-", "2-b", &"x".repeat(63)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "A", "a_b", "a.b", "a/b", "..", "é", "a b", "a\n", "a\0", &"x".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_refused_name_is_shown_on_one_line() {
        assert!(!Name::new("a\nb").unwrap_err().to_string().contains('\n'));
    }
}
