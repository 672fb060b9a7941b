//! What the bench runs and waits for, none of which outlives it.
//!
//! A signal (Ctrl-C) ends the wait that it finds, by unwinding: whoever has something to end or to remove does so in `Drop`, as on any
//! failure. Processes are not of the bench's group, so that a terminal sends them nothing itself: a host takes a second signal for the
//! wish to end without clearing up. Should the bench be killed, the kernel tells them to end.

use std::io;
use std::panic::resume_unwind;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A host gives calls under way 5 s, and then stops its sandboxes.
const END_WAIT: Duration = Duration::from_secs(60);

/// What unwinds when the bench was told to end.
#[derive(Debug)]
pub(crate) struct Interrupted;

/// Where the bench waits, and whether it was told to end. From its first use on, signals end it by [`Interrupted`] alone.
static RUNTIME: LazyLock<(Runtime, watch::Receiver<bool>)> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (told, stop) = watch::channel(false);
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let _inside = runtime.enter();
        let (mut signals, told) = (signal(kind).unwrap(), told.clone());
        runtime.spawn(async move {
            signals.recv().await;
            told.send_replace(true);
        });
    }
    (runtime, stop)
});

/// Waits for it, or unwinds with [`Interrupted`].
pub(crate) fn block_on<T>(it: impl Future<Output = T>) -> T {
    let (runtime, stop) = &*RUNTIME;
    let mut stop = stop.clone();
    let done = runtime.block_on(async {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => None,
            done = it => Some(done),
        }
    });
    done.unwrap_or_else(|| resume_unwind(Box::new(Interrupted)))
}

/// Lets time pass.
pub(crate) fn pause(time: Duration) {
    // Made inside, where there is a clock.
    block_on(async { tokio::time::sleep(time).await });
}

/// Looks again and again until there is something.
///
/// # Panics
/// When there is nothing for too long.
pub(crate) fn until<T>(what: &str, most: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < most, "after {most:?} still not: {what}");
        pause(Duration::from_millis(20));
    }
}

/// Runs a command to its end. It is killed if the bench ends before.
pub(crate) fn output(command: Command) -> Output {
    let mut command = tokio::process::Command::from(ending_with_us(command));
    command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let name = format!("{:?}", command.as_std());
    block_on(async { command.spawn()?.wait_with_output().await }).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What a command that ended well printed.
pub(crate) fn printed(command: Command) -> String {
    let name = format!("{command:?}");
    let output = output(command);
    assert!(output.status.success(), "{name}: {}", output.status);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A process that is ended with its owner.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: Command) -> io::Result<Self> {
        ending_with_us(command).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map(Self)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    /// Its first line, which says that it is ready; empty if it ended without one.
    pub(crate) fn first_line(&mut self) -> String {
        use tokio::io::{AsyncBufReadExt, BufReader};
        let output = self.0.stdout.take().expect("it is read once");
        block_on(async {
            let mut line = String::new();
            let output = tokio::process::ChildStdout::from_std(output).unwrap();
            BufReader::new(output).read_line(&mut line).await.unwrap();
            line
        })
    }
}

impl Drop for Running {
    /// Nothing here unwinds: it may run because something else does.
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.0.id().cast_signed());
        kill(pid, Signal::SIGTERM).ok();
        let began = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) {
            if began.elapsed() > END_WAIT {
                println!("  process {pid} did not end within {END_WAIT:?}, and was killed");
                self.0.kill().ok();
                self.0.wait().ok();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// In a process group of its own, and told to end should the bench be killed.
fn ending_with_us(mut command: Command) -> Command {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
    let tell = || set_pdeathsig(Signal::SIGTERM).map_err(io::Error::from);
    #[allow(unsafe_code, reason = "what is done between fork and exec has to be safe there")]
    // SAFETY: it makes one system call, and allocates nothing.
    unsafe {
        command.pre_exec(tell)
    };
    command
}
