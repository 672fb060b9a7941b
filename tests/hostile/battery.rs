//! Running the probes of a group, one after another, against an application and a host of the group's own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::neighbours;
use crate::probe::{Harm, Language, Probe, Told};
use crate::support::bundle;
use crate::support::host::{Called, Host};
use crate::support::http;
use crate::support::program;
use crate::surroundings::Surroundings;

/// What a caller may be told after its deadline.
const TOLERANCE: Duration = Duration::from_millis(1500);
/// Where the programs of a group are, beside this file.
const FUNCTIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hostile/functions");
/// Tests that count their probes: when the last of them is over, all are counted.
const TESTS: usize = 11;

/// A group's application: its limits, and the programs its probes are in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) probes: &'static [Probe],
}

/// The limits of every hostile application. Two processors more than the machine may have: nothing but the limits on processes and
/// memory, and the scheduler, stands between a probe and the others.
const LIMITS: &str = "[limits]\nmemory = \"128MiB\"\nprocesses = 64\npayload = \"1MiB\"\ncpus = 4\n";

/// The program of the native functions, built by the first to ask.
pub(crate) fn native_program() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["build", "--release", "--locked", "-p", "hostile", "--manifest-path"])
            .arg(root.join("Cargo.toml"));
        program::run(&mut command, Duration::from_secs(900)).well();
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |target| root.join(target));
        target.join("release/hostile")
    };
    BUILT.get_or_init(build).clone()
}

/// Writes an application of some functions into a folder: `(name, runtime and code)`, as the manifest has them.
pub(crate) fn write_application(folder: &Path, name: &str, functions: &[(&str, &str)], files: &[(&str, &str)]) {
    let mut manifest = format!("name = \"{name}\"\nentry = \"echo\"\n\n{LIMITS}");
    let echo = ("echo", "runtime = \"native\"\ncode = \"hostile\"");
    for (function, code) in functions.iter().chain([&echo]) {
        manifest.push_str(&format!("\n[functions.{function}]\n{code}\ntimeout = \"8s\"\n"));
    }
    bundle::write(folder, files);
    bundle::write(folder, &[("sandbar.toml", &manifest)]);
    let program = folder.join("hostile");
    fs::copy(native_program(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A file of the probes' programs.
pub(crate) fn program_text(name: &str) -> String {
    fs::read_to_string(Path::new(FUNCTIONS).join(name)).unwrap()
}

/// Deploys the neighbour, and the application of a group under the group's name.
pub(crate) fn deploy(host: &Host, group: &Group) {
    let other = host.folder().join("other");
    write_application(&other, neighbours::OTHER, &[], &[]);
    host.deploy(&other);
    deploy_group(host, group);
}

fn deploy_group(host: &Host, group: &Group) {
    let uses = |language| group.probes.iter().any(|probe| probe.language == language);
    let mut functions = vec![("look", "runtime = \"native\"\ncode = \"hostile\"")];
    let mut files = Vec::new();
    if uses(Language::Native) {
        functions.push(("native", "runtime = \"native\"\ncode = \"hostile\""));
    }
    if uses(Language::Python) {
        functions.push(("python", "runtime = \"python3\"\ncode = \"probes.py\""));
        files.push(("probes.py", program_text(&format!("{}.py", group.name))));
        files.push(("probing.py", program_text("probing.py")));
    }
    if uses(Language::Shell) {
        functions.push(("shell", "runtime = \"executable\"\ncode = \"probes.sh\""));
        files.push(("probes.sh", program_text(&format!("{}.sh", group.name))));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let folder = host.folder().join(group.name);
    write_application(&folder, group.name, &functions, &files);
    host.deploy(&folder);
}

/// What a probe is told: which it is, and where things are that it should not reach.
pub(crate) fn event(host: &Host, probe: &Probe) -> String {
    format!(
        "{}\nstate={}\nsocket={}\nother={}\ncoap={}\nhttp={}\nagent={}\n",
        probe.name,
        host.state().display(),
        host.socket().display(),
        host.state().join("applications").join(neighbours::OTHER).display(),
        host.coap.port(),
        host.http.port(),
        host.agent().pid,
    )
}

/// A call with a deadline of its own.
pub(crate) fn call_within(host: &Host, application: &str, function: &str, payload: &[u8], timeout: Duration) -> Called {
    let begin = Instant::now();
    let ms = timeout.as_millis();
    let path = format!("/v1/applications/{application}/calls?trace=true&timeout_ms={ms}&function={function}");
    let http::Response { body, .. } = host.manage("POST", &path, payload);
    let end = body.iter().position(|byte| *byte == b'\n').unwrap_or(body.len());
    let called: Called = serde_json::from_slice(&body[..end]).unwrap();
    Called { payload: body.get(end + 1..).unwrap_or_default().to_vec(), took: begin.elapsed(), ..called }
}

/// What is wrong with how a call ended.
fn ended_wrongly(probe: &Probe, called: &Called) -> Option<String> {
    let text = called.text();
    let right = match probe.told {
        Told::Held => called.outcome == "done" && text.starts_with("held: "),
        Told::Answer(answer) => called.outcome == "done" && text.starts_with(answer),
        Told::Failed(diagnostic) => called.outcome == "failed" && called.diagnostic.contains(diagnostic),
        Told::DeadlinePassed => called.outcome == "deadline-passed",
        Told::Any => true,
    };
    if !right {
        let shown: String = text.chars().take(2000).collect();
        return Some(format!("told {}: {} {shown}", called.outcome, called.diagnostic));
    }
    (called.took > probe.timeout + TOLERANCE).then(|| format!("told after {:?}", called.took))
}

/// What is left in the directories of temporary files, as a function of the application sees it; and whether its hop is traced.
fn left_inside(host: &Host, application: &str) -> Vec<String> {
    let begin = Instant::now();
    loop {
        let called = call_within(host, application, "look", b"", Duration::from_secs(3));
        let mut wrong: Vec<String> = called.text().lines().map(|line| format!("left behind: {line}")).collect();
        if called.outcome != "done" {
            wrong.push(format!("nobody can look: {}: {}", called.outcome, called.diagnostic));
        } else if called.hops.len() != 1 {
            wrong.push(format!("the path of a call is no longer told: {:?}", called.hops));
        }
        if wrong.is_empty() || begin.elapsed() > Duration::from_secs(2) {
            wrong.truncate(8);
            return wrong;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a probe and says all that gave way.
fn run(host: &Host, group: &Group, probe: &Probe, before: &mut Surroundings<'_>) -> Vec<String> {
    let event = event(host, probe);
    let (told, mut wrong) = neighbours::beside(host, group.name, probe.harm, || {
        let call = || call_within(host, group.name, probe.language.function(), event.as_bytes(), probe.timeout);
        (0..probe.times).filter_map(|_| ended_wrongly(probe, &call())).next_back()
    });
    wrong.truncate(4);
    wrong.extend(told);
    wrong.extend(neighbours::recovered(host, group.name));
    wrong.extend(left_inside(host, group.name));
    wrong.extend(before.differences(probe.harm));
    wrong
}

/// Runs all probes of a group, however many do not hold; fails if one does not.
pub(crate) fn run_group(group: &Group) {
    let Some(host) = Host::start_alone() else { return };
    deploy(&host, group);
    let mut before = Surroundings::look(&host, group.name);
    let (mut gave_way, mut count) = (Vec::new(), 0);
    for probe in group.probes.iter().filter(|probe| is_wanted(probe.name)) {
        let begin = Instant::now();
        let wrong = run(&host, group, probe, &mut before);
        println!("{}/{} ({:?}): {:?}", group.name, probe.name, probe.language, begin.elapsed());
        count += 1;
        if !wrong.is_empty() || probe.harm == Harm::Scribbles {
            // The next is not to suffer from this one, nor from how long a sandbox that ends again and again is kept waiting.
            host.sandbar(&["remove", group.name]).well();
            deploy_group(&host, group);
            before = Surroundings::look(&host, group.name);
        }
        if !wrong.is_empty() {
            gave_way.push(format!(
                "{}/{} ({:?}):\n    {}",
                group.name,
                probe.name,
                probe.language,
                wrong.join("\n    ")
            ));
        }
    }
    over(count, gave_way.len());
    assert!(gave_way.is_empty(), "{} of {count} probes did not hold:\n{}", gave_way.len(), gave_way.join("\n"));
}

/// One probe alone runs if `SANDBAR_PROBE` names it.
pub(crate) fn is_wanted(name: &str) -> bool {
    std::env::var("SANDBAR_PROBE").map_or(true, |wanted| wanted == name)
}

/// Counts the probes of a test; the last to be over has all of them told, past the test harness.
pub(crate) fn over(probes: usize, gave_way: usize) {
    static OVER: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
    let add = |at: usize, more: usize| OVER[at].fetch_add(more, Ordering::SeqCst) + more;
    let (probes, gave_way) = (add(1, probes), add(2, gave_way));
    if add(0, 1) == TESTS {
        let line = format!("{probes} probes: {} held\n", probes - gave_way);
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
}
