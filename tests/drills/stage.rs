//! The stage of a drill: a host under load, a neighbour with a state of its own that must not notice, and things that bear similar
//! names and are not ours.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::census;
use crate::load::{self, Caller, Closing, Door};
use crate::support::host::Host;
use crate::support::process::{self, Process};
use crate::support::program::{self, Finished};
use crate::support::{PATIENCE, bundle, remains, until_within};

/// Applications that are always there, and what they answer.
pub(crate) const STANDING: [&str; 3] = ["chain", "den", "porch"];
/// The application that is replaced, with versions that say their number.
pub(crate) const LAMP: &str = "lamp";
/// The application that comes and goes.
pub(crate) const GUEST: &str = "guest";

/// How long a deployment or a removal may take, whatever dies meanwhile.
const CHANGE_MAX: Duration = Duration::from_secs(15);

const CHILDREN: &str = "#!/bin/sh\nsleep 60 >/dev/null 2>&1 &\nsleep 60 >/dev/null 2>&1 &\ncat\n";
const ASKING: &str = "def ask(event, context):\n    return context.call('/porch', event)\n";

#[derive(Debug)]
pub(crate) struct Stage {
    _closing: Closing,
    pub(crate) host: Host,
    pub(crate) door: Arc<Door>,
    callers: Vec<Caller>,
    /// What [`LAMP`] may answer: what was deployed last, and what may or may not have been deployed since.
    pub(crate) lamp: BTreeSet<String>,
    version: u32,
    neighbour: Neighbour,
    foreign: Foreign,
}

/// A command under way that changes what is deployed.
#[derive(Debug)]
pub(crate) struct Change {
    child: Child,
    since: Instant,
}

impl Change {
    /// Waits for its end: its exit code (`None` if it was killed) and what it said.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let ended = program::wait(&mut self.child, CHANGE_MAX);
        assert!(ended.is_some(), "a change of what is deployed takes longer than {:?}", self.since.elapsed());
        let output = self.child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Finished { code: output.status.code(), stdout: output.stdout, stderr }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }
}

fn is_right(application: &str) -> load::Right {
    match application {
        "chain" => |body| body == "x>first>second>third",
        LAMP | GUEST => |body| body.trim().parse::<u32>().is_ok(),
        _ => |body| body == "x",
    }
}

impl Stage {
    pub(crate) fn set() -> Option<Self> {
        let neighbour = Neighbour::start()?;
        let host = Host::start_with(&[&["--first-user", "2013265920"], &census::SOON_AT_REST[..]].concat())?;
        let notes = [host.folder().join("notes"), host.folder().join(".sandbar-notes"), host.state().join("notes")];
        let foreign = Foreign::beside(&host, &notes);
        write_standing(&host);
        for name in STANDING {
            host.deploy(&host.folder().join(name));
        }
        let door = Door::new(host.http, Duration::from_millis(3));
        let lamp = BTreeSet::new();
        let _closing = Closing(Arc::clone(&door));
        let mut stage = Self { _closing, host, door, callers: Vec::new(), lamp, version: 0, neighbour, foreign };
        stage.replace_lamp();
        Some(stage)
    }

    pub(crate) fn load_begins(&mut self) {
        let callers = STANDING.into_iter().chain([LAMP]);
        self.callers = callers.map(|name| Caller::start(&self.door, name, is_right(name), false)).collect();
        self.callers.push(Caller::start(&self.door, GUEST, is_right(GUEST), true));
    }

    pub(crate) fn load_ends(&mut self) {
        for caller in self.callers.drain(..) {
            println!("{:?}", caller.finish());
        }
    }

    /// Writes the next version of an application whose answer is the version's number.
    fn write_version(&mut self, name: &str) -> (PathBuf, String) {
        self.version += 1;
        let (folder, version) = (self.host.folder().join(name), self.version.to_string());
        let manifest = format!(
            "name = \"{name}\"\n[functions.say]\nruntime = \"executable\"\ncode = \"say.sh\"\ntimeout = \"5s\"\n"
        );
        bundle::write(&folder, &[("sandbar.toml", &manifest), ("say.sh", &format!("#!/bin/sh\necho {version}\n"))]);
        (folder, version)
    }

    fn change(&self, arguments: &[&str]) -> Change {
        let mut command = self.host.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Change { child: command.spawn().unwrap(), since: Instant::now() }
    }

    /// Begins to deploy the next version of [`LAMP`], which may answer from now on.
    pub(crate) fn begin_lamp(&mut self) -> (Change, String) {
        let (folder, version) = self.write_version(LAMP);
        self.lamp.insert(version.clone());
        (self.change(&["deploy", folder.to_str().unwrap()]), version)
    }

    /// Deploys the next version of [`LAMP`].
    #[track_caller]
    pub(crate) fn replace_lamp(&mut self) {
        let (change, version) = self.begin_lamp();
        change.finish().well();
        self.lamp = BTreeSet::from([version]);
    }

    /// Begins to deploy a version of [`LAMP`] that does not load.
    pub(crate) fn begin_broken(&mut self) -> Change {
        let folder = self.host.folder().join("broken");
        let manifest = bundle::python_manifest(LAMP, &["broken"]);
        bundle::write(&folder, &[("sandbar.toml", &manifest), ("functions.py", "raise RuntimeError('not today')\n")]);
        self.change(&["deploy", folder.to_str().unwrap()])
    }

    pub(crate) fn begin_guest(&mut self) -> Change {
        let (folder, _) = self.write_version(GUEST);
        self.change(&["deploy", folder.to_str().unwrap()])
    }

    pub(crate) fn begin_removal(&mut self) -> Change {
        self.change(&["remove", GUEST])
    }

    /// The names of what is deployed.
    pub(crate) fn deployed(&self) -> BTreeSet<String> {
        let listed = self.host.manage("GET", "/v1/applications", b"").json();
        listed.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The first process of an application's sandbox, once it runs.
    #[track_caller]
    pub(crate) fn first_process(&self, application: &str) -> Process {
        until_within(PATIENCE, &format!("{application} runs"), || {
            let listed = self.host.manage("GET", "/v1/applications", b"").json();
            let pid = listed.as_array().unwrap().iter().find(|it| it["name"] == application)?["pid"].as_u64()?;
            Process::new(u32::try_from(pid).unwrap())
        })
    }

    /// Calls until the application answers well.
    #[track_caller]
    pub(crate) fn assert_answers(&self, application: &str) {
        let mut told = String::new();
        let answered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until_within(PATIENCE, &format!("{application} answers"), || {
                let (status, body) = load::post(self.host.http, application).unwrap();
                told = format!("{status} {body}");
                (status == 200).then_some(body)
            })
        }));
        let body = answered.unwrap_or_else(|_| panic!("{application}: {told}\n{}", self.host.agent_log()));
        assert!(is_right(application)(&body), "{application}: {body:?}");
        if application == LAMP {
            assert!(self.lamp.contains(body.trim()), "version {body:?} answers, not one of {:?}", self.lamp);
        }
    }

    /// Everything that is deployed answers, and it is what is to be deployed.
    #[track_caller]
    pub(crate) fn assert_all_answer(&self) {
        let deployed = self.deployed();
        for name in STANDING.into_iter().chain([LAMP]) {
            assert!(deployed.contains(name), "{name} is no longer deployed: {deployed:?}\n{}", self.host.agent_log());
        }
        for name in &deployed {
            self.assert_answers(name);
        }
    }

    /// Kills the agent and sees that all of its sandboxes die with it.
    #[track_caller]
    pub(crate) fn kill_agent(&mut self) {
        let descendants = process::descendants(self.host.agent().pid);
        self.door.goes_down();
        assert_eq!(self.host.end(Signal::SIGKILL), None);
        census::assert_dead(&self.host, &descendants);
    }

    /// Starts the agent again; all is as it was.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.host.serve();
        self.door.is_up(self.host.http);
        self.assert_tidy();
        self.assert_all_answer();
    }

    /// The host has files and control groups for what is deployed, and no others.
    #[track_caller]
    pub(crate) fn assert_tidy(&self) {
        let deployed = self.deployed();
        census::assert_files(&self.host, &deployed);
        let name = self.host.name();
        let sandboxes = |tree: &Path| census::directories(&tree.join(&name)).len();
        until_within(census::REST_MAX, "each sandbox, and no other, has its control groups", || {
            self.foreign.trees.iter().all(|tree| sandboxes(tree) == deployed.len()).then_some(())
        });
    }

    /// The neighbour has not noticed, and what is not ours is untouched.
    #[track_caller]
    pub(crate) fn assert_others_untouched(&self) {
        self.neighbour.assert_untouched();
        self.foreign.assert_untouched();
    }

    /// Ends it all.
    pub(crate) fn strike(mut self) {
        self.load_ends();
        self.assert_others_untouched();
        let Self { mut host, neighbour, foreign, .. } = self;
        let descendants = process::descendants(host.agent().pid);
        assert_eq!(host.end(Signal::SIGTERM), Some(0), "{}", host.agent_log());
        host.assert_nothing_is_left(&descendants);
        foreign.assert_untouched();
        neighbour.finish();
        drop(foreign);
        census::assert_no_orphans();
    }
}

fn write_standing(host: &Host) {
    let chain = host.folder().join("chain");
    bundle::write(&chain, &[]);
    let example = bundle::example("chain");
    fs::create_dir_all(chain.join("bin")).unwrap();
    for file in ["sandbar.toml", "bin/chain"] {
        fs::copy(example.join(file), chain.join(file)).unwrap();
    }
    let porch = "name = \"porch\"\ncallers = [\"den\"]\n[functions.cat]\nruntime = \"executable\"\ncode = \"cat.sh\"\ntimeout = \"2s\"\n";
    bundle::write(&host.folder().join("porch"), &[("sandbar.toml", porch), ("cat.sh", CHILDREN)]);
    let den = bundle::python_manifest("den", &["ask"]);
    let den = den.replacen("\n\n", "\ncalls = [\"/porch\"]\n\n", 1) + "timeout = \"5s\"\n";
    bundle::write(&host.folder().join("den"), &[("sandbar.toml", &den), ("functions.py", ASKING)]);
}

/// A second host, with a state of its own, that serves all the while.
#[derive(Debug)]
struct Neighbour {
    _closing: Closing,
    host: Host,
    first: Process,
    groups: Vec<PathBuf>,
    caller: Caller,
}

impl Neighbour {
    fn start() -> Option<Self> {
        let host = Host::start()?;
        let folder = host.folder().join("quiet");
        let manifest = "name = \"quiet\"\n[functions.cat]\nruntime = \"executable\"\ncode = \"cat.sh\"\n";
        bundle::write(&folder, &[("sandbar.toml", manifest), ("cat.sh", "#!/bin/sh\ncat\n")]);
        host.deploy(&folder);
        let door = Door::new(host.http, Duration::from_millis(25));
        let caller = Caller::start(&door, "quiet", is_right("quiet"), false);
        let (first, groups) = (host.first_process("quiet"), remains::cgroups(&host.name()));
        Some(Self { _closing: Closing(door), host, first, groups, caller })
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert!(self.first.exists(), "the neighbour's sandbox ended");
        assert_eq!(remains::cgroups(&self.host.name()), self.groups);
    }

    fn finish(self) {
        let told = self.caller.finish();
        println!("the neighbour: {told:?}");
        assert!(told.keys().all(|told| told == "200"), "the neighbour noticed: {told:?}");
    }
}

/// Control groups and files whose names are like a host's and which are not the host's.
#[derive(Debug)]
struct Foreign {
    /// Directories in which the host has its control groups.
    trees: Vec<PathBuf>,
    /// Each with whether the sleeper is in it.
    groups: Vec<(PathBuf, bool)>,
    sleeper: Child,
    files: Vec<PathBuf>,
}

impl Foreign {
    fn beside(host: &Host, notes: &[PathBuf]) -> Self {
        for file in notes {
            fs::write(file, "not yours").unwrap();
        }
        let name = host.name();
        // The host has no groups before its first sandbox: what it has then is looked for.
        host.deploy(&probe(host));
        let ours =
            remains::cgroups(&name).into_iter().filter(|path| path.file_name().is_some_and(|it| it == name.as_str()));
        let trees: Vec<_> = ours.map(|path| path.parent().unwrap().to_owned()).collect();
        host.sandbar(&["remove", "probe"]).well();
        let sleeper = Command::new("sleep").arg("86400").spawn().unwrap();
        let mut groups = Vec::new();
        for tree in &trees {
            for (group, is_occupied) in [(format!("{name}0"), true), (name[..name.len() - 1].to_owned(), false)] {
                fs::create_dir(tree.join(&group)).unwrap();
                groups.push((tree.join(group), is_occupied));
            }
            fs::write(tree.join(format!("{name}0/cgroup.procs")), sleeper.id().to_string()).unwrap();
        }
        Self { trees, groups, sleeper, files: notes.to_owned() }
    }

    #[track_caller]
    fn assert_untouched(&self) {
        let pid = self.sleeper.id().to_string();
        for (group, is_occupied) in &self.groups {
            let inside = fs::read_to_string(group.join("cgroup.procs")).expect("a foreign group stays");
            assert_eq!(inside.lines().any(|line| line == pid), *is_occupied, "{}", group.display());
        }
        for file in &self.files {
            assert_eq!(fs::read_to_string(file).ok().as_deref(), Some("not yours"), "{}", file.display());
        }
    }
}

fn probe(host: &Host) -> PathBuf {
    let folder = host.folder().join("probe");
    let manifest = "name = \"probe\"\n[functions.cat]\nruntime = \"executable\"\ncode = \"cat.sh\"\n";
    bundle::write(&folder, &[("sandbar.toml", manifest), ("cat.sh", "#!/bin/sh\ncat\n")]);
    folder
}

impl Drop for Foreign {
    fn drop(&mut self) {
        drop(self.sleeper.kill());
        drop(self.sleeper.wait());
        for (group, _) in &self.groups {
            let removed = until_removed(group);
            if !std::thread::panicking() {
                assert!(removed, "{}", group.display());
            }
        }
    }
}

fn until_removed(group: &Path) -> bool {
    (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(2));
        fs::remove_dir(group).is_ok()
    })
}
