//! The runtime for plain executables: each call runs the program, with the event on its standard input. What it prints to
//! standard output is the answer, what it prints to standard error is logged.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sandbar_bus::AnswerProperties;
use sandbar_function::Output;
use sandbar_function::instance::{Instance, Served, log};
use sandbar_function::worker::Worker;

use crate::memory::MemoryKills;
use crate::protocol::FunctionPlan;
use crate::spawn::{environment, why_not_run};

/// Bytes of standard error that are kept to find the diagnostic in.
const DIAGNOSTIC_BYTES_MAX: usize = 512;

/// Is the worker of such a function: never returns, but with the reason why it cannot be.
pub(crate) fn serve(
    plan: &FunctionPlan,
    path: &Path,
    kills: &MemoryKills,
) -> Result<Infallible, Box<dyn std::error::Error>> {
    std::env::set_current_dir("/app")?;
    let worker = Worker::join_as(&plan.name)?;
    worker.ready()?;
    let instance = worker.next_instance();
    if let Some(served) = instance.take() {
        kills.forget();
        match run(&instance, &served, path) {
            Ok(Finished { status, output, .. }) if status.success() => {
                instance.answer(served, &Output::Bytes(&output), None, &AnswerProperties::default())
            }
            Ok(finished) if finished.status.signal() == Some(libc::SIGKILL) && kills.take_one() => {
                instance.out_of_memory(served, &format!("out of memory: {}", plan.memory_limit));
            }
            Ok(finished) => instance.fail(served, &finished.diagnostic(path)),
            // No room for a process, which may pass.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                instance.refuse(served, &format!("no room for the process of {}", path.display()));
            }
            Err(error) => {
                instance.fail(served, &format!("cannot run {}: {}", path.display(), why_not_run(path, &error)));
            }
        }
    }
    instance.exit()
}

struct Finished {
    status: ExitStatus,
    output: Vec<u8>,
    /// The end of what was printed to standard error.
    errors: Vec<u8>,
}

impl Finished {
    /// The last line of standard error, after how the program ended.
    fn diagnostic(&self, path: &Path) -> String {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let ended = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("{name} exited with status {code}"),
            (None, signal) => format!("{name} was killed by signal {}", signal.unwrap_or(0)),
        };
        let errors = String::from_utf8_lossy(&self.errors);
        match errors.lines().rev().map(str::trim).find(|line| !line.is_empty()) {
            Some(line) => format!("{ended}: {line}"),
            None => ended,
        }
    }
}

fn run(instance: &Instance, served: &Served, path: &Path) -> io::Result<Finished> {
    let mut command = Command::new(path);
    command.env_clear().envs(environment(&instance.function().name));
    command.env("SANDBAR_CALL", format!("{:016x}", served.call_id()));
    command.env("SANDBAR_APPLICATION", instance.application());
    command.env("SANDBAR_REMAINING_MS", served.remaining().as_millis().to_string());
    if let Some(format) = served.content_format() {
        command.env("SANDBAR_CONTENT_FORMAT", format.to_string());
    }
    let request = served.properties();
    command.env("SANDBAR_METHOD", request.method.name());
    command.env("SANDBAR_PATH", request.path).env("SANDBAR_QUERY", request.query);
    if let Some(accept) = request.accept {
        command.env("SANDBAR_ACCEPT", accept.to_string());
    }
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn()?;
    let pump = Pump {
        input: child.stdin.take(),
        output: child.stdout.take(),
        errors: child.stderr.take(),
        event: served.event(),
        written: 0,
        finished: Finished { status: ExitStatus::default(), output: Vec::new(), errors: Vec::new() },
        output_bytes_max: instance.payload_bytes_max(),
    };
    pump.until_end_of(child)
}

/// Moves bytes between the event, the program's pipes, and what is kept of them.
struct Pump<'a> {
    input: Option<ChildStdin>,
    output: Option<ChildStdout>,
    errors: Option<ChildStderr>,
    event: &'a [u8],
    written: usize,
    finished: Finished,
    output_bytes_max: usize,
}

impl Pump<'_> {
    /// Until the program itself has ended: that others hold its pipes open does not matter.
    fn until_end_of(mut self, mut child: Child) -> io::Result<Finished> {
        for fd in [
            self.input.as_ref().map(AsFd::as_fd),
            self.output.as_ref().map(AsFd::as_fd),
            self.errors.as_ref().map(AsFd::as_fd),
        ]
        .into_iter()
        .flatten()
        {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let end = pidfd(&child)?;
        loop {
            let ended = self.wait(&end)?;
            self.write_input();
            self.read_output()?;
            self.read_errors();
            if ended {
                break;
            }
        }
        self.finished.status = child.wait()?;
        Ok(self.finished)
    }

    /// Waits for something to do; true when the program has ended.
    fn wait(&self, end: &impl AsFd) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(end.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.input.as_ref().map(|input| PollFd::new(input.as_fd(), PollFlags::POLLOUT)));
        fds.extend(self.output.as_ref().map(|output| PollFd::new(output.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.errors.as_ref().map(|errors| PollFd::new(errors.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(fds[0].any().unwrap_or(false)),
            Err(errno) => Err(errno.into()),
        }
    }

    fn write_input(&mut self) {
        let Some(input) = &mut self.input else { return };
        loop {
            match input.write(&self.event[self.written..]) {
                Ok(0) => break,
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The program does not want the rest.
                Err(_) => break,
            }
        }
        self.input = None;
    }

    fn read_output(&mut self) -> io::Result<()> {
        let Some(output) = &mut self.output else { return Ok(()) };
        // One more than may be answered is enough to know that it is too much.
        let room = (self.output_bytes_max + 1).saturating_sub(self.finished.output.len());
        match output.take(room as u64).read_to_end(&mut self.finished.output) {
            Ok(_) if self.finished.output.len() > self.output_bytes_max => {
                Err(io::Error::other(format!("it answered more than the limit of {} bytes", self.output_bytes_max)))
            }
            Ok(_) => {
                self.output = None;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn read_errors(&mut self) {
        let Some(errors) = &mut self.errors else { return };
        let mut bytes = [0; 4096];
        loop {
            match errors.read(&mut bytes) {
                Ok(count) if count > 0 => {
                    log_part(&bytes[..count]);
                    let kept = &mut self.finished.errors;
                    kept.extend_from_slice(&bytes[..count]);
                    kept.drain(..kept.len().saturating_sub(DIAGNOSTIC_BYTES_MAX));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {
                    self.errors = None;
                    return;
                }
            }
        }
    }
}

fn log_part(bytes: &[u8]) {
    if io::stderr().write_all(bytes).is_err() {
        log(&"the log is gone");
    }
}

#[allow(unsafe_code, reason = "pidfd_open(2) has no wrapper")]
fn pidfd(child: &Child) -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just given us this descriptor.
    let fd = unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) };
    debug_assert!(fd.as_raw_fd() > 2);
    Ok(fd)
}
