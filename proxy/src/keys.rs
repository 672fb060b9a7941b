//! Who may call over coaps: identities, their keys, and what each was granted.
//!
//! ```text
//!   file ── open and read: nobody's but its owner's ──▶ text ── parse ──▶ Keys, for the door
//!     ▲                                                  │
//!     └──── written beside it, then renamed ◀── Editor ◀─┘   for `sandbar key`
//! ```
//!
//! The file is TOML:
//!
//! ```toml
//! [identities.porch-sensor]
//! key = "SBs0rJiwRbCRLbGzbKoRIiUBB1n2oXQa"    # a text of 16 to 64 bytes; or key_hex = "00ff…"
//! grants = ["thermostat", "gallery/thumbnail"]   # an application, one function of one, or "*" for all
//! ```
//!
//! Keys are compared by the handshake alone, and shown nowhere: what holds one has no `Debug` that prints it.

mod edit;
mod file;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use sandbar_runtime::manifest::Name;
use serde::Deserialize;

pub use self::edit::Editor;

/// The longest identity, in bytes (RFC 4279, section 5.3).
const IDENTITY_BYTES_MAX: usize = 128;
/// Shorter keys could be guessed; longer ones not every device can have (RFC 4279, section 5.3).
const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=64;
/// Grants of one identity: one that needs more is better served by fewer, wider ones.
const GRANTS_MAX: usize = 256;

/// Why keys cannot be had, or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read or written.
    #[error("cannot {action} the key file {}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Others could read or change the file.
    #[error("the key file {} {why}", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// How, and what to do about it.
        why: String,
    },
    /// It is not TOML of the form that is asked for.
    #[error("the key file is not as it should be: {0}")]
    Format(String),
    /// An identity's entry breaks a rule.
    #[error("identity {identity:?}: {why}")]
    Identity {
        /// Whose entry.
        identity: String,
        /// Which rule.
        why: String,
    },
    /// There is no randomness to be had.
    #[error("the system gave no random bytes for a key")]
    Random,
}

/// What an identity may call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Grant {
    /// Whatever is deployed.
    Everything,
    /// All functions of an application, and the application itself.
    Application(Name),
    /// One function, by its own path.
    Function(Name, Name),
}

impl Grant {
    /// Whether it covers a call of this application, or of this function of it.
    #[must_use]
    pub fn covers(&self, application: &str, function: Option<&str>) -> bool {
        match self {
            Self::Everything => true,
            Self::Application(granted) => granted.as_str() == application,
            Self::Function(granted, only) => granted.as_str() == application && function == Some(only.as_str()),
        }
    }
}

impl FromStr for Grant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Everything);
        }
        let name = |part: &str| {
            Name::new(part).map_err(|error| format!("a grant is APP, APP/FUNCTION or \"*\", not {text:?}: {error}"))
        };
        Ok(match text.split_once('/') {
            None => Self::Application(name(text)?),
            Some((application, function)) => Self::Function(name(application)?, name(function)?),
        })
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("*"),
            Self::Application(application) => write!(f, "{application}"),
            Self::Function(application, function) => write!(f, "{application}/{function}"),
        }
    }
}

/// One who may open a session.
pub struct Identity {
    name: String,
    key: Box<[u8]>,
    grants: Vec<Grant>,
}

impl Identity {
    /// The name it shows in the handshake.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it may call.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The secret it proves to have.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Whether it may call this application, or this function of it.
    #[must_use]
    pub fn may_call(&self, application: &str, function: Option<&str>) -> bool {
        self.grants.iter().any(|grant| grant.covers(application, function))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("name", &self.name).field("grants", &self.grants).finish_non_exhaustive()
    }
}

/// All identities of a host.
#[derive(Debug, Default)]
pub struct Keys {
    identities: HashMap<Box<[u8]>, Arc<Identity>>,
}

impl Keys {
    /// Reads a key file.
    ///
    /// # Errors
    /// It cannot be read, others could read it too, or it breaks a rule of its form.
    pub fn read(path: &std::path::Path) -> Result<Self, KeysError> {
        Self::parse(&file::read(path)?)
    }

    /// Reads the text of a key file.
    ///
    /// # Errors
    /// It breaks a rule of its form.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        // What the parser shows of the text it does not understand may be a key.
        let plain: Plain = toml::from_str(text).map_err(|error| KeysError::Format(told(&error, text)))?;
        let mut identities = HashMap::new();
        for (name, entry) in plain.identities {
            let identity = entry.checked(&name).map_err(|why| KeysError::Identity { identity: name, why })?;
            identities.insert(identity.name.as_bytes().into(), Arc::new(identity));
        }
        Ok(Self { identities })
    }

    /// The identity of that name.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Identity>> {
        self.identities.get(name)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.identities.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty()
    }

    /// All identities, by name.
    #[must_use]
    pub fn identities(&self) -> Vec<&Identity> {
        let mut all: Vec<&Identity> = self.identities.values().map(AsRef::as_ref).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

/// The file as it was written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    #[serde(default)]
    identities: std::collections::BTreeMap<String, PlainIdentity>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainIdentity {
    key: Option<String>,
    key_hex: Option<String>,
    #[serde(default)]
    grants: Vec<String>,
}

impl PlainIdentity {
    fn checked(self, name: &str) -> Result<Identity, String> {
        check_identity(name)?;
        let key = match (self.key, self.key_hex) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(hex)) => from_hex(&hex).ok_or("key_hex is not pairs of hexadecimal digits")?,
            (None, None) => return Err("it has neither key nor key_hex".to_owned()),
            (Some(_), Some(_)) => return Err("it has both key and key_hex".to_owned()),
        };
        if !KEY_BYTES.contains(&key.len()) {
            let (least, most, found) = (KEY_BYTES.start(), KEY_BYTES.end(), key.len());
            return Err(format!("its key has {found} bytes; a key has {least} to {most}"));
        }
        if self.grants.len() > GRANTS_MAX {
            return Err(format!("it has more than {GRANTS_MAX} grants"));
        }
        let grants = self.grants.iter().map(|grant| grant.parse()).collect::<Result<_, _>>()?;
        Ok(Identity { name: name.to_owned(), key: key.into(), grants })
    }
}

/// The rules for an identity's name.
fn check_identity(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > IDENTITY_BYTES_MAX {
        return Err(format!("an identity has 1 to {IDENTITY_BYTES_MAX} bytes"));
    }
    if name.chars().any(char::is_control) {
        return Err("an identity has no control characters".to_owned());
    }
    Ok(())
}

/// Bytes that were written as two hexadecimal digits each; `None` if these are not.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

/// A parser's error with its line, and without the line's text.
fn told(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    match line {
        Some(line) => format!("line {line}: {}", error.message()),
        None => error.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENSOR: &str =
        "[identities.sensor]\nkey = \"0123456789abcdef\"\ngrants = [\"thermostat\", \"gallery/thumbnail\"]\n";

    #[test]
    fn identities_have_keys_and_grants() {
        let keys = Keys::parse(SENSOR).unwrap();
        let sensor = keys.get(b"sensor").unwrap();
        assert_eq!(sensor.key(), b"0123456789abcdef");
        assert!(sensor.may_call("thermostat", None));
        assert!(sensor.may_call("thermostat", Some("any")));
        assert!(sensor.may_call("gallery", Some("thumbnail")));
        assert!(!sensor.may_call("gallery", Some("other")));
        assert!(!sensor.may_call("gallery", None), "a function's grant is not its application's");
        assert!(!sensor.may_call("chain", None));
        assert!(keys.get(b"other").is_none());
        assert!(!format!("{keys:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn keys_may_be_hexadecimal_and_grants_everything() {
        let text = "[identities.\"café 1\"]\nkey_hex = \"000102030405060708090a0b0c0d0e0F\"\ngrants = [\"*\"]\n";
        let keys = Keys::parse(text).unwrap();
        let identity = keys.get("café 1".as_bytes()).unwrap();
        assert_eq!(identity.key(), (0..16).collect::<Vec<u8>>());
        assert!(identity.may_call("anything", Some("at-all")));
    }

    #[test]
    fn what_breaks_a_rule_is_refused_and_shows_no_key() {
        let entry = |body: &str| format!("[identities.x]\n{body}\n");
        for (text, part) in [
            (entry("key = \"tooshort\""), "8 bytes"),
            (entry(&format!("key = \"{}\"", "k".repeat(65))), "65 bytes"),
            (entry("grants = []"), "neither"),
            (entry("key = \"0123456789abcdef\"\nkey_hex = \"00\""), "both"),
            (entry("key_hex = \"0g\""), "hexadecimal"),
            (entry("key_hex = \"000\""), "hexadecimal"),
            (entry("key = \"0123456789abcdef\"\ngrants = [\"Bad\"]"), "grant is APP"),
            (entry("key = \"0123456789abcdef\"\ngrants = [\"a/b/c\"]"), "grant is APP"),
            (entry("key = \"0123456789abcdef\"\nrole = \"x\""), "unknown field `role`"),
            (entry("key = \"0123456789abcdef"), "line 2"),
            ("[identities.\"\"]\nkey = \"0123456789abcdef\"\n".to_owned(), "1 to 128"),
            ("[identities.\"a\\nb\"]\nkey = \"0123456789abcdef\"\n".to_owned(), "control"),
            ("[keys]\n".to_owned(), "unknown field `keys`"),
        ] {
            let error = Keys::parse(&text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("0123456789abcdef"), "{error}");
        }
    }

    #[test]
    fn no_file_is_no_identities_but_an_empty_one_is() {
        assert!(Keys::parse("").unwrap().is_empty());
        assert!(Keys::read(std::path::Path::new("/nonexistent/keys.toml")).is_err());
    }
}
