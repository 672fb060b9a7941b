//! Templates: interpreters from which the workers of a sandbox's Python functions are forked, so that they share what each would
//! otherwise have to itself.
//!
//! A template is confined as a worker is, before it starts; it is another user than any worker, and may become one of these besides. It
//! runs nothing of the application, so that no function's code is there when another's worker is forked.
//!
//! No function is forked twice from one template: a worker that is started again or renewed has another address layout than the one
//! before it. A template that has forked every function once has nothing left to do, and ends; when workers are ended for rest, another one
//! is started and waits for them to come back. Where there is only one Python function, but for a return from rest, or a template does not
//! work, workers are started by themselves.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixCredentials,
};
use nix::sys::socket::{recvmsg, sendmsg, setsockopt, socketpair, sockopt};
use nix::unistd::Pid;
use sandbar_function::template::{FORKED, Request};

use crate::identity::{TEMPLATE_ID, kill_user, worker_id};
use crate::protocol::{FunctionPlan, Program};
use crate::seccomp;
use crate::spawn::{Outlets, Spawned, spawn_template, status_pair};

/// Who starts the workers of Python functions.
#[derive(Debug, Default)]
pub struct Templates {
    current: Option<Template>,
    /// One has ended without forking a worker that it was asked for.
    failed: bool,
}

/// A template that runs.
#[derive(Debug)]
struct Template {
    /// It ends when this is closed.
    control: OwnedFd,
    /// The functions whose workers it has been asked for.
    forked: Vec<usize>,
}

/// What a Python function's worker consists of.
struct Part<'a> {
    interpreter: &'a Path,
    worker: &'a Path,
    code: &'a Path,
    handler: &'a str,
}

fn part(plan: &FunctionPlan) -> Option<Part<'_>> {
    match &plan.program {
        // One with control groups of its own enters them before anything else, and shares no memory with others.
        Program::Python { interpreter, worker, code, handler } if !plan.own_group => {
            Some(Part { interpreter, worker, code, handler })
        }
        Program::Python { .. } | Program::Native { .. } | Program::Executable { .. } => None,
    }
}

/// How many functions can be forked from one template.
fn parts(plans: &[FunctionPlan]) -> usize {
    plans.iter().filter(|plan| part(plan).is_some()).count()
}

impl Templates {
    /// Has a worker of the function forked from a template; `None` if it is to be started by itself.
    ///
    /// # Errors
    /// When there is no room for a socket or a process.
    pub fn spawn(
        &mut self,
        outlets: &Outlets,
        (index, turn): (usize, u32),
        plans: &[FunctionPlan],
    ) -> io::Result<Option<Spawned>> {
        let Some(part) = plans.get(index).and_then(part).filter(|_| !self.failed) else { return Ok(None) };
        let all = parts(plans);
        if all < 2 && self.current.is_none() {
            return Ok(None);
        }
        if self.current.as_ref().is_none_or(|current| current.forked.contains(&index)) {
            self.current = None;
            if kill_user(TEMPLATE_ID) {
                // The one before is not gone yet.
                return Ok(None);
            }
            // Where there is no room for one more process there is one fewer.
            self.current = Template::start(outlets, index, &part).ok();
        }
        let Some(current) = self.current.as_mut() else { return Ok(None) };
        let request = Request {
            user: worker_id(index, turn),
            name: plans[index].name.clone().into_bytes(),
            code: part.code.as_os_str().as_encoded_bytes().to_vec(),
            handler: part.handler.as_bytes().to_vec(),
            filter: seccomp::as_bytes(&seccomp::worker_filter().map_err(io::Error::other)?),
        };
        let asked = current.ask(outlets, index, &request);
        if current.forked.len() == all || asked.is_err() {
            self.current = None;
        }
        Ok(asked.ok())
    }

    /// Starts a template for workers to come, all of which were ended: where it waits already, they come back without waiting for an
    /// interpreter. It is a new one, as each worker has another address layout than the one before it.
    pub fn stand_by(&mut self, outlets: &Outlets, plans: &[FunctionPlan]) {
        let first = plans.iter().enumerate().find_map(|(index, plan)| Some((index, part(plan)?)));
        let Some((index, part)) = first.filter(|_| !self.failed) else { return };
        if self.current.as_ref().is_some_and(|current| current.forked.is_empty()) {
            return;
        }
        self.current = None;
        // Where the one before is not gone yet, or there is no room, they are started as they were at first.
        if !kill_user(TEMPLATE_ID) {
            self.current = Template::start(outlets, index, &part).ok();
        }
    }

    /// A template has ended without a word of a worker that it was asked for: from here on there is none.
    pub fn give_up(&mut self) {
        self.current = None;
        self.failed = true;
    }
}

impl Template {
    fn start(outlets: &Outlets, index: usize, part: &Part<'_>) -> io::Result<Self> {
        let (control, inside) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        spawn_template(outlets, index, inside, part.interpreter, part.worker)?;
        Ok(Self { control, forked: Vec::new() })
    }

    /// Asks for a worker. The request waits in the socket while the template starts.
    fn ask(&mut self, outlets: &Outlets, index: usize, request: &Request) -> io::Result<Spawned> {
        self.forked.push(index);
        let log = outlets.logs.get(index).ok_or(io::ErrorKind::InvalidInput)?;
        let (status, report) = status_pair()?;
        // So the kernel says which process it is that reports.
        setsockopt(&status, sockopt::PassCred, &true)?;
        let bytes = request.to_bytes();
        let slices = [io::IoSlice::new(&bytes)];
        let descriptors = [report.as_raw_fd(), log.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&descriptors)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.control.as_fd().as_raw_fd(), &slices, &control, flags, None)?;
        Ok(Spawned { pid: None, status })
    }
}

/// Which process a template has forked, by the kernel's word; `None` while it has not.
pub(crate) fn hear_forked(status: &OwnedFd) -> io::Result<Option<Pid>> {
    let mut bytes = [0; FORKED.len()];
    let mut space = nix::cmsg_space!(UnixCredentials);
    let mut slices = [io::IoSliceMut::new(&mut bytes)];
    let message = match recvmsg::<()>(status.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_DONTWAIT) {
        Err(nix::errno::Errno::EAGAIN) => return Ok(None),
        message => message?,
    };
    let mut pid = None;
    for control in message.cmsgs()? {
        // What has closed its end is described as well, by nobody's id.
        if let ControlMessageOwned::ScmCredentials(sender) = control
            && message.bytes > 0
        {
            pid = Some(Pid::from_raw(sender.pid()));
        }
    }
    pid.map(Some).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn plan(program: Program, own_group: bool) -> FunctionPlan {
        let memory_limit = String::new();
        FunctionPlan { name: "f".to_owned(), program, timeout: Duration::from_secs(1), memory_limit, own_group }
    }

    fn python(own_group: bool) -> FunctionPlan {
        let (interpreter, worker, code) = ("/usr/bin/python3".into(), "/sandbar/worker.py".into(), "/app/f.py".into());
        plan(Program::Python { interpreter, worker, code, handler: "handle".to_owned() }, own_group)
    }

    #[test]
    fn only_python_functions_without_limits_of_their_own_share_a_template() {
        let native = plan(Program::Native { path: "/app/f".into() }, false);
        assert_eq!(parts(&[python(false), python(true), native, python(false)]), 2);
    }
}
