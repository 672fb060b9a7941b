//! What of the host a sandbox sees, and how its workers are started.

use std::fs;
use std::path::{Path, PathBuf};

use sandbar_supervisor::identity::{Network, ResourceLimits};
use sandbar_supervisor::protocol::{Bind, FunctionPlan, Plan, Program, Renewal};

use crate::inside::{DIRECTORY_INSIDE, Inside, PYTHON_WORKER_NAME};
use crate::manifest::{Application, FunctionLimits, Runtime};
use crate::python::Python;

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

/// Plans the sandbox of an application whose files are in `directory`.
pub(super) fn plan(
    application: &Application,
    directory: &Path,
    inside: &Inside,
    python: Option<&Python>,
    mount_point: &Path,
    renewal: Renewal,
) -> Plan {
    let mut binds = Vec::new();
    let mut links = Vec::new();
    for path in SYSTEM.map(Path::new) {
        match fs::read_link(path) {
            Ok(to) => links.push((path.to_owned(), to)),
            Err(_) => binds.extend(bind(path, false)),
        }
    }
    binds.extend(SETTINGS.iter().filter_map(|path| bind(Path::new(path), false)));
    if application.network == Network::Host {
        binds.extend(bind(Path::new(RESOLVER), false));
    }
    binds.extend(DEVICES.iter().filter_map(|path| bind(Path::new(path), true)));
    if let Some(python) = python {
        binds.extend(python.directories.iter().filter_map(|directory| bind(directory, false)));
    }
    binds.push(Bind { source: inside.directory.clone(), target: DIRECTORY_INSIDE.into(), device: false });
    binds.push(Bind { source: directory.to_owned(), target: APPLICATION_INSIDE.into(), device: false });
    for (at, to) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        links.push((Path::new("/dev").join(at), format!("/proc/self/fd{to}").into()));
    }
    Plan {
        application: application.name.as_str().to_owned(),
        mount_point: mount_point.to_owned(),
        binds,
        links,
        files: files(application),
        tmp_bytes: application.limits.memory_bytes / TMP_SHARE,
        network: application.network,
        renewal,
        resources: ResourceLimits {
            processes: application.limits.processes.into(),
            file_bytes: application.limits.memory_bytes,
        },
        functions: application
            .functions
            .iter()
            .map(|function| FunctionPlan {
                name: function.name.as_str().to_owned(),
                program: program(function, python),
                timeout: function.timeout,
                memory_limit: memory_limit(function, application),
                own_group: function.limits != FunctionLimits::default(),
            })
            .collect(),
    }
}

/// What is said of a function that has exceeded its memory. Where it has a limit of its own, the kernel does not tell which of the two
/// it was.
fn memory_limit(function: &crate::manifest::Function, application: &Application) -> String {
    let whole = application.limits.memory_bytes >> 20;
    match function.limits.memory_bytes {
        None => format!("the application's limit is {whole} MiB"),
        Some(own) => format!("the function's limit is {} MiB, the application's {whole} MiB", own >> 20),
    }
}

fn program(function: &crate::manifest::Function, python: Option<&Python>) -> Program {
    let code = Path::new(APPLICATION_INSIDE).join(&function.code);
    match function.runtime {
        Runtime::Native => Program::Native { path: code },
        Runtime::Executable => Program::Executable { path: code },
        Runtime::Python3 => Program::Python {
            interpreter: python.map_or_else(|| PathBuf::from("/usr/bin/python3"), |python| python.executable.clone()),
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
