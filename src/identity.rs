//! Who the command is where it calls over coaps: an identity and its key, out of a key file. A key is never an argument, which everybody
//! on the host could read.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use sandbar_proxy::client::Credentials;
use sandbar_proxy::keys::{Identity, Keys};

use crate::failure::Failure;
use crate::secure::KEY_FILE;

/// What commands that call are told of coaps.
#[derive(Debug, Args)]
pub(crate) struct IdentityArguments {
    /// With coaps://, who to be: an identity of the key file; may be left out if there is one alone
    #[arg(long, value_name = "IDENTITY")]
    psk_identity: Option<String>,
    /// With coaps://, where the identity's key is: a file as `sandbar key` writes it; a device's needs that identity alone
    #[arg(long, value_name = "FILE", env = "SANDBAR_PSK_FILE", default_value = KEY_FILE)]
    psk_file: PathBuf,
}

impl IdentityArguments {
    /// Reads the key file. For a target that is not spoken to over coaps there is nothing to prove, and nothing is read.
    pub(crate) fn for_target(&self, over_coaps: bool) -> Result<Option<Arc<Credentials>>, Failure> {
        if over_coaps {
            let keys = Keys::read(&self.psk_file)?;
            return Ok(Some(Arc::new(Credentials::new(self.choose(&keys)?)?)));
        }
        match self.psk_identity {
            Some(_) => Err(Failure::Arguments("--psk-identity is for coaps:// targets".to_owned())),
            None => Ok(None),
        }
    }

    fn choose<'a>(&self, keys: &'a Keys) -> Result<&'a Identity, Failure> {
        let file = self.psk_file.display();
        match (&self.psk_identity, &keys.identities()[..]) {
            (Some(name), _) => {
                let none = || Failure::NoSuchIdentity { identity: name.clone(), file: self.psk_file.clone() };
                keys.get(name.as_bytes()).map(AsRef::as_ref).ok_or_else(none)
            }
            (None, [alone]) => Ok(alone),
            (None, []) => Err(Failure::Arguments(format!("there is no identity in {file}"))),
            (None, several) => {
                let number = several.len();
                Err(Failure::Arguments(format!("--psk-identity says which of the {number} identities in {file} to be")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn chosen(identity: Option<&str>, names: &[&str]) -> Result<String, Exit> {
        let entry = |name: &&str| format!("[identities.{name}]\nkey = \"0123456789abcdef\"\n");
        let keys = Keys::parse(&names.iter().map(entry).collect::<String>()).unwrap();
        let arguments = IdentityArguments { psk_identity: identity.map(str::to_owned), psk_file: "f".into() };
        arguments.choose(&keys).map(|identity| identity.name().to_owned()).map_err(|failure| failure.exit())
    }

    #[test]
    fn who_is_alone_need_not_be_named() {
        assert_eq!(chosen(None, &["a"]), Ok("a".to_owned()));
        assert_eq!(chosen(Some("b"), &["a", "b"]), Ok("b".to_owned()));
        assert_eq!(chosen(None, &["a", "b"]), Err(Exit::Usage));
        assert_eq!(chosen(None, &[]), Err(Exit::Usage));
        assert_eq!(chosen(Some("c"), &["a", "b"]), Err(Exit::NotFound));
    }

    #[test]
    fn an_identity_is_for_coaps_alone() {
        let arguments = IdentityArguments { psk_identity: Some("a".to_owned()), psk_file: "/nonexistent/keys".into() };
        assert_eq!(arguments.for_target(false).unwrap_err().exit(), Exit::Usage);
        assert!(matches!(arguments.for_target(true), Err(Failure::Keys(_))));
        let nobody = IdentityArguments { psk_identity: None, ..arguments };
        assert!(nobody.for_target(false).unwrap().is_none(), "no file is needed");
    }
}
