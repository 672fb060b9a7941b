//! A program that is started for each call, gets the payload on its standard input, and answers on its standard output.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use claims_report::percentile;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::Skipped;

/// What `sandbar bench` sends as well.
const PAYLOAD: [u8; 64] = [b'x'; 64];
const ANSWER_MS_MAX: u16 = 10_000;
/// However slow a program is, a turn has so many calls.
const CALLS_MIN: usize = 20;

/// A quantile of the times until calls were answered, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// Since they were due.
    pub(crate) due_us: f64,
    /// Since their processes were started.
    pub(crate) started_us: f64,
}

/// Starts the program for the call with this number.
type Start = Box<dyn Fn(u64) -> Command + Send>;

/// How the program for a call is started.
pub(crate) struct Program {
    command: Start,
    /// What takes away what a call has left that did not end well.
    sweep: Option<Start>,
    /// Changes what the starting thread, and whatever it starts, sees of the host.
    enter: fn() -> nix::Result<()>,
    calls: u64,
}

impl Program {
    pub(crate) fn new(command: impl Fn(u64) -> Command + Send + 'static) -> Self {
        Self { command: Box::new(command), sweep: None, enter: || Ok(()), calls: 0 }
    }

    pub(crate) fn swept_by(self, sweep: impl Fn(u64) -> Command + Send + 'static) -> Self {
        Self { sweep: Some(Box::new(sweep)), ..self }
    }

    pub(crate) fn within(self, enter: fn() -> nix::Result<()>) -> Self {
        Self { enter, ..self }
    }

    /// Calls at so many per second, each from its own time on: p50 and p99.
    pub(crate) fn pace(&mut self, rate: f64, time: Duration) -> Result<[Figure; 2], Skipped> {
        self.on_first(|program| {
            let (began, mut number) = (Instant::now(), 0);
            let (mut due_us, mut started_us) = (Vec::new(), Vec::new());
            while began.elapsed() < time || number < CALLS_MIN {
                let due = began + Duration::from_secs_f64(number as f64 / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let late = due.elapsed();
                let took = program.call()?;
                due_us.push((late + took).as_secs_f64() * 1e6);
                started_us.push(took.as_secs_f64() * 1e6);
                number += 1;
            }
            let mut at = |hundredths| Figure {
                due_us: percentile(&mut due_us, hundredths),
                started_us: percentile(&mut started_us, hundredths),
            };
            Ok([at(50), at(99)])
        })
    }

    /// Calls per second, each started when the one before has gone.
    pub(crate) fn saturate(&mut self, time: Duration) -> Result<f64, Skipped> {
        self.on_first(|program| {
            let (began, mut calls) = (Instant::now(), 0);
            while began.elapsed() < time || calls < CALLS_MIN {
                program.call()?;
                calls += 1;
            }
            Ok(calls as f64 / began.elapsed().as_secs_f64())
        })
    }

    /// Does so in a thread on the first processor, where whatever it starts is too.
    fn on_first<T: Send>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Skipped> + Send) -> Result<T, Skipped> {
        let entered = || {
            let mut first = CpuSet::new();
            first
                .set(0)
                .and_then(|()| sched_setaffinity(Pid::from_raw(0), &first))
                .and_then(|()| (self.enter)())
                .map_err(|errno| format!("the thread that starts it: {errno}"))?;
            work(self)
        };
        std::thread::scope(|scope| scope.spawn(entered).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Makes a call, and waits until its process has gone. Until the answer it took so long.
    fn call(&mut self) -> Result<Duration, Skipped> {
        let number = self.calls;
        self.calls += 1;
        let mut command = (self.command)(number);
        // Ctrl-C at a terminal is not for them: each ends by itself.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let began = Instant::now();
        let mut process = command.spawn().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        let answered = answer(&mut process).then(|| began.elapsed());
        if answered.is_none() {
            process.kill().ok();
        }
        let output = process.wait_with_output().unwrap();
        if let Some(took) = answered.filter(|_| output.status.success()) {
            return Ok(took);
        }
        if let Some(sweep) = &self.sweep {
            sweep(number).output().ok();
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(format!("a call was not answered ({}): {said}", output.status).into())
    }
}

/// Whether the process answers with what it is sent, in time.
fn answer(process: &mut Child) -> bool {
    let (Some(mut input), Some(output)) = (process.stdin.take(), &mut process.stdout) else { return false };
    if input.write_all(&PAYLOAD).is_err() {
        return false;
    }
    drop(input);
    let (mut answer, mut length) = ([0; PAYLOAD.len()], 0);
    while length < answer.len() {
        let ready = poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLIN)], PollTimeout::from(ANSWER_MS_MAX));
        match ready.map(|ready| if ready == 0 { Ok(0) } else { output.read(&mut answer[length..]) }) {
            Ok(Ok(count)) if count > 0 => length += count,
            _ => return false,
        }
    }
    answer == PAYLOAD
}
