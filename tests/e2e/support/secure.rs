//! A host with a secure door, and who has a key for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::clients::{self, Got};
use super::host::Host;
use super::{PATIENCE, program, until};

/// A host with a secure door, and a key file of its own.
#[derive(Debug)]
pub(crate) struct Secure {
    pub(crate) host: Host,
    folder: TempDir,
}

impl Secure {
    pub(crate) fn start(more: &[&str]) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("sandbar-keys-").tempdir().unwrap();
        let file = folder.path().join("keys.toml");
        key(&file, &["new", "somebody"]);
        let mut arguments = vec!["--coaps", "127.0.0.1:0", "--psk-file", file.to_str().unwrap()];
        arguments.extend(more);
        let host = Host::start_with(&arguments)?;
        Some(Self { host, folder })
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("keys.toml")
    }

    /// A new identity, which the agent knows from now on.
    pub(crate) fn enroll(&self, identity: &str, grants: &[&str]) -> String {
        let known = self.reads();
        let mut arguments = vec!["new", identity];
        arguments.extend(grants.iter().flat_map(|grant| ["--grant", grant]));
        let made = key(&self.file(), &arguments);
        self.hang_up(known);
        made
    }

    pub(crate) fn remove(&self, identity: &str) {
        let known = self.reads();
        key(&self.file(), &["remove", identity]);
        self.hang_up(known);
    }

    pub(crate) fn reads(&self) -> usize {
        self.host.agent_log().matches("keys read").count()
    }

    pub(crate) fn hang_up(&self, reads_before: usize) {
        kill(Pid::from_raw(self.host.agent().pid.cast_signed()), Signal::SIGHUP).unwrap();
        until("the agent has read its keys", || (self.reads() > reads_before).then_some(()));
    }

    /// The secure door, as the management service tells of it.
    fn door(&self) -> Value {
        let status = self.host.manage("GET", "/v1/host", b"").json();
        status["doors"].as_array().unwrap().iter().find(|door| door["protocol"] == "coaps").unwrap().clone()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.door()["address"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn count(&self, counter: &str) -> u64 {
        self.door()["counters"][counter].as_u64().unwrap()
    }

    pub(crate) fn uri(&self, path: &str) -> String {
        format!("coaps://{}/{path}", self.address())
    }

    /// What one of libcoap's clients gets.
    pub(crate) fn get(&self, client: &Path, identity: &str, key: &str, path: &str, more: &[&str]) -> Got {
        let mut client = Command::new(client);
        client.args(["-u", identity, "-k", key]).args(more);
        clients::got(&mut client, self.host.folder(), &self.uri(path))
    }

    /// What such a client says when there is no session, and so no answer.
    pub(crate) fn refused(&self, client: &Path, identity: &str, key: &str) -> String {
        let mut client = Command::new(client);
        client.args(["-u", identity, "-k", key, "-B", "3", "-m", "post", "-e", "x"]).arg(self.uri("echo"));
        let finished = program::run(&mut client, PATIENCE);
        (finished.text() + &finished.stderr).to_lowercase()
    }
}

/// Runs `sandbar key`, and gives what it prints.
#[track_caller]
pub(crate) fn key(file: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbar"));
    command.arg("key").args(arguments).arg("--psk-file").arg(file);
    program::run(&mut command, PATIENCE).well().text().trim().to_owned()
}
