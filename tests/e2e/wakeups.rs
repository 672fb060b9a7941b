//! What one hop costs in system calls, as strace sees it.
//!
//! The agent's own last steps of handing a call in would blur the picture: they may fall into the time in which the first
//! function runs already. So its instances are stopped before the call comes, and go on once the agent has come to rest.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::host::Host;
use crate::support::process::{self, Process, Role};
use crate::support::{PATIENCE, program, skipped, until};

const CHAIN: [&str; 3] = ["first", "second", "third"];
/// Timers of the agent's own may go off at any time; they do not do so each time.
const ATTEMPTS: usize = 5;
/// An agent that does nothing for this long has come to rest.
const REST: Duration = Duration::from_millis(60);

/// A running strace of the agent and all processes of a sandbox.
struct Strace {
    process: Child,
    output: PathBuf,
}

/// A line of strace's output.
#[derive(Debug)]
struct Line {
    thread: u32,
    time: f64,
    text: String,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let (thread, rest) = line.split_once(' ')?;
        let (time, text) = rest.trim_start().split_once(' ')?;
        Some(Self { thread: thread.parse().ok()?, time: time.parse().ok()?, text: text.to_owned() })
    }

    /// Whether a system call begins here.
    fn is_call(&self) -> bool {
        self.text.starts_with(|first: char| first.is_ascii_lowercase())
    }

    /// Whether an instance stays out of the way from here on, or sees whether it may.
    fn is_lingering(&self) -> bool {
        ["sched_yield", "nanosleep", "getrusage"].iter().any(|call| self.text.starts_with(call))
    }

    fn is_wake_up(&self) -> bool {
        self.is_call() && (self.text.contains("FUTEX_WAKE") || self.text.starts_with("write("))
    }
}

impl Strace {
    /// Attaches; `None`, and the test is skipped, where that is not allowed.
    fn attach(host: &Host, processes: &[Process]) -> Option<Self> {
        let Some(strace) = program::find(&["strace"]) else {
            skipped("there is no strace");
            return None;
        };
        let output = host.folder().join("strace");
        let mut command = Command::new(strace);
        command.args(["-f", "-ttt", "-o"]).arg(&output);
        for process in processes {
            command.arg("-p").arg(process.pid.to_string());
        }
        let mut process = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let attached = until("strace is attached", || {
            let ended = process.try_wait().unwrap().is_some();
            (ended || processes.iter().all(is_traced)).then_some(!ended)
        });
        if !attached {
            let said = process.wait_with_output().unwrap().stderr;
            skipped(&format!("strace cannot attach: {}", String::from_utf8_lossy(&said)));
            return None;
        }
        Some(Self { process, output })
    }

    fn lines(&self) -> Vec<Line> {
        std::fs::read_to_string(&self.output).unwrap().lines().filter_map(Line::parse).collect()
    }

    fn detach(mut self) -> Vec<Line> {
        Process::new(self.process.id()).unwrap().signal(Signal::SIGINT);
        assert!(program::wait(&mut self.process, PATIENCE).is_some(), "strace does not end");
        self.lines()
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|status| status.is_none()) {
            let _ended = self.process.kill();
            let _reaped = self.process.wait();
        }
    }
}

fn is_traced(process: &Process) -> bool {
    let threads = process.threads();
    let tracer = |thread: &u32| Process::new(*thread)?.status("TracerPid");
    threads.iter().all(|thread| tracer(thread).is_none_or(|tracer| tracer != "0"))
}

/// One call through the chain: what the agent's threads did while the functions ran, and what each function's instance did.
struct Observed {
    agent: Vec<Line>,
    instances: Vec<Vec<Line>>,
}

fn observe(host: &Host) -> Option<Observed> {
    let agent = host.agent();
    let instances = CHAIN.map(|function| host.processes_of("chain", function, Role::Instance));
    let sandbox = process::of_sandbox(host.first_process("chain").pid);
    let traced: Vec<_> = std::iter::once(agent.clone()).chain(sandbox.into_iter().map(|(it, _)| it)).collect();
    let strace = Strace::attach(host, &traced)?;
    let threads = agent.threads();
    for instance in &instances[0] {
        instance.signal(Signal::SIGSTOP);
        until("it has stopped", || instance.status("State").filter(|state| state.starts_with(['T', 't'])));
    }
    std::thread::scope(|scope| {
        let call = scope.spawn(|| host.sandbar(&["invoke", "chain", "x"]).well().text());
        let agents_lines = || strace.lines().iter().filter(|line| threads.contains(&line.thread)).count();
        until("the agent has handed the call in", || {
            strace
                .lines()
                .iter()
                .find(|line| threads.contains(&line.thread) && line.text.contains("FUTEX_WAKE, "))
                .map(drop)
        });
        until("the agent has come to rest", || {
            let before = agents_lines();
            std::thread::sleep(REST);
            (agents_lines() == before).then_some(())
        });
        instances[0].iter().for_each(|instance| instance.signal(Signal::SIGCONT));
        assert_eq!(call.join().unwrap(), "x>first>second>third");
    });
    let pids: Vec<u32> = instances.iter().flatten().map(|instance| instance.pid).collect();
    // An instance that has served exits; nothing more is asked of the trace.
    until("all three have exited", || {
        let lines = strace.lines();
        let exited =
            lines.iter().filter(|line| pids.contains(&line.thread) && line.text.starts_with("+++ exited")).count();
        (exited == CHAIN.len()).then_some(())
    });
    let lines = strace.detach();
    let served = instances.map(|of_function| served(&lines, &of_function));
    let start = served[0].first()?.time;
    let end = served[2].iter().find(|line| line.is_wake_up()).expect("the last wakes the agent").time;
    let during = |line: &Line| threads.contains(&line.thread) && line.time > start && line.time < end;
    let agent = lines.into_iter().filter(during).collect();
    Some(Observed { agent, instances: served.into_iter().collect() })
}

/// The lines of the one instance that served, from its wake-up on.
fn served(lines: &[Line], instances: &[Process]) -> Vec<Line> {
    let exited = |instance: &&Process| {
        lines.iter().any(|line| line.thread == instance.pid && line.text.starts_with("+++ exited"))
    };
    let instance = instances.iter().find(exited).expect("one has served");
    let own = lines.iter().filter(|line| line.thread == instance.pid);
    // The first line is the wait in which strace found it.
    let awake = own.skip(1).skip_while(|line| line.text.contains("SIGSTOP") || line.text.contains("ERESTART"));
    awake.map(|line| Line { text: line.text.clone(), ..*line }).collect()
}

#[test]
fn a_hop_is_one_wake_up_and_no_system_call_of_the_agent() {
    let Some(host) = Host::start_alone() else { return };
    host.deploy_example("chain");
    let mut attempts = Vec::new();
    for _ in 0..ATTEMPTS {
        let Some(observed) = observe(&host) else { return };
        for (function, lines) in CHAIN.iter().zip(&observed.instances) {
            let hop: Vec<_> = lines.iter().take_while(|line| !line.is_lingering()).collect();
            let wake_ups: Vec<_> = hop.iter().filter(|line| line.is_wake_up()).collect();
            assert_eq!(wake_ups.len(), 1, "{function}: {lines:#?}");
            let is_last = *function == "third";
            let to_the_agent = wake_ups[0].text.starts_with("write(");
            assert_eq!(to_the_agent, is_last, "only the last wakes the agent: {lines:#?}");
            // When it has stayed aside for a while, the last wakes those before it, which end like it.
            let later = lines.iter().filter(|line| line.is_wake_up()).count() - wake_ups.len();
            assert!(later <= usize::from(is_last), "{function}: {lines:#?}");
            // Before it is woken it waits, and after it has woken another it stays out of the way, and ends.
            let is_expected = |line: &&Line| {
                line.text.contains("FUTEX_WAIT") || line.text.starts_with("exit_group") || line.is_lingering()
            };
            let others: Vec<_> = lines.iter().filter(|line| line.is_call() && !line.is_wake_up()).collect();
            assert!(others.iter().all(is_expected), "{function} did more than serve: {lines:#?}");
        }
        if observed.agent.is_empty() {
            for (function, lines) in CHAIN.iter().zip(&observed.instances) {
                let calls = lines.iter().filter(|line| line.is_call()).map(|line| line.text.as_str());
                println!("{function}: {}", calls.collect::<Vec<_>>().join("; "));
            }
            return;
        }
        attempts.push(observed.agent);
    }
    panic!("the agent had a part in each of {ATTEMPTS} calls: {attempts:#?}");
}
