//! The manifest of an application: what `sandbar.toml` says, checked.
//!
//! ```text
//! sandbar.toml ──document──▶ Plain: strings and numbers, ──check──▶ Application: holds legal values only,
//!   (text)      known fields only, each with its place             names resolved to indices
//! ```
//!
//! Each step collects every problem it can find before it gives up, so that an author sees them all at once.
//!
//! Invariants of an [`Application`]:
//! 1. It has 1 to [`FUNCTIONS_MAX`] functions, in the manifest's order; their names differ.
//! 2. `entry` and every index in a `next` is less than the number of functions.
//! 3. `next` has no cycle, so that every chain ends.
//! 4. `calls` and `callers` name other applications only, none twice. Whether those exist is seen when a call is made: they
//!    may be deployed later, or elsewhere.
//! 5. Every `code` is a relative path without `..`; if [`Application::load`] made the application, the file was there,
//!    a regular file reached through no symbolic link, and of a kind that its runtime can start.
//! 6. `rootfs` has no `..`; if [`Application::load`] made the application and it is relative, the directory was there and, if
//!    it is an image layout, had the image.

pub mod access;
mod check;
mod code;
mod document;
mod limits;
mod name;
mod problem;
pub mod quantity;
mod rest;
mod rootfs;
mod target;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sandbar_supervisor::identity::Network;
use serde::{Deserialize, Serialize};

pub use access::{Access, Doorway};
pub use name::{Name, NameError};
pub(crate) use problem::did_you_mean;
pub use problem::{ManifestError, Place, Problem};
pub use rest::{Rest, RestAfter};
pub use rootfs::Rootfs;
pub use target::Target;

use problem::Problems;

/// The manifest's file name, in the root of an application's folder.
pub const FILE_NAME: &str = "sandbar.toml";

/// The most functions one application has: each costs a worker and a queue of its sandbox's segment.
pub const FUNCTIONS_MAX: usize = 128;

/// Instances of one function that may be asked to stand ready.
pub const READY_MAX: u32 = 64;

/// The most functions one function hands its output to: each gets a message of its own.
pub const NEXT_MAX: usize = 8;

/// The most functions of other applications that one application calls.
pub const CALLS_MAX: usize = 64;

/// The most applications that one application lets call it.
pub const CALLERS_MAX: usize = 256;

/// The largest manifest that is read, in bytes: far above what [`FUNCTIONS_MAX`] functions need.
const MANIFEST_BYTES_MAX: u64 = 256 * 1024;

/// An application, as its manifest describes it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Application {
    /// The name callers use; unique on a host.
    pub name: Name,
    /// The function that is called when none is named: an index into `functions`.
    pub entry: usize,
    /// The functions, in the manifest's order.
    pub functions: Vec<Function>,
    /// What its functions may call of other applications, in the manifest's order, if those name it in their `callers`.
    pub calls: Vec<Target>,
    /// The applications that may call this one.
    pub callers: BTreeSet<Name>,
    /// Which network its functions have.
    pub network: Network,
    /// The root file system of its sandbox; without one, the host's system directories.
    pub rootfs: Option<Rootfs>,
    /// Who may call it by the doors at which callers are not known.
    pub access: Access,
    /// What its sandbox may use.
    pub limits: Limits,
    /// When it is put to rest.
    pub rest: Rest,
}

/// One function of an application.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Function {
    /// The name callers and other functions use; unique in the application.
    pub name: Name,
    /// How its instances are made.
    pub runtime: Runtime,
    /// The file that holds its code, relative to the bundle's root.
    pub code: PathBuf,
    /// What is called in the code. `python3`: the name of a Python function, `handle` unless given. `native`: the
    /// function's own name, under which the executable adds it. `executable`: empty, as the file itself is what runs.
    pub handler: String,
    /// The longest one instance may take to answer.
    pub timeout: Duration,
    /// How many of its instances stand ready for calls to come.
    pub ready: Ready,
    /// The format of its output, unless an instance says another: a number of the CoAP Content-Formats registry.
    pub content_format: Option<u16>,
    /// Whether its outputs may be observed by whoever may call it.
    pub observe: bool,
    /// The functions that get its output, as indices into [`Application::functions`]; the first goes on to answer the
    /// caller, the others run on their own.
    pub next: Vec<usize>,
    /// What its worker and its instances together may use of what the sandbox may.
    pub limits: FunctionLimits,
}

/// How many instances of a function stand ready for calls to come. Each is a process that waits; a call that finds none waits for a fork.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ready {
    /// As many as calls come while one is made anew.
    #[default]
    Auto,
    /// This number; 0: each call waits for a fork.
    Exactly(u32),
}

/// What one function may use of what its application's sandbox may. Nothing given: whatever the others leave.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct FunctionLimits {
    /// Memory and swap together, in bytes, at most the application's.
    pub memory_bytes: Option<u64>,
    /// Processes and threads, at most the application's.
    pub processes: Option<u32>,
    /// Processor time, in processors, at most the application's.
    pub cpus: Option<f64>,
}

/// What the sandbox of an application may use.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Memory and swap together, in bytes, with the message segment and what is in `/tmp`.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub processes: u32,
    /// Processor time, in processors: 0.5 is half of one, as a quota.
    pub cpus: f64,
    /// The largest payload of a call, of an answer and of a message between functions, in bytes.
    pub payload_bytes: usize,
    /// Messages that may wait for one function; a power of two. More are refused as overloaded.
    pub queue: usize,
    /// Calls from outside its sandbox that may be under way. More are refused as overloaded.
    pub calls: usize,
    /// How long an instance may look for a message before it sleeps; zero: it sleeps at once.
    pub spin: Duration,
}

/// How the instances of a function are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Fork of the executable, which is its own worker: it is linked with `sandbar-function`.
    Native,
    /// Fork of a Python interpreter that has loaded the code.
    Python3,
    /// Exec of the file per call: payload on its standard input, answer on its standard output.
    Executable,
}

impl Runtime {
    /// Every runtime, in the order they are listed to people.
    pub const ALL: [Self; 3] = [Self::Native, Self::Python3, Self::Executable];

    /// The name by which manifests know it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Python3 => "python3",
            Self::Executable => "executable",
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A runtime of that name does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown runtime `{name}`: it is none of native, python3, executable{}",
    problem::did_you_mean(name, Runtime::ALL.map(Runtime::as_str))
)]
pub struct UnknownRuntime {
    /// What was given.
    pub name: String,
}

impl FromStr for Runtime {
    type Err = UnknownRuntime;

    fn from_str(text: &str) -> Result<Self, UnknownRuntime> {
        Self::ALL
            .into_iter()
            .find(|runtime| runtime.as_str() == text)
            .ok_or_else(|| UnknownRuntime { name: text.to_owned() })
    }
}

impl Application {
    /// Reads and checks the manifest in `dir`, and the code files that it names.
    ///
    /// # Errors
    /// Every problem that was found, each with its place in the file.
    pub fn load(dir: &Path) -> Result<Self, ManifestError> {
        let text = read_manifest(dir).map_err(|text| ManifestError::whole_file(FILE_NAME, text))?;
        Self::checked(&text, FILE_NAME, Some(dir))
    }

    /// Checks the text of a manifest alone: no code file is looked at. Problems name the file `file_name`.
    ///
    /// # Errors
    /// Every problem that was found, each with its place in the text.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, ManifestError> {
        Self::checked(text, file_name, None)
    }

    fn checked(text: &str, file_name: &str, dir: Option<&Path>) -> Result<Self, ManifestError> {
        let mut problems = Problems::new(file_name, text);
        let application =
            document::read(text, &mut problems).and_then(|plain| check::application(&plain, dir, &mut problems));
        match application {
            Some(application) if problems.is_empty() => Ok(application),
            Some(_) | None => Err(problems.into_error()),
        }
    }

    /// The index of the function of that name.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<usize> {
        self.functions.iter().position(|function| function.name.as_str() == name)
    }

    /// The longest that a call which starts at function `start` may take until its caller has the answer: the time-outs
    /// of the functions on the answering path (`start`, the first of its `next`, the first of that one's, and so on)
    /// together. Zero if there is no function `start`.
    #[must_use]
    pub fn chain_timeout(&self, start: usize) -> Duration {
        let mut total = Duration::ZERO;
        let mut at = self.functions.get(start);
        while let Some(function) = at {
            total += function.timeout;
            at = function.next.first().and_then(|&next| self.functions.get(next));
        }
        total
    }

    /// The longest that any call of a function of this application may take.
    #[must_use]
    pub fn longest_chain_timeout(&self) -> Duration {
        (0..self.functions.len()).map(|start| self.chain_timeout(start)).max().unwrap_or_default()
    }
}

/// The manifest's text, or why there is none.
fn read_manifest(dir: &Path) -> Result<String, String> {
    // A FIFO in the place of the manifest must not hold the reader up, nor may a link lead it elsewhere.
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(dir.join(FILE_NAME));
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let shown = dir.display();
            return Err(format!("there is no such file in {shown}; `sandbar init {shown}` makes a first one"));
        }
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err("this is a symbolic link; a manifest is a regular file".to_owned());
        }
        Err(error) => return Err(format!("cannot open it: {error}")),
    };
    let metadata = file.metadata().map_err(|error| format!("cannot read it: {error}"))?;
    if !metadata.is_file() {
        return Err("this is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot read it: {error}"))?;
    if bytes.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(format!("it is longer than {MANIFEST_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid_bytes = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(valid_bytes).filter(|&&byte| byte == b'\n').count() + 1;
        format!("line {line} is not UTF-8")
    })
}

#[cfg(test)]
mod tests;
