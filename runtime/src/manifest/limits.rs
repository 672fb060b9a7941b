//! What a sandbox may use: defaults, floors and ceilings.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::within;
use super::document::{At, PlainLimits};
use super::problem::Problems;
use super::quantity::{show_size, show_time, size, time};
use super::{FunctionLimits, Limits};

const MEMORY_BYTES_DEFAULT: u64 = 128 << 20;
/// The floor holds PID 1, the message segment and one small native function; the ceiling is a slip of the pen.
const MEMORY_BYTES: RangeInclusive<u64> = (8 << 20)..=(1 << 40);

const PROCESSES_DEFAULT: u32 = 64;
/// The kernel's own default for the number of processes of a small machine.
const PROCESSES_MAX: u32 = 32_768;

const CPUS_DEFAULT: f64 = 1.0;
/// The kernel takes no quota under 1 ms of each 100 ms.
const CPUS: RangeInclusive<f64> = 0.01..=1024.0;

/// What an edge host's devices may send at once, of small messages all of it: the segment has as many as a queue holds.
const QUEUE_DEFAULT: i64 = 256;
const QUEUE: RangeInclusive<i64> = 1..=4096;

const CALLS_DEFAULT: i64 = 256;
const CALLS: RangeInclusive<i64> = 1..=65_536;

const PAYLOAD_BYTES_DEFAULT: u64 = 16 << 20;
const PAYLOAD_BYTES: RangeInclusive<u64> = (1 << 10)..=(256 << 20);

/// Longer than this, an instance that looks costs a processor more than its sleep would cost the call.
const SPIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_millis(1);

/// Checks the table `[limits]` of an application with that many functions.
pub(super) fn limits(plain: &PlainLimits, functions: usize, problems: &mut Problems<'_>) -> Limits {
    let memory_bytes = plain
        .memory
        .as_ref()
        .and_then(|memory| {
            within(memory, size(&memory.value), &MEMORY_BYTES, "memory", |bytes| show_size(*bytes), problems)
        })
        .unwrap_or(MEMORY_BYTES_DEFAULT);
    let cpus = plain
        .cpus
        .as_ref()
        .and_then(|cpus| within(cpus, Ok(cpus.value), &CPUS, "cpus", f64::to_string, problems))
        .unwrap_or(CPUS_DEFAULT);
    let spin = plain
        .spin
        .as_ref()
        .and_then(|spin| within(spin, time(&spin.value), &SPIN, "spin", |spin| show_time(*spin), problems))
        .unwrap_or(Duration::ZERO);
    Limits {
        memory_bytes,
        processes: processes(plain.processes.as_ref(), functions, problems),
        cpus,
        payload_bytes: payload(plain.payload.as_ref(), memory_bytes, problems),
        // The queue's algorithm wants a power of two; a few more places than asked for harm nobody.
        queue: count(plain.queue.as_ref(), QUEUE_DEFAULT, &QUEUE, "queue", problems).next_power_of_two(),
        calls: count(plain.calls.as_ref(), CALLS_DEFAULT, &CALLS, "calls", problems),
        spin,
    }
}

/// The floor holds a worker and a small instance.
const FUNCTION_MEMORY_BYTES_MIN: u64 = 4 << 20;

/// Checks the table `[functions.NAME.limits]` of a function in an application with these limits.
pub(super) fn function_limits(plain: &PlainLimits, of: &Limits, problems: &mut Problems<'_>) -> FunctionLimits {
    let memory = plain.memory.as_ref().and_then(|memory| {
        let range = FUNCTION_MEMORY_BYTES_MIN..=of.memory_bytes;
        let what = "the memory of a function (at most its application's)";
        within(memory, size(&memory.value), &range, what, |bytes| show_size(*bytes), problems)
    });
    let processes = plain.processes.as_ref().and_then(|processes| {
        // A worker and an instance.
        let range = 2..=i64::from(of.processes);
        let what = "processes of a function (at most its application's)";
        within(processes, Ok(processes.value), &range, what, i64::to_string, problems)
    });
    let cpus = plain.cpus.as_ref().and_then(|cpus| {
        let range = *CPUS.start()..=of.cpus;
        within(cpus, Ok(cpus.value), &range, "cpus of a function (at most its application's)", f64::to_string, problems)
    });
    let processes = processes.and_then(|processes| u32::try_from(processes).ok());
    FunctionLimits { memory_bytes: memory, processes, cpus }
}

fn count(
    written: Option<&At<i64>>,
    default: i64,
    range: &RangeInclusive<i64>,
    what: &str,
    problems: &mut Problems<'_>,
) -> usize {
    let checked = written.and_then(|written| within(written, Ok(written.value), range, what, i64::to_string, problems));
    usize::try_from(checked.unwrap_or(default)).unwrap_or(usize::MAX)
}

/// A sandbox whose workers stand ready has its PID 1, and of each function a worker and an instance at least.
fn processes(written: Option<&At<i64>>, functions: usize, problems: &mut Problems<'_>) -> u32 {
    let functions = u32::try_from(functions).unwrap_or(u32::MAX);
    let needed = functions.saturating_mul(2).saturating_add(1);
    let Some(written) = written else {
        return PROCESSES_DEFAULT.max(functions.saturating_mul(4).saturating_add(1));
    };
    match u32::try_from(written.value) {
        Ok(processes) if (needed..=PROCESSES_MAX).contains(&processes) => processes,
        Ok(_) | Err(_) => {
            problems.at(&written.span, format_args!(
                "processes = {} is not from {needed} (PID 1 of the sandbox, a worker and an instance of each function) to {PROCESSES_MAX}",
                written.value
            ));
            PROCESSES_DEFAULT
        }
    }
}

/// What a function is given and what it gives stand side by side in the sandbox's memory.
fn payload(written: Option<&At<String>>, memory_bytes: u64, problems: &mut Problems<'_>) -> usize {
    let bytes = match written {
        None => PAYLOAD_BYTES_DEFAULT.min(memory_bytes / 4),
        Some(written) => {
            let range = *PAYLOAD_BYTES.start()..=(*PAYLOAD_BYTES.end()).min(memory_bytes / 2);
            let what = "payload (at most half of the memory)";
            within(written, size(&written.value), &range, what, |bytes| show_size(*bytes), problems)
                .unwrap_or(PAYLOAD_BYTES_DEFAULT)
        }
    };
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
