//! `sandbar demo`: a host at work, on readings of this machine and on a picture, and what it refuses.
//!
//! ```text
//! host spawned ── ready ── examples deployed ── calls over CoAP, each checked ──▶ host stopped, folder removed
//!                   └──────── SIGINT, SIGTERM or anything that goes wrong ──────────▲
//! ```
//! It is a check as well: it fails if any call ends otherwise than it should.

mod host;
mod readings;
mod stage;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use nix::unistd::Uid;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;
use crate::output;
use host::{OpenHost, PrivateHost};
use stage::{Act, Stage};

/// Packs of readings that are sent, and the pause between them.
const PACKS: usize = 3;
const BETWEEN_PACKS: Duration = Duration::from_millis(500);
/// What must be there before anything is begun, in the folder of the examples.
const NEEDED: [&str; 4] =
    ["thermostat/bin/average", "gallery/bin/gallery", "failures/bin/failures", "pictures/scene.jpg"];
/// Content formats (RFC 7252, 12.3): SenML as JSON, JPEG.
const SENML: u16 = 110;
const JPEG: u16 = 22;
/// What every JPEG begins with.
const JPEG_MAGIC: [u8; 2] = [0xFF, 0xD8];
/// A payload that no function of the example of misbehaviour takes.
const TOO_MUCH_BYTES: usize = 2 << 20;

const EXAMPLES: &str = "\
Examples:
  sandbar demo
  sandbar demo --keep /tmp        keeps the thumbnail as /tmp/thumbnail.jpg";

/// See a host at work: chains of functions called over CoAP, each call with its path, and what is refused
///
/// Starts a host of its own beside any other, deploys the examples, calls them with readings of this machine and with a
/// picture, shows how misbehaving functions end, and leaves nothing behind. Fails if any call ends otherwise than it should.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArguments {
    /// The folder of the example applications, built
    #[arg(long, value_name = "DIR", default_value = "examples")]
    examples: PathBuf,
    /// Where to keep the thumbnail; without this it goes with everything else
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

impl DemoArguments {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        if !Uid::effective().is_root() {
            return Err(Failure::NotRoot);
        }
        let missing = NEEDED.map(|needed| self.examples.join(needed)).into_iter().find(|path| !path.exists());
        if let Some(what) = missing {
            return Err(Failure::NoExamples { what });
        }
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::System)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::System)?;
        let mut host = PrivateHost::spawn()?;
        let shown = tokio::select! {
            shown = self.show(&mut host) => shown,
            _ = terminate.recv() => Err(Failure::Interrupted),
            _ = interrupt.recv() => Err(Failure::Interrupted),
        };
        let stopped = host.stop().await;
        let instances = shown?;
        stopped?;
        output::line(&format!(
            "\nEvery call ended as it should; {instances} functions ran, each in a process of its own.\n\
             The host is stopped and its folder is removed."
        ))
    }

    /// Shows everything; gives the number of instances that were seen.
    async fn show(&self, host: &mut PrivateHost) -> Result<usize, Failure> {
        let host = host.ready().await?;
        let mut stage = Stage::new(&host).await?;
        stage.title("A host of its own, with the example applications")?;
        for name in ["thermostat", "gallery", "failures"] {
            self.deploy(&host, name).await?;
        }
        stage.title("Readings of this machine: ingest (Python) > average (native) > alarm (executable)")?;
        for pack in 0..PACKS {
            if pack > 0 {
                tokio::time::sleep(BETWEEN_PACKS).await;
            }
            send_readings(&mut stage).await?;
        }
        stage.title("A picture, in blocks: look > thumbnail; metadata gets it as well, and runs on its own")?;
        self.send_picture(&mut stage).await?;
        stage.title("The same picture, and nobody waits: the call is stored, and its answer kept at a location")?;
        self.leave_picture(&mut stage).await?;
        stage.title("What is refused, and how misbehaving functions end")?;
        misbehave(&mut stage).await?;
        stage.end()
    }

    async fn deploy(&self, host: &OpenHost, name: &str) -> Result<(), Failure> {
        let folder = self.examples.join(name).canonicalize().map_err(Failure::System)?;
        let began = Instant::now();
        let deployed = host.client.deploy(&folder).await?;
        let functions = deployed.functions.join(", ");
        output::line(&format!("  {name} in {} ms: {functions}", began.elapsed().as_millis()))
    }

    fn picture(&self) -> Result<Vec<u8>, Failure> {
        let path = self.examples.join("pictures/scene.jpg");
        std::fs::read(&path).map_err(|source| Failure::Input { what: path.display().to_string(), source })
    }

    async fn leave_picture(&self, stage: &mut Stage<'_>) -> Result<(), Failure> {
        let (picture, hops) = (self.picture()?, &["look", "thumbnail"]);
        // What the location answers is read.
        let act = Act { content_format: Some(JPEG), hops, ..Act::new("gallery", &picture, (2, 5)) };
        let thumbnail = stage.accept(&act).await?.payload;
        stage.expect(thumbnail.starts_with(&JPEG_MAGIC), "the answer is a JPEG");
        Ok(())
    }

    async fn send_picture(&self, stage: &mut Stage<'_>) -> Result<(), Failure> {
        let picture = self.picture()?;
        let hops = &["look", "thumbnail"];
        let act = Act { content_format: Some(JPEG), hops, ..Act::new("gallery", &picture, (2, 4)) };
        let thumbnail = stage.call(&act).await?.payload;
        stage.expect(thumbnail.starts_with(&JPEG_MAGIC), "the answer is a JPEG");
        stage.expect(thumbnail.len() < picture.len(), "the thumbnail is smaller than the picture");
        stage.side_branch("gallery", "metadata").await?;
        match &self.keep {
            Some(folder) => keep(folder, &thumbnail),
            None => output::line("  not kept  (--keep DIR keeps the thumbnail)"),
        }
    }
}

async fn send_readings(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let pack = readings::pack()?;
    let hops = &["ingest", "average", "alarm"];
    let act = Act { content_format: Some(SENML), hops, ..Act::new("thermostat", pack.as_bytes(), (2, 4)) };
    let verdict = stage.call(&act).await?.payload;
    let judged = serde_json::from_slice(&verdict).is_ok_and(|verdict: serde_json::Value| verdict["state"].is_string());
    stage.expect(judged, "the answer says the state");
    Ok(())
}

/// Each misbehaviour, and what must come of it.
async fn misbehave(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let too_much = vec![0; TOO_MUCH_BYTES];
    let acts: [(&str, Act<'_>); 7] = [
        (
            "a function that does not exist",
            Act { says: "no function \"nothing\"", ..Act::new("failures/nothing", b"", (4, 4)) },
        ),
        (
            "a payload larger than the application takes",
            Act { says: "at most 1048576 bytes", ..Act::new("failures/echo", &too_much, (4, 13)) },
        ),
        (
            "a function that raises an exception",
            Act { says: "raised on purpose", hops: &["raise"], ..Act::new("failures/raise", b"hello", (5, 0)) },
        ),
        ("a function that crashes", Act { says: "SIGABRT", ..Act::new("failures/crash", b"", (5, 0)) }),
        ("a function that never ends", Act { says: "never: ", ..Act::new("failures/never", b"", (5, 4)) }),
        ("a function that eats memory", Act { says: "out of memory", ..Act::new("failures/hungry", b"", (5, 0)) }),
        (
            "and the same application still answers",
            Act { says: "still here", hops: &["echo"], ..Act::new("failures/echo", b"still here", (2, 4)) },
        ),
    ];
    for (title, act) in acts {
        output::line(&format!("  {title}"))?;
        stage.call(&act).await?;
    }
    Ok(())
}

fn keep(folder: &Path, thumbnail: &[u8]) -> Result<(), Failure> {
    let path = folder.join("thumbnail.jpg");
    std::fs::write(&path, thumbnail).map_err(|source| Failure::Keep { path: path.clone(), source })?;
    output::line(&format!("  kept      {}", path.display()))
}
