//! A host of a test's own: the built command, serving from a temporary folder on ports of its own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use super::process::{self, Process, Role};
use super::program::{self, Finished};
use super::{PATIENCE, bundle, http, remains, skipped, until, until_within};

/// Tests that load the machine, or watch what others would disturb, run alone.
static MACHINE: RwLock<()> = RwLock::new(());

/// How a test shares the machine with others, held for as long as its host lives.
#[derive(Debug)]
enum Turn {
    Among { _others: RwLockReadGuard<'static, ()> },
    Alone { _nobody: RwLockWriteGuard<'static, ()> },
}

/// A serving host. Dropped, it is stopped, and must leave nothing behind.
#[derive(Debug)]
pub(crate) struct Host {
    /// `None` while it does not serve.
    agent: Option<Child>,
    pub(crate) coap: SocketAddr,
    pub(crate) http: SocketAddr,
    more_arguments: Vec<String>,
    shared_before: BTreeSet<PathBuf>,
    folder: TempDir,
    _turn: Turn,
}

/// A call's answer, as the management service tells it.
#[derive(Debug, Deserialize)]
pub(crate) struct Called {
    pub(crate) outcome: String,
    pub(crate) diagnostic: String,
    pub(crate) hops: Vec<Hop>,
    #[serde(skip)]
    pub(crate) payload: Vec<u8>,
    #[serde(skip)]
    pub(crate) took: Duration,
}

/// A function's part in a call.
#[derive(Debug, Deserialize)]
pub(crate) struct Hop {
    pub(crate) function: String,
    pub(crate) pid: u32,
    pub(crate) sent_ns: u64,
    pub(crate) taken_ns: u64,
    pub(crate) done_ns: u64,
}

impl Called {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// The answer of a call that must have ended well.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.outcome, "done", "{}", self.diagnostic);
        self.text()
    }
}

impl Host {
    /// Starts a host while others may run; `None`, and the test is skipped, where none can.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// As [`start`](Self::start), with more arguments to `sandbar serve`.
    pub(crate) fn start_with(more_arguments: &[&str]) -> Option<Self> {
        let turn = || Turn::Among { _others: MACHINE.read().unwrap_or_else(PoisonError::into_inner) };
        Self::start_in(turn, more_arguments)
    }

    /// Starts a host when no other runs, and keeps others from starting.
    pub(crate) fn start_alone() -> Option<Self> {
        let turn = || Turn::Alone { _nobody: MACHINE.write().unwrap_or_else(PoisonError::into_inner) };
        Self::start_in(turn, &[])
    }

    fn start_in(turn: impl FnOnce() -> Turn, more_arguments: &[&str]) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skipped("only root can serve");
            return None;
        }
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut host = Self {
            _turn: turn(),
            agent: None,
            coap: nowhere,
            http: nowhere,
            more_arguments: more_arguments.iter().map(|&argument| argument.to_owned()).collect(),
            shared_before: remains::in_shared_directories(),
            folder: tempfile::Builder::new().prefix("sandbar-e2e-").tempdir().unwrap(),
        };
        fs::create_dir(host.folder().join("tmp")).unwrap();
        host.serve();
        Some(host)
    }

    /// The test's own folder. The host's state is in it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder().join("socket")
    }

    /// `sandbar serve`, as this host runs it.
    pub(crate) fn serve_command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandbar"));
        command.args(["serve", "--coap", "127.0.0.1:0", "--http", "127.0.0.1:0", "--state"]).arg(self.state());
        command.arg("--socket").arg(self.socket()).args(&self.more_arguments);
        command.env("TMPDIR", self.folder().join("tmp")).current_dir("/").stdin(Stdio::null());
        command
    }

    /// Serves, from when it says that it is ready.
    pub(crate) fn serve(&mut self) {
        assert!(self.agent.is_none(), "it serves already");
        let log = File::options().create(true).append(true).open(self.folder().join("agent.log")).unwrap();
        let mut agent = self.serve_command().stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let (said, lines) = std::sync::mpsc::channel();
        let stdout = BufReader::new(agent.stdout.take().unwrap());
        self.agent = Some(agent);
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        let first = lines.recv_timeout(PATIENCE);
        assert_eq!(first.as_deref(), Ok("ready"), "{}", self.agent_log());
        let status = self.manage("GET", "/v1/host", b"").json();
        let door = |protocol: &str| {
            let door = status["doors"].as_array()?.iter().find(|door| door["protocol"] == protocol)?;
            door["address"].as_str()?.parse().ok()
        };
        (self.coap, self.http) = (door("coap").unwrap(), door("http").unwrap());
    }

    /// What the agent has logged for the operator.
    pub(crate) fn agent_log(&self) -> String {
        fs::read_to_string(self.folder().join("agent.log")).unwrap_or_default()
    }

    /// The agent's process.
    pub(crate) fn agent(&self) -> Process {
        Process::new(self.agent.as_ref().unwrap().id()).unwrap()
    }

    /// Sends the agent a signal and waits for its end: its exit code, `None` if the signal itself ended it.
    pub(crate) fn end(&mut self, signal: Signal) -> Option<i32> {
        self.agent().signal(signal);
        let mut agent = self.agent.take().unwrap();
        let Some(code) = program::wait(&mut agent, PATIENCE) else {
            agent.kill().unwrap();
            agent.wait().unwrap();
            panic!("the agent does not end:\n{}", self.agent_log());
        };
        code
    }

    /// The name of the host's control groups.
    pub(crate) fn name(&self) -> String {
        fs::read_to_string(self.state().join("host")).unwrap()
    }

    /// The command, speaking to this host.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandbar"));
        command.args(arguments).env("SANDBAR_SOCKET", self.socket());
        command
    }

    /// Runs the command to its end.
    #[track_caller]
    pub(crate) fn sandbar(&self, arguments: &[&str]) -> Finished {
        program::run(&mut self.command(arguments), PATIENCE * 3)
    }

    /// Deploys a folder, which must go well.
    #[track_caller]
    pub(crate) fn deploy(&self, folder: &Path) {
        self.sandbar(&["deploy", folder.to_str().unwrap()]).well();
    }

    /// Deploys one of the examples.
    #[track_caller]
    pub(crate) fn deploy_example(&self, name: &str) {
        self.deploy(&bundle::example(name));
    }

    /// Writes an application of Python functions, all in one file, and deploys it.
    #[track_caller]
    pub(crate) fn deploy_python(&self, name: &str, functions: &[&str], code: &str) {
        let folder = self.folder().join(name);
        bundle::write(&folder, &[("sandbar.toml", &bundle::python_manifest(name, functions)), ("functions.py", code)]);
        self.deploy(&folder);
    }

    /// A traced call, by the management service. `target` is `APP` or `APP/FUNCTION`.
    pub(crate) fn call(&self, target: &str, payload: &[u8]) -> Called {
        let start = Instant::now();
        let (application, function) = target.split_once('/').unwrap_or((target, ""));
        let query = if function.is_empty() { String::new() } else { format!("&function={function}") };
        let path = format!("/v1/applications/{application}/calls?trace=true{query}");
        let response = self.manage("POST", &path, payload);
        assert_eq!(response.status, 200, "{}", response.text());
        let end = response.body.iter().position(|byte| *byte == b'\n').unwrap();
        let called: Called = serde_json::from_slice(&response.body[..end]).unwrap();
        Called { payload: response.body[end + 1..].to_vec(), took: start.elapsed(), ..called }
    }

    /// One exchange with the management service.
    pub(crate) fn manage(&self, method: &str, path: &str, body: &[u8]) -> http::Response {
        http::exchange(UnixStream::connect(self.socket()).unwrap(), method, path, None, body)
    }

    /// One exchange with the HTTP door.
    pub(crate) fn http(&self, method: &str, path: &str, content_type: Option<&str>, body: &[u8]) -> http::Response {
        let connection = TcpStream::connect(self.http).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        http::exchange(connection, method, path, content_type, body)
    }

    pub(crate) fn coap_uri(&self, path: &str) -> String {
        format!("coap://{}/{path}", self.coap)
    }

    /// All applications, as `sandbar list --json` tells.
    #[track_caller]
    pub(crate) fn applications(&self) -> Vec<Value> {
        let listed = self.sandbar(&["list", "--json"]).well();
        serde_json::from_slice(&listed.stdout).unwrap()
    }

    /// Host process id of an application's first process, once it runs.
    pub(crate) fn first_process(&self, application: &str) -> Process {
        until(&format!("{application} runs"), || {
            let all = self.applications();
            let pid = all.iter().find(|it| it["name"] == application)?["pid"].as_u64()?;
            Process::new(u32::try_from(pid).unwrap())
        })
    }

    /// The processes of a function that has a worker and instances ready.
    pub(crate) fn processes_of(&self, application: &str, function: &str, role: Role) -> Vec<Process> {
        let first = self.first_process(application).pid;
        until(&format!("{application}/{function} has a {role:?}"), || {
            let is_wanted = |(process, of): &(Process, Role)| {
                *of == role && process.variable("SANDBAR_FUNCTION").as_deref() == Some(function)
            };
            let found: Vec<_> = process::of_sandbox(first).into_iter().filter(is_wanted).collect();
            (!found.is_empty()).then(|| found.into_iter().map(|(process, _)| process).collect())
        })
    }

    /// Waits for a line of an application's log with this text, and returns the line.
    #[track_caller]
    pub(crate) fn logged(&self, target: &str, text: &str) -> String {
        let mut log = String::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until_within(PATIENCE, &format!("{text:?} is logged"), || {
                log = self.sandbar(&["logs", target]).well().text();
                log.lines().find(|line| line.contains(text)).map(str::to_owned)
            })
        }));
        found.unwrap_or_else(|_| panic!("{text:?} is not in the log:\n{log}"))
    }

    /// Nothing of a host that does not serve may be in the system but its state.
    pub(crate) fn assert_nothing_is_left(&self, descendants: &[Process]) {
        for process in descendants {
            assert!(!process.exists(), "{process:?} outlives its host");
        }
        let left = remains::of_host(&self.name(), &self.state());
        assert!(left.is_empty(), "left behind: {left:#?}\n{}", self.agent_log());
        assert!(!self.socket().exists(), "the socket is left behind");
        let temporary: Vec<_> = fs::read_dir(self.folder().join("tmp")).unwrap().collect();
        assert!(temporary.is_empty(), "left behind: {temporary:?}");
        let shared: Vec<_> = remains::in_shared_directories().difference(&self.shared_before).cloned().collect();
        assert!(shared.is_empty(), "left behind: {shared:?}");
    }
}

impl http::Response {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.agent.is_none() {
            return;
        }
        if std::thread::panicking() {
            eprintln!("the agent's log:\n{}", self.agent_log());
            let mut agent = self.agent.take().unwrap();
            if let Some(agent) = Process::new(agent.id()) {
                agent.signal(Signal::SIGTERM);
            }
            if program::wait(&mut agent, PATIENCE).is_none() {
                agent.kill().unwrap();
                agent.wait().unwrap();
            }
            return;
        }
        let descendants = process::descendants(self.agent().pid);
        assert_eq!(self.end(Signal::SIGTERM), Some(0), "{}", self.agent_log());
        self.assert_nothing_is_left(&descendants);
    }
}
