//! `sandbar demo`: a host at work, on readings of this machine and on a picture, and what it refuses.
//!
//! It is a check as well: it fails if any call ends otherwise than it should.

mod host;
mod readings;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use nix::unistd::Uid;
use sandbar_proxy::client::{Client, Method, Request, Response};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;
use crate::output;
use host::PrivateHost;

/// Packs of readings that are sent, and the pause between them.
const PACKS: usize = 3;
const BETWEEN_PACKS: Duration = Duration::from_millis(500);
/// How long an answer is waited for; no function of the examples may run longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Content formats (RFC 7252, 12.3): SenML as JSON, JPEG, octets.
const SENML: u16 = 110;
const JPEG: u16 = 22;
const OCTETS: u16 = 42;
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
    /// Where to keep the thumbnail
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

impl DemoArguments {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        if !Uid::effective().is_root() {
            return Err(Failure::NotRoot);
        }
        for needed in ["thermostat/bin/average", "gallery/bin/gallery", "failures/bin/failures", "pictures/scene.jpg"] {
            let what = self.examples.join(needed);
            if !what.exists() {
                return Err(Failure::NoExamples { what });
            }
        }
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::System)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::System)?;
        let host = PrivateHost::start().await?;
        let shown = tokio::select! {
            shown = self.show(&host) => shown,
            _ = terminate.recv() => Err(Failure::Interrupted),
            _ = interrupt.recv() => Err(Failure::Interrupted),
        };
        let stopped = host.stop().await;
        shown.and(stopped)
    }

    async fn show(&self, host: &PrivateHost) -> Result<(), Failure> {
        let mut stage = Stage::new(host).await?;
        stage.title("A host of its own, with the example applications")?;
        for name in ["thermostat", "gallery", "failures"] {
            self.deploy(host, name).await?;
        }
        stage.title("Readings of this machine: ingest (Python) > average (native) > alarm (executable)")?;
        for pack in 0..PACKS {
            if pack > 0 {
                tokio::time::sleep(BETWEEN_PACKS).await;
            }
            let readings = readings::pack()?;
            output::line(&format!("  sent      {readings}"))?;
            stage.call("thermostat", readings.as_bytes(), SENML, (2, 4)).await?;
        }
        stage.title("A picture, in blocks: look > thumbnail, and metadata on its own")?;
        self.picture(&mut stage).await?;
        stage.title("What is refused, and how misbehaving functions end")?;
        refusals(&mut stage).await?;
        if stage.wrong > 0 {
            return Err(Failure::Demonstration(stage.wrong));
        }
        output::line("\nEvery call ended as it should; the host is stopped, and nothing of it is left.")
    }

    async fn deploy(&self, host: &PrivateHost, name: &str) -> Result<(), Failure> {
        let folder = self.examples.join(name).canonicalize().map_err(Failure::System)?;
        let began = Instant::now();
        let deployed = host.client.deploy(&folder).await?;
        let functions = deployed.functions.join(", ");
        output::line(&format!("  {name} in {} ms: {functions}", began.elapsed().as_millis()))
    }

    async fn picture(&self, stage: &mut Stage<'_>) -> Result<(), Failure> {
        let path = self.examples.join("pictures/scene.jpg");
        let picture =
            std::fs::read(&path).map_err(|source| Failure::Input { what: path.display().to_string(), source })?;
        output::line(&format!("  sent      {} bytes of JPEG", picture.len()))?;
        let thumbnail = stage.call("gallery", &picture, JPEG, (2, 4)).await?;
        stage.expect(thumbnail.payload.starts_with(&[0xFF, 0xD8]), "the answer is a JPEG");
        if let Some(folder) = &self.keep {
            let path = folder.join("thumbnail.jpg");
            std::fs::write(&path, &thumbnail.payload).map_err(Failure::Output)?;
            output::line(&format!("  kept      {}", path.display()))?;
        }
        Ok(())
    }
}

/// A code as class and detail: (4, 4) for 4.04.
type Code = (u8, u8);

/// Each misbehaviour with what comes of it: title, path, payload, code.
async fn refusals(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let too_much = vec![0; TOO_MUCH_BYTES];
    let acts: [(&str, &str, &[u8], Code); 7] = [
        ("a function that does not exist", "failures/nothing", b"", (4, 4)),
        ("a payload larger than the application takes", "failures/echo", &too_much, (4, 13)),
        ("a function that raises an exception", "failures/raise", b"hello", (5, 0)),
        ("a function that crashes", "failures/crash", b"", (5, 0)),
        ("a function that never ends", "failures/never", b"", (5, 4)),
        ("a function that eats memory", "failures/hungry", b"", (5, 0)),
        ("and the same application still answers", "failures/echo", b"still here", (2, 4)),
    ];
    for (title, path, payload, expected) in acts {
        output::line(&format!("  {title}"))?;
        stage.call(path, payload, OCTETS, expected).await?;
    }
    Ok(())
}

/// Calls, what is printed of them, and how many ended otherwise than they should.
struct Stage<'a> {
    host: &'a PrivateHost,
    coap: Client,
    bold: bool,
    wrong: usize,
}

impl<'a> Stage<'a> {
    async fn new(host: &'a PrivateHost) -> Result<Self, Failure> {
        let coap = Client::connect(host.coap, PATIENCE).await?;
        Ok(Self { host, coap, bold: std::io::stdout().is_terminal(), wrong: 0 })
    }

    fn title(&self, text: &str) -> Result<(), Failure> {
        if self.bold { output::line(&format!("\n\x1b[1m{text}\x1b[0m")) } else { output::line(&format!("\n{text}")) }
    }

    fn expect(&mut self, holds: bool, what: &str) {
        if !holds {
            self.wrong += 1;
            output::note(&format!("  WRONG     it should be that {what}"));
        }
    }

    /// Calls over CoAP, and prints the answer and the path of the call.
    async fn call(&mut self, path: &str, payload: &[u8], format: u16, expected: Code) -> Result<Response, Failure> {
        let began = Instant::now();
        let request = Request { method: Method::Post, path, payload, content_format: Some(format) };
        let response = self.coap.request(&request).await?;
        let took = began.elapsed();
        let (class, detail) = response.code;
        let said = summary(&response.payload);
        output::line(&format!("  answered  {class}.{detail:02} in {:.1} ms: {said}", took.as_secs_f64() * 1000.0))?;
        // What is refused as a client's error has not become a call.
        if class != 4 {
            for hop in self.path_of_last_call(path).await? {
                output::line(&format!("            {hop}"))?;
            }
        }
        self.expect(response.code == expected, &format!("the answer is {}.{:02}", expected.0, expected.1));
        Ok(response)
    }

    /// The functions that the last call to an application passed through, as its log tells.
    async fn path_of_last_call(&self, path: &str) -> Result<Vec<String>, Failure> {
        let application = path.split('/').next().unwrap_or(path);
        let mut records = self.host.client.logs(application, None, false).await?;
        let mut last = None;
        while let Some(record) = records.next().await? {
            let line = record.text.strip_prefix("call ").filter(|_| record.function.is_empty());
            last = line.map(str::to_owned).or(last);
        }
        // "ID: done: first[PID] waited …, ran … > second …"
        let hops = last.as_deref().and_then(|line| line.splitn(3, ": ").nth(2)).unwrap_or_default();
        Ok(hops.split(" > ").filter(|hop| !hop.is_empty()).map(str::to_owned).collect())
    }
}

/// A payload in a line: text as it is, anything else by its length.
fn summary(payload: &[u8]) -> String {
    match std::str::from_utf8(payload) {
        Ok(text) if text.len() <= 200 => output::visible(text.trim()).into_owned(),
        _ => format!("{} bytes", payload.len()),
    }
}
