//! Changes to a key file that keep the rest of it as it was written, comments included.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::fcntl::Flock;
use toml_edit::{Array, DocumentMut, Item, Table, value};

use super::{Grant, Keys, KeysError, check_identity, file};

/// What a new file begins with.
const HEAD: &str = "\
# Who may call this host's functions over coaps, and with which key. Readable by root alone.
#
#   [identities.NAME]
#   key = \"TEXT\"            # 16 to 64 bytes of text, or: key_hex = \"HEXADECIMAL DIGITS\"
#   grants = [\"APP\", \"APP/FUNCTION\"]    # what it may call; \"*\" is everything
#
# `sandbar key` changes this file and keeps comments. The host agent reads it again on SIGHUP.

";

/// Characters of a new key: 32 of these hold 190 random bits, and can be typed anywhere.
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// How many of them.
const KEY_CHARACTERS: usize = 32;

/// A key file that is being changed; nobody else changes it meanwhile.
#[derive(Debug)]
pub struct Editor {
    path: PathBuf,
    /// The comment that the file begins with: it is no identity's, and stays when the first one goes.
    head: String,
    document: DocumentMut,
    _lock: Flock<File>,
}

impl Editor {
    /// Opens a key file, or begins one where there is none.
    ///
    /// # Errors
    /// As [`Keys::read`], or it cannot be locked.
    pub fn open(path: &Path) -> Result<Self, KeysError> {
        let lock = file::lock(path)?;
        let text = match file::read(path) {
            Err(KeysError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => HEAD.to_owned(),
            read => read?,
        };
        Keys::parse(&text)?;
        let (head, rest) = text.split_at(head_bytes(&text));
        let document = rest.parse::<DocumentMut>().map_err(|error| KeysError::Format(error.message().to_owned()))?;
        Ok(Self { path: path.to_owned(), head: head.to_owned(), document, _lock: lock })
    }

    /// Gives an identity a new key, and these grants. Returns the key.
    ///
    /// # Errors
    /// The identity is there already and is not to be replaced, or its name breaks a rule.
    pub fn add(&mut self, identity: &str, grants: &[Grant], replace: bool) -> Result<String, KeysError> {
        let refused = |why: String| KeysError::Identity { identity: identity.to_owned(), why };
        check_identity(identity).map_err(refused)?;
        let identities = self.identities()?;
        if identities.contains_key(identity) && !replace {
            let why = "it has a key already; --replace gives it another".to_owned();
            return Err(KeysError::Identity { identity: identity.to_owned(), why });
        }
        let key = new_key()?;
        let mut granted = Array::new();
        granted.extend(grants.iter().map(ToString::to_string));
        let mut entry = Table::new();
        entry.insert("key", value(key.as_str()));
        entry.insert("grants", value(granted));
        identities.insert(identity, Item::Table(entry));
        Ok(key)
    }

    /// Takes an identity out; tells whether it was there.
    ///
    /// # Errors
    /// The file has no table of identities where one should be.
    pub fn remove(&mut self, identity: &str) -> Result<bool, KeysError> {
        Ok(self.identities()?.remove(identity).is_some())
    }

    /// Writes the file, in one step.
    ///
    /// # Errors
    /// What would be written breaks a rule, or cannot be written.
    pub fn save(self) -> Result<(), KeysError> {
        let text = format!("{}{}", self.head, self.document);
        Keys::parse(&text)?;
        file::replace(&self.path, &text)
    }

    fn identities(&mut self) -> Result<&mut Table, KeysError> {
        let entry = self.document.entry("identities").or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        entry.as_table_mut().ok_or_else(|| {
            KeysError::Format("identities are to be tables of their own, [identities.NAME], to be changed".to_owned())
        })
    }
}

/// How much of a file is its own comment: all up to the last empty line before anything else.
fn head_bytes(text: &str) -> usize {
    let (mut at, mut head) = (0, 0);
    for line in text.split_inclusive('\n') {
        let content = line.trim();
        if !content.is_empty() && !content.starts_with('#') {
            return head;
        }
        at += line.len();
        if content.is_empty() {
            head = at;
        }
    }
    text.len()
}

fn new_key() -> Result<String, KeysError> {
    let mut key = String::with_capacity(KEY_CHARACTERS);
    while key.len() < KEY_CHARACTERS {
        let mut bytes = [0; KEY_CHARACTERS];
        getrandom::fill(&mut bytes).map_err(|_| KeysError::Random)?;
        // 248 is the largest multiple of 62 that a byte holds: each character is as likely as any other.
        let drawn = bytes.iter().filter(|byte| **byte < 248).map(|byte| usize::from(*byte) % ALPHABET.len());
        key.extend(drawn.filter_map(|at| ALPHABET.get(at)).map(|byte| char::from(*byte)));
    }
    key.truncate(KEY_CHARACTERS);
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_listed_and_removed_and_comments_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/keys.toml");
        let grants = ["thermostat".parse().unwrap(), "gallery/thumbnail".parse().unwrap()];
        let mut editor = Editor::open(&path).unwrap();
        let key = editor.add("porch sensor", &grants, false).unwrap();
        editor.save().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("# mine\n{text}")).unwrap();

        let keys = Keys::read(&path).unwrap();
        let sensor = keys.get(b"porch sensor").unwrap();
        assert_eq!((sensor.key(), sensor.grants()), (key.as_bytes(), &grants[..]));

        let mut editor = Editor::open(&path).unwrap();
        assert!(editor.add("porch sensor", &[], false).unwrap_err().to_string().contains("--replace"));
        let other = editor.add("porch sensor", &[Grant::Everything], true).unwrap();
        assert_ne!(other, key);
        editor.add("second", &[], false).unwrap();
        assert!(editor.remove("porch sensor").unwrap());
        assert!(!editor.remove("porch sensor").unwrap());
        editor.save().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# mine\n# Who may call"), "{text}");
        let keys = Keys::read(&path).unwrap();
        assert_eq!(keys.identities().iter().map(|identity| identity.name()).collect::<Vec<_>>(), ["second"]);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn the_last_identity_leaves_the_comments_and_the_next_follows_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        for name in ["one", "two"] {
            let mut editor = Editor::open(&path).unwrap();
            editor.add(name, &[], false).unwrap();
            editor.save().unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("# Who may call") && text.contains(&format!("[identities.{name}]")), "{text}");
            let mut editor = Editor::open(&path).unwrap();
            assert!(editor.remove(name).unwrap());
            editor.save().unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), HEAD);
        }
    }

    #[test]
    fn keys_are_long_enough_and_differ() {
        let keys: std::collections::BTreeSet<_> = (0..100).map(|_| new_key().unwrap()).collect();
        assert_eq!(keys.len(), 100);
        assert!(keys.iter().all(|key| key.len() == KEY_CHARACTERS && key.bytes().all(|byte| ALPHABET.contains(&byte))));
    }
}
