//! A host of the bench's own, and applications for it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use sandbar_proxy::management::Client;

use crate::running::{Running, block_on};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Whole,
    Quick,
}

impl Scale {
    pub(crate) fn of<T>(self, whole: T, quick: T) -> T {
        match self {
            Self::Whole => whole,
            Self::Quick => quick,
        }
    }
}

/// Which processor something runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    First,
    Second,
    Any,
}

impl Place {
    /// A command that runs there.
    pub(crate) fn command(self, program: impl AsRef<Path>) -> Command {
        let processor = match self {
            Self::Any => return Command::new(program.as_ref()),
            Self::First => "0",
            Self::Second => "1",
        };
        let mut command = Command::new("taskset");
        command.args(["-c", processor]).arg(program.as_ref());
        command
    }
}

/// Keeps the bench itself on the first processor, until it is dropped.
pub(crate) struct Pinned(CpuSet);

impl Pinned {
    pub(crate) fn to_first() -> Self {
        let before = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let mut only = CpuSet::new();
        only.set(0).unwrap();
        sched_setaffinity(Pid::from_raw(0), &only).unwrap();
        Self(before)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        sched_setaffinity(Pid::from_raw(0), &self.0).ok();
    }
}

/// What a host keeps, removed when it is gone.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A host. Several may be there at a time.
pub(crate) struct Host {
    // Ended before what it keeps is removed.
    process: Running,
    folder: Folder,
    pub(crate) client: Client,
    pub(crate) http: String,
    pub(crate) coap: String,
}

/// How the functions of an application are run: the runtime, and the file with their code.
type Code<'a> = (&'a str, &'a str);

impl Host {
    /// # Panics
    /// When it does not start; it says itself why.
    pub(crate) fn start(place: Place, more: &[&str]) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = Folder(std::env::temp_dir().join(format!("sandbar-claims-{}-{number}", std::process::id())));
        fs::create_dir_all(&folder.0).unwrap();
        let socket = folder.0.join("socket");
        let [http, coap] = [free_port("tcp"), free_port("udp")];
        // Two hosts at a time must not give the same user to both their sandboxes: the kernel counts by users.
        let first_user = 0x7000_0000_u32 + (number % 8) * 0x1000_0000;
        let mut command = place.command(env!("CARGO_BIN_EXE_sandbar"));
        command.args(["serve", "--coap", &coap, "--http", &http, "--log", "error", "--state"]);
        command
            .arg(folder.0.join("state"))
            .arg("--socket")
            .arg(&socket)
            .args(["--first-user", &first_user.to_string()]);
        command.args(more);
        let mut process = Running::start(command).unwrap();
        assert_eq!(process.first_line(), "ready\n", "the host did not start");
        Self { process, folder, client: Client::new(&socket), http, coap }
    }

    pub(crate) fn socket(&self) -> String {
        self.folder.0.join("socket").to_str().unwrap().to_owned()
    }

    /// What its control groups are called by.
    pub(crate) fn name(&self) -> String {
        fs::read_to_string(self.folder.0.join("state/host")).unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Deploys an application of so many native functions, each the next of the one before.
    pub(crate) fn deploy_chain(&self, name: &str, functions: usize, limits: &str) {
        self.deploy_native(name, &chain(functions), limits);
    }

    /// Likewise with any functions: of each those that are next, by their numbers.
    pub(crate) fn deploy_native(&self, name: &str, next: &[Vec<usize>], limits: &str) {
        self.deploy(name, next, limits, ("native", "bin/echo"), |folder| {
            fs::create_dir_all(folder.join("bin")).unwrap();
            fs::copy(functions_program(), folder.join("bin/echo")).unwrap();
        });
    }

    /// A chain of functions in Python, all of the same code.
    pub(crate) fn deploy_python(&self, name: &str, functions: usize, limits: &str, source: &str) {
        self.deploy(name, &chain(functions), limits, ("python3", "code.py"), |folder| {
            fs::write(folder.join("code.py"), source).unwrap();
        });
    }

    fn deploy(&self, name: &str, next: &[Vec<usize>], limits: &str, how: Code<'_>, write: impl FnOnce(&Path)) {
        let folder = Folder(self.folder.0.join(name));
        fs::create_dir_all(&folder.0).unwrap();
        let (runtime, file) = how;
        let mut manifest = format!("name = \"{name}\"\nentry = \"f0\"\n{limits}\n");
        for (number, next) in next.iter().enumerate() {
            let next: Vec<_> = next.iter().map(|next| format!("\"f{next}\"")).collect();
            let next = next.join(", ");
            write!(manifest, "[functions.f{number}]\nruntime = \"{runtime}\"\ncode = \"{file}\"\ntimeout = \"10s\"\n")
                .and_then(|()| writeln!(manifest, "next = [{next}]"))
                .unwrap();
        }
        fs::write(folder.0.join("sandbar.toml"), manifest).unwrap();
        write(&folder.0);
        block_on(self.client.deploy(&folder.0)).unwrap_or_else(|error| panic!("{name} was not deployed: {error}"));
    }

    pub(crate) fn remove(&self, name: &str) {
        block_on(self.client.remove(name)).unwrap_or_else(|error| panic!("{name} was not removed: {error}"));
    }

    /// "running", "resting", or what else it is.
    pub(crate) fn state(&self, name: &str) -> String {
        let all = block_on(self.client.applications()).unwrap();
        all.into_iter().find(|status| status.name == name).map_or_else(String::new, |status| status.state)
    }
}

fn chain(functions: usize) -> Vec<Vec<usize>> {
    (1..=functions).map(|next| if next < functions { vec![next] } else { Vec::new() }).collect()
}

pub(crate) fn functions_program() -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release/claims-functions");
    assert!(program.exists(), "{} is not built: run `make bench`", program.display());
    program
}

/// An address on which nobody listens just now.
pub(crate) fn free_port(protocol: &str) -> String {
    let address = match protocol {
        "tcp" => std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr(),
        _ => std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr(),
    };
    address.unwrap().to_string()
}
