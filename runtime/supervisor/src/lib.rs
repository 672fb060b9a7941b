//! PID 1 of a sandbox.
//!
//! Started by the host agent as a process of its own, with an empty environment and one descriptor: the socket to the agent, as
//! standard input. From there on it is a straight list: [`run`].
//!
//! It makes the sandbox around itself while it is still the host's root, before any code of the application runs
//! ([`root`], [`identity`], [`seccomp`]); then it starts the workers ([`spawn`]), and from then on only
//! [supervises](supervise).

mod executable;
pub mod identity;
pub mod landlock;
pub mod memory;
pub mod protocol;
mod reaping;
pub mod root;
pub mod seccomp;
pub mod spawn;
pub mod supervise;
pub mod template;
mod temporary;

use std::error::Error;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::prctl;
use nix::unistd::dup;
use sandbar_bus::Bus;
use sandbar_function::heap;

use crate::memory::MemoryKills;
use crate::protocol::{Event, FunctionGroup, Go, PLAN_DESCRIPTORS, Plan, Received, receive, send};
use crate::spawn::{Outlets, OwnGroup};
use crate::supervise::Supervisor;
use crate::temporary::TemporaryFiles;

/// Makes the sandbox that the agent plans, and runs it until the agent is gone.
///
/// # Errors
/// When the sandbox cannot be made or cannot go on. The agent has been told, if it is there.
pub fn run() -> Result<(), Box<dyn Error>> {
    close_inherited()?;
    let agent = dup(std::io::stdin())?;
    let result = make_and_run(agent.as_fd().try_clone_to_owned()?);
    if let Err(error) = &result {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason.push_str(": ");
            reason.push_str(&cause.to_string());
            source = cause.source();
        }
        // If the agent is gone nobody is left to be told.
        let _gone = send(agent.as_fd(), &Event::Failed { reason }, &[]);
    }
    result
}

/// Closes whatever the agent had open that it did not mean for a sandbox: a service manager or a shell may have left it descriptors that
/// outlive an exec.
#[allow(unsafe_code, reason = "close_range(2) has no wrapper")]
fn close_inherited() -> std::io::Result<()> {
    // SAFETY: nothing has been opened yet in this process, so that nobody owns what is closed.
    let closed = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    if closed < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

fn make_and_run(agent: OwnedFd) -> Result<(), Box<dyn Error>> {
    let Received { record: plan, mut descriptors, .. } = receive::<Plan>(agent.as_fd())?;
    let groups = receive_groups(agent.as_fd(), &plan)?;
    if plan.own_root && descriptors.is_empty() {
        return Err("the plan comes without its root file system".into());
    }
    let own_root = plan.own_root.then(|| descriptors.remove(0));
    identity::leave_host(plan.network)?;
    if let Some(pid) = fork_first_process()? {
        return Ok(send(agent.as_fd(), &Event::Forked { pid }, &[])?);
    }
    prctl::set_name(c"sandbar-super")?;
    let null = std::fs::File::open("/dev/null")?.into();
    identity::name_host(&plan.application, plan.network)?;
    root::enter(&plan, own_root)?;
    identity::enter_user_namespace()?;
    send(agent.as_fd(), &Event::Created, &[])?;
    let Received { descriptors: entries, .. } = receive::<Go>(agent.as_fd())?;
    identity::enter_groups(&entries)?;
    drop(entries);
    identity::become_supervisor(&plan.resources)?;
    let Descriptors { bus, wake, mut outlets } = sort_descriptors(descriptors, groups, null)?;
    outlets.rules = landlock::rules()?;
    let temporary = TemporaryFiles::open()?;
    seccomp::confine()?;
    let supervisor =
        Supervisor::start(bus, agent, wake, outlets, temporary, plan.functions, (plan.renewal, plan.rest))?;
    // What it took to make the sandbox is not needed again, and there is one supervisor for each application.
    heap::trim();
    Ok(supervisor.run()?)
}

/// Forks the first process of the new process id namespace as a child of the agent: its id on the host in the process that
/// is left over, `None` in the new one.
#[allow(unsafe_code, reason = "clone(2) with a parent of its own")]
fn fork_first_process() -> std::io::Result<Option<i32>> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: without CLONE_VM the child has a copy of this address space and continues here, as after fork(2). This process
    // has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_PARENT | libc::SIGCHLD, none, none, none, none) };
    match i32::try_from(pid) {
        Ok(0) => Ok(None),
        Ok(pid) if pid > 0 => Ok(Some(pid)),
        Ok(_) | Err(_) => Err(std::io::Error::last_os_error()),
    }
}

struct Descriptors {
    bus: &'static Bus,
    wake: OwnedFd,
    outlets: Outlets,
}

/// The control groups of those functions that have some, by function.
fn receive_groups(agent: BorrowedFd<'_>, plan: &Plan) -> Result<Vec<Option<OwnGroup>>, Box<dyn Error>> {
    let mut groups: Vec<Option<OwnGroup>> = plan.functions.iter().map(|_| None).collect();
    for _ in plan.functions.iter().filter(|function| function.own_group) {
        let Received { record, descriptors, .. } = receive::<FunctionGroup>(agent)?;
        let mut descriptors = descriptors.into_iter();
        let kills = MemoryKills::new(descriptors.next().ok_or("a function's control group has no count of kills")?);
        let place = groups.get_mut(record.function).ok_or("a control group is of no function")?;
        *place = Some(OwnGroup { kills, entries: descriptors.collect() });
    }
    Ok(groups)
}

/// The descriptors of a plan, each in its place, and the bus joined.
fn sort_descriptors(
    descriptors: Vec<OwnedFd>,
    groups: Vec<Option<OwnGroup>>,
    null: OwnedFd,
) -> Result<Descriptors, Box<dyn Error>> {
    let mut rest = descriptors.into_iter();
    let mut next = || rest.next().ok_or(format!("a plan comes with at least {PLAN_DESCRIPTORS} descriptors"));
    let (segment, out_event, trace, wake) = (next()?, next()?, next()?, next()?);
    let (kills, own_log) = (MemoryKills::new(next()?), next()?);
    let logs: Vec<OwnedFd> = rest.collect();
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&own_log)?;
    nix::unistd::dup2_stderr(&own_log)?;
    let bus = Bus::attach(segment.as_fd(), out_event.try_clone()?)?;
    let outlets = Outlets { segment, out_event, trace, null, rules: None, kills, groups, logs };
    Ok(Descriptors { bus: Box::leak(Box::new(bus)), wake, outlets })
}
