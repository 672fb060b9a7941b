//! The demonstration's own host: a process of this very program, with everything it has in a folder that goes with it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbar_proxy::management::{Client, Protocol};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::failure::Failure;

/// How long the host may take to open its doors, and to close them.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct PrivateHost {
    process: Child,
    folder: PathBuf,
    /// The host's management service.
    pub(super) client: Client,
    /// The host's CoAP door.
    pub(super) coap: SocketAddr,
}

impl PrivateHost {
    /// Starts it on a free port, with the path of every call in the logs.
    pub(super) async fn start() -> Result<Self, Failure> {
        let folder = std::env::temp_dir().join(format!("sandbar-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(Failure::NoHost)?;
        let started = Self::start_in(&folder).await;
        if started.is_err() {
            // What could not be made need not be removed.
            std::fs::remove_dir_all(&folder).ok();
        }
        started
    }

    async fn start_in(folder: &Path) -> Result<Self, Failure> {
        let socket = folder.join("socket");
        let mut process = Command::new(std::env::current_exe().map_err(Failure::NoHost)?)
            .args(["serve", "--coap", "127.0.0.1:0", "--trace", "--grace", "1s", "--log", "warn", "--state"])
            .arg(folder.join("state"))
            .arg("--socket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Ctrl-C is for the demonstration, which then stops the host itself.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(Failure::NoHost)?;
        wait_until_ready(&mut process).await?;
        let client = Client::new(socket);
        let doors = client.host().await?.doors;
        let coap = doors.iter().find(|door| door.protocol == Protocol::Coap);
        let coap = coap.ok_or_else(|| Failure::NoHost(io::Error::other("it has no CoAP door")))?.address;
        Ok(Self { process, folder: folder.to_owned(), client, coap })
    }

    /// Stops it and removes all it had.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        if let Some(pid) = self.process.id().and_then(|pid| i32::try_from(pid).ok()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|errno| Failure::System(errno.into()))?;
        }
        // If it does not end by itself, it is killed as it is dropped.
        tokio::time::timeout(PATIENCE, self.process.wait()).await.ok();
        std::fs::remove_dir_all(&self.folder).map_err(Failure::System)
    }
}

async fn wait_until_ready(process: &mut Child) -> Result<(), Failure> {
    let ended = || Failure::NoHost(io::Error::other("it ended before it was ready"));
    let output = process.stdout.take().ok_or_else(ended)?;
    let mut lines = BufReader::new(output).lines();
    let first = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    let first = first.map_err(|_| Failure::NoHost(io::ErrorKind::TimedOut.into()))?.map_err(Failure::NoHost)?;
    if first.as_deref() == Some("ready") { Ok(()) } else { Err(ended()) }
}
