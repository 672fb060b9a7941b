//! `sandbar key`: the keys of those who may call over coaps.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sandbar_proxy::keys::{Editor, Grant, Keys};
use serde::Serialize;

use crate::failure::Failure;
use crate::output;
use crate::secure::KEY_FILE;

const EXAMPLES: &str = "\
Examples:
  sandbar key new porch-sensor --grant thermostat --grant gallery/thumbnail
  sandbar key list
  sandbar key remove porch-sensor
  systemctl kill --signal=HUP sandbar     # the agent takes the changes up";

/// Make, list and remove the keys of those who may call over coaps
///
/// Works on the key file alone, which it keeps readable by root alone and replaces in one step; comments in it stay. The
/// host agent reads the file when it starts, and on SIGHUP.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct KeyArguments {
    #[command(subcommand)]
    action: Action,
    /// The key file, as `sandbar serve` is told of it
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "SANDBAR_PSK_FILE",
        default_value = KEY_FILE
    )]
    psk_file: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key for an identity and print it; it is shown only now
    ///
    /// Examples:
    ///   sandbar key new porch-sensor --grant thermostat
    New {
        /// The name that the device shows
        #[arg(value_name = "IDENTITY")]
        identity: String,
        /// What it may call: APP, APP/FUNCTION or "*" for everything; may be given several times; nothing unless given
        #[arg(long = "grant", value_name = "GRANT")]
        grants: Vec<Grant>,
        /// Give an identity that has a key another, and these grants instead of its own
        #[arg(long)]
        replace: bool,
    },
    /// List identities and what they may call, without their keys
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Take an identity's key away
    Remove {
        /// The name that the device shows
        #[arg(value_name = "IDENTITY")]
        identity: String,
    },
}

/// One line of a list.
#[derive(Debug, Serialize)]
struct Listed {
    identity: String,
    grants: Vec<String>,
}

impl KeyArguments {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::New { identity, grants, replace } => {
                let mut editor = Editor::open(&self.psk_file)?;
                let key = editor.add(&identity, &grants, replace)?;
                editor.save()?;
                if grants.is_empty() {
                    output::note("it may call nothing: --replace with --grant APP, or edit the file");
                }
                output::line(&key)
            }
            Action::List { json } => {
                let keys = Keys::read(&self.psk_file)?;
                let listed: Vec<Listed> = keys.identities().into_iter().map(Listed::of).collect();
                if json { output::json(&listed) } else { listed.iter().try_for_each(Listed::print) }
            }
            Action::Remove { identity } => {
                let mut editor = Editor::open(&self.psk_file)?;
                if !editor.remove(&identity)? {
                    return Err(Failure::NoSuchIdentity { identity, file: self.psk_file });
                }
                editor.save()?;
                output::line(&format!("removed {identity}"))
            }
        }
    }
}

impl Listed {
    fn of(identity: &sandbar_proxy::keys::Identity) -> Self {
        let grants = identity.grants().iter().map(ToString::to_string).collect();
        Self { identity: identity.name().to_owned(), grants }
    }

    fn print(&self) -> Result<(), Failure> {
        let grants = if self.grants.is_empty() { output::NOTHING.to_owned() } else { self.grants.join(" ") };
        output::line(&format!("{}\t{grants}", self.identity))
    }
}
