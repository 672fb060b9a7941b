//! What of the host a sandbox sees, and how its workers are started.
//!
//! With a root file system of its own an application sees no system directory or setting of the host: only devices, its own files,
//! what workers load, and what [`files`] says.

use std::fs;
use std::path::{Path, PathBuf};

use sandbar_supervisor::identity::{Network, ResourceLimits};
use sandbar_supervisor::protocol::{Bind, FunctionPlan, Plan, Program, RestPlan};

use crate::inside::{DIRECTORY_INSIDE, PYTHON_WORKER_NAME};
use crate::manifest::{Application, Function, FunctionLimits, Runtime};
use crate::sandbox::{Grounds, Specification};

/// Where a sandbox sees its application's files.
const APPLICATION_INSIDE: &str = "/app";
/// Directories of the system; some of them are links into `/usr` on most hosts.
const SYSTEM: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32"];
/// What programs need of `/etc`: nothing that is secret or says much of the host.
const SETTINGS: [&str; 5] =
    ["/etc/ld.so.cache", "/etc/alternatives", "/etc/ssl/certs", "/etc/localtime", "/etc/mime.types"];
/// Who answers questions for names, where the network is the host's.
const RESOLVER: &str = "/etc/resolv.conf";
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// The share of an application's memory that its temporary files may take.
const TMP_SHARE: u64 = 4;

/// Plans a sandbox.
pub(super) fn plan(specification: &Specification, grounds: &Grounds) -> Plan {
    let application = &specification.application;
    let mut binds = Vec::new();
    let mut links = Vec::new();
    if specification.rootfs.is_none() {
        show_system(&mut binds, &mut links);
    }
    if application.network == Network::Host {
        binds.extend(bind(Path::new(RESOLVER), false));
    }
    binds.extend(DEVICES.iter().filter_map(|path| bind(Path::new(path), true)));
    if let Some(python) = &specification.python {
        binds.extend(python.directories.iter().filter_map(|directory| bind(directory, false)));
    }
    binds.push(Bind { source: grounds.inside.directory.clone(), target: DIRECTORY_INSIDE.into(), device: false });
    binds.push(Bind { source: specification.directory.clone(), target: APPLICATION_INSIDE.into(), device: false });
    for (at, to) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        links.push((Path::new("/dev").join(at), format!("/proc/self/fd{to}").into()));
    }
    let interpreter = specification.python.as_ref().map(|python| python.executable.as_path());
    let functions = application.functions.iter().map(|function| FunctionPlan {
        name: function.name.as_str().to_owned(),
        program: program(function, interpreter),
        timeout: function.timeout,
        memory_limit: memory_limit(function, application),
        own_group: function.limits != FunctionLimits::default(),
    });
    Plan {
        application: application.name.as_str().to_owned(),
        mount_point: grounds.mount_point.clone(),
        own_root: specification.rootfs.is_some(),
        binds,
        links,
        files: files(application),
        tmp_bytes: application.limits.memory_bytes / TMP_SHARE,
        network: application.network,
        renewal: grounds.renewal,
        rest: RestPlan {
            ready: application.rest.ready.unwrap_or(grounds.rest.ready).time(),
            workers: application.rest.workers.unwrap_or(grounds.rest.workers).time(),
        },
        resources: ResourceLimits {
            processes: application.limits.processes.into(),
            file_bytes: application.limits.memory_bytes,
        },
        functions: functions.collect(),
    }
}

/// The host's programs and libraries, and what they need.
fn show_system(binds: &mut Vec<Bind>, links: &mut Vec<(PathBuf, PathBuf)>) {
    for path in SYSTEM.map(Path::new) {
        match fs::read_link(path) {
            Ok(to) => links.push((path.to_owned(), to)),
            Err(_) => binds.extend(bind(path, false)),
        }
    }
    binds.extend(SETTINGS.iter().filter_map(|path| bind(Path::new(path), false)));
}

/// What is said of a function that has exceeded its memory. Where it has a limit of its own, the kernel does not tell which of the two
/// it was.
fn memory_limit(function: &Function, application: &Application) -> String {
    let whole = application.limits.memory_bytes >> 20;
    match function.limits.memory_bytes {
        None => format!("the application's limit is {whole} MiB"),
        Some(own) => format!("the function's limit is {} MiB, the application's {whole} MiB", own >> 20),
    }
}

fn program(function: &Function, interpreter: Option<&Path>) -> Program {
    let code = Path::new(APPLICATION_INSIDE).join(&function.code);
    match function.runtime {
        Runtime::Native => Program::Native { path: code },
        Runtime::Executable => Program::Executable { path: code },
        Runtime::Python3 => Program::Python {
            interpreter: interpreter.unwrap_or(Path::new("/usr/bin/python3")).to_owned(),
            worker: Path::new(DIRECTORY_INSIDE).join(PYTHON_WORKER_NAME),
            code,
            handler: function.handler.clone(),
        },
    }
}

/// What a host does not have is not seen.
fn bind(path: &Path, device: bool) -> Option<Bind> {
    path.exists().then(|| Bind { source: path.to_owned(), target: path.to_owned(), device })
}

/// Small files, also in place of those that an image has: its users exist nowhere else, and must not lend workers and calls their
/// names.
fn files(application: &Application) -> Vec<(PathBuf, String)> {
    let name = application.name.as_str();
    let names = if application.network == Network::Host { "files dns" } else { "files" };
    let file = |path: &str, contents: String| (PathBuf::from(path), contents);
    vec![
        file("/etc/passwd", "root:x:0:0::/:/bin/false\nworker:x:1000:1000::/tmp:/bin/false\n".to_owned()),
        file("/etc/group", "root:x:0:\nworker:x:1000:\n".to_owned()),
        file("/etc/hosts", format!("127.0.0.1 localhost {name}\n::1 localhost\n")),
        file("/etc/nsswitch.conf", format!("passwd: files\ngroup: files\nhosts: {names}\n")),
    ]
}
