//! The demonstration's own host: a process of this very program, with everything it has in a folder that goes with it.

use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
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

/// A host that has been spawned and must be stopped, whatever comes between.
#[derive(Debug)]
pub(super) struct PrivateHost {
    process: Child,
    folder: PathBuf,
}

/// How to reach a host whose doors are open.
#[derive(Debug)]
pub(super) struct OpenHost {
    /// The management service.
    pub(super) client: Client,
    /// The CoAP door.
    pub(super) coap: SocketAddr,
}

impl PrivateHost {
    /// Starts it on a free port, with the path of every call in the logs.
    pub(super) fn spawn() -> Result<Self, Failure> {
        let folder = std::env::temp_dir().join(format!("sandbar-demo-{}", std::process::id()));
        // One that is there already is somebody else's, and may be meant to lead us astray.
        DirBuilder::new().mode(0o700).create(&folder).map_err(Failure::NoHost)?;
        match spawn_in(&folder) {
            Ok(process) => Ok(Self { process, folder }),
            Err(source) => {
                std::fs::remove_dir_all(&folder).map_err(Failure::System)?;
                Err(Failure::NoHost(source))
            }
        }
    }

    /// Waits until its doors are open.
    pub(super) async fn ready(&mut self) -> Result<OpenHost, Failure> {
        let ended = || Failure::NoHost(io::Error::other("it ended before it was ready"));
        let output = self.process.stdout.take().ok_or_else(ended)?;
        let mut lines = BufReader::new(output).lines();
        let first = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let first = first.map_err(|_| Failure::NoHost(io::ErrorKind::TimedOut.into()))?.map_err(Failure::NoHost)?;
        if first.as_deref() != Some("ready") {
            return Err(ended());
        }
        let client = Client::new(socket_in(&self.folder));
        let doors = client.host().await?.doors;
        let door = doors.iter().find(|door| door.protocol == Protocol::Coap);
        let door = door.ok_or_else(|| Failure::NoHost(io::Error::other("it has no CoAP door")))?;
        Ok(OpenHost { client, coap: door.address })
    }

    /// Stops it and removes all it had.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        if let Some(pid) = self.process.id().and_then(|pid| i32::try_from(pid).ok()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|errno| Failure::System(errno.into()))?;
        }
        let ended = match tokio::time::timeout(PATIENCE, self.process.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(io::Error::other(format!("it ended with {status}"))),
            Ok(Err(error)) => Err(error),
            Err(_) => self.process.kill().await.and(Err(io::ErrorKind::TimedOut.into())),
        };
        let removed = std::fs::remove_dir_all(&self.folder).map_err(Failure::System);
        ended.map_err(Failure::HostDidNotStop).and(removed)
    }
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("socket")
}

fn spawn_in(folder: &Path) -> io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["serve", "--coap", "127.0.0.1:0", "--trace", "--grace", "1s", "--log", "warn", "--state"])
        .arg(folder.join("state"))
        .arg("--socket")
        .arg(socket_in(folder))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Ctrl-C is for the demonstration, which then stops the host itself.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}
