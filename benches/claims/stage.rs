//! A host of the bench's own, applications for it, and loads on it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbar_proxy::management::Client;
use serde_json::Value;

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

/// A host, with what it keeps.
pub(crate) struct Host {
    process: Child,
    folder: PathBuf,
    pub(crate) client: Client,
    pub(crate) http: String,
    pub(crate) coap: String,
}

impl Host {
    pub(crate) fn start(place: Place, more: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("sandbar-claims-{}", std::process::id()));
        fs::remove_dir_all(&folder).ok();
        fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("socket");
        let [http, coap] = [free_port("tcp"), free_port("udp")];
        let mut command = place.command(env!("CARGO_BIN_EXE_sandbar"));
        command.args(["serve", "--coap", &coap, "--http", &http, "--log", "error", "--state"]);
        command.arg(folder.join("state")).arg("--socket").arg(&socket).args(more);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n");
        Self { process, folder, client: Client::new(&socket), http, coap }
    }

    pub(crate) fn socket(&self) -> String {
        self.folder.join("socket").to_str().unwrap().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Deploys an application of so many native functions, each the next of the one before.
    pub(crate) fn deploy_chain(&self, name: &str, functions: usize, limits: &str) {
        let code = |folder: &Path| {
            fs::create_dir_all(folder.join("bin")).unwrap();
            fs::copy(functions_program(), folder.join("bin/echo")).unwrap();
        };
        self.deploy(name, functions, limits, ("native", "bin/echo"), code);
    }

    /// Likewise of functions in Python, all of the same code.
    pub(crate) fn deploy_python(&self, name: &str, functions: usize, limits: &str, source: &str) {
        self.deploy(name, functions, limits, ("python3", "code.py"), |folder| {
            fs::write(folder.join("code.py"), source).unwrap();
        });
    }

    fn deploy(&self, name: &str, functions: usize, limits: &str, how: (&str, &str), code: impl FnOnce(&Path)) {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        let (runtime, file) = how;
        let mut manifest = format!("name = \"{name}\"\nentry = \"f0\"\n{limits}\n");
        for number in 0..functions {
            manifest.push_str(&format!(
                "[functions.f{number}]\nruntime = \"{runtime}\"\ncode = \"{file}\"\ntimeout = \"10s\"\n"
            ));
            if number + 1 < functions {
                manifest.push_str(&format!("next = \"f{}\"\n", number + 1));
            }
        }
        fs::write(folder.join("sandbar.toml"), manifest).unwrap();
        code(&folder);
        block_on(self.client.deploy(&folder)).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        end(&mut self.process);
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// Asks a process to end, and waits until it has.
pub(crate) fn end(process: &mut Child) {
    kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGTERM).ok();
    process.wait().ok();
}

pub(crate) fn functions_program() -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release/claims-functions");
    assert!(program.exists(), "{} is not built: run `make bench`", program.display());
    program
}

/// What a load measured, as `sandbar bench --json` tells it.
pub(crate) fn load(place: Place, target: &str, arguments: &[&str]) -> Value {
    let mut command = place.command(env!("CARGO_BIN_EXE_sandbar"));
    let output = command.args(["bench", target, "--json"]).args(arguments).stderr(Stdio::inherit()).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{target}: {error}"))
}

/// A figure of a load, in microseconds.
pub(crate) fn figure(load: &Value, of: &str, part: &str) -> f64 {
    load[of][part].as_f64().unwrap_or_else(|| panic!("no {of}.{part} in {load}"))
}

pub(crate) fn block_on<T>(it: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(it)
}

/// An address on which nobody listens just now.
pub(crate) fn free_port(protocol: &str) -> String {
    let address = match protocol {
        "tcp" => std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr(),
        _ => std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr(),
    };
    address.unwrap().to_string()
}
