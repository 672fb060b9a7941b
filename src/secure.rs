//! coaps, as `sandbar serve` is told of it: where, and with whose keys. The keys are read again on SIGHUP.

use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use sandbar_proxy::keys::Keys;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::failure::Failure;

/// The port of coaps (RFC 7252, section 6.2).
pub(crate) const COAPS_PORT: u16 = 5684;
/// Where keys are, unless it is said.
pub(crate) const KEY_FILE: &str = "/etc/sandbar/keys.toml";

/// What `sandbar serve` is told of coaps.
#[derive(Debug, Args)]
pub(crate) struct SecureArguments {
    /// Where to answer coaps, DTLS 1.2 with pre-shared keys; the port is 5684 unless given; may be given several times
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = coaps_address, requires = "psk_file")]
    pub(crate) coaps: Vec<SocketAddr>,
    /// The identities that may call over coaps, their keys and what each may call; readable by root alone
    ///
    /// `sandbar key new` begins one and adds to it. It is read again on SIGHUP: sessions of whoever is gone are closed.
    #[arg(long, value_name = "FILE")]
    pub(crate) psk_file: Option<PathBuf>,
}

fn coaps_address(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = text.parse().or_else(|_| bare.parse().map(|address: IpAddr| (address, COAPS_PORT).into()));
    address.map_err(|_| "give an address, such as 0.0.0.0, 0.0.0.0:5684 or [::]:5684".to_owned())
}

/// A key file and what was last read of it.
#[derive(Debug)]
pub(crate) struct KeyFile {
    path: PathBuf,
    keys: watch::Sender<Arc<Keys>>,
    reload: Signal,
}

impl KeyFile {
    /// Reads a key file for the first time.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let reload = signal(SignalKind::hangup()).map_err(Failure::System)?;
        let keys = Keys::read(path)?;
        told(&keys, path);
        Ok(Self { path: path.to_owned(), keys: watch::Sender::new(Arc::new(keys)), reload })
    }

    /// The keys, as they change.
    pub(crate) fn keys(&self) -> watch::Receiver<Arc<Keys>> {
        self.keys.subscribe()
    }

    /// Reads the file again on each SIGHUP, until `stop` completes. A file that cannot be used changes nothing.
    pub(crate) async fn keep_up(mut self, stop: impl Future<Output = ()>) {
        let follow = async {
            while self.reload.recv().await.is_some() {
                let path = self.path.clone();
                match tokio::task::spawn_blocking(move || Keys::read(&path)).await {
                    Ok(Ok(keys)) => {
                        let keys = Arc::new(keys);
                        self.keys.send_replace(Arc::clone(&keys));
                        told(&keys, &self.path);
                    }
                    Ok(Err(error)) => {
                        let why = crate::failure::chain(&error);
                        tracing::error!(why, "the keys are as before");
                    }
                    Err(error) => tracing::error!(%error, "the keys are as before"),
                }
            }
        };
        tokio::select! {
            () = follow => {}
            () = stop => {}
        }
    }
}

/// Takes SIGHUP where there is no key file, until `stop` completes: a service that is told to reload has nothing to reload, and must not
/// end. Who serves in a terminal ends with it, as programs do.
pub(crate) fn nothing_to_read_again(stop: impl Future<Output = ()>) -> Result<impl Future<Output = ()>, Failure> {
    let in_a_terminal = std::io::stdin().is_terminal();
    let reload = (!in_a_terminal).then(|| signal(SignalKind::hangup())).transpose().map_err(Failure::System)?;
    let told = async {
        if let Some(mut reload) = reload {
            while reload.recv().await.is_some() {
                tracing::info!("there is no key file to read again");
            }
        }
        std::future::pending::<()>().await;
    };
    Ok(async {
        tokio::select! {
            () = told => {}
            () = stop => {}
        }
    })
}

fn told(keys: &Keys, path: &Path) {
    tracing::info!(identities = keys.len(), file = %path.display(), "keys read");
    if keys.is_empty() {
        tracing::warn!("nobody can call over coaps: `sandbar key new` makes a key");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_or_that_of_coaps() {
        for (text, expected) in [
            ("0.0.0.0", "0.0.0.0:5684"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("::", "[::]:5684"),
            ("[::1]", "[::1]:5684"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(coaps_address(text).map(|address| address.to_string()), Ok(expected.to_owned()));
        }
        assert!(coaps_address("nowhere").is_err() && coaps_address("127.0.0.1:x").is_err());
    }
}
