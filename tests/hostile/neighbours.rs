//! Those who must not notice: a function of the same application, and another application.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::battery::call_within;
use crate::probe::Harm;
use crate::support::host::Host;

/// How long a call may take beside a hostile one, on a machine that is busy with it.
const ANSWER_MAX: Duration = Duration::from_millis(1500);
/// How soon all must be well again when it is over.
const RECOVERY_MAX: Duration = Duration::from_secs(4);
/// What they are given until they are told that it is too late.
const DEADLINE: Duration = Duration::from_secs(3);
/// Between two calls of the same neighbour.
const PAUSE: Duration = Duration::from_millis(15);

/// The other application, and its one function, which answers what it is asked.
pub(crate) const OTHER: &str = "neighbour";

/// Whether a call was answered, rightly and in time, and if not, what was wrong.
fn ask(host: &Host, target: &str, number: usize) -> Result<(), String> {
    let payload = format!("{target} {number}");
    let (application, function) = target.split_once('/').unwrap_or((target, "echo"));
    let called = call_within(host, application, function, payload.as_bytes(), DEADLINE);
    if called.outcome != "done" {
        return Err(format!("{target}: {}: {}", called.outcome, called.diagnostic));
    }
    if called.text() != payload {
        return Err(format!("{target} was asked {payload:?} and answered {:?}", called.text()));
    }
    if called.took > ANSWER_MAX {
        return Err(format!("{target} took {:?}", called.took));
    }
    Ok(())
}

fn ask_until(over: &AtomicBool, host: &Host, target: &str) -> Vec<String> {
    let (mut wrong, mut number) = (Vec::new(), 0);
    while !over.load(Ordering::Relaxed) {
        wrong.extend(ask(host, target, number).err());
        number += 1;
        std::thread::sleep(PAUSE);
    }
    wrong
}

/// Calls the neighbours of an application all the while that something is done; what was wrong is returned besides.
pub(crate) fn beside<T>(host: &Host, application: &str, harm: Harm, act: impl FnOnce() -> T) -> (T, Vec<String>) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        let other = scope.spawn(move || ask_until(over, host, OTHER));
        let sibling = scope.spawn(move || ask_until(over, host, &format!("{application}/echo")));
        let result = act();
        over.store(true, Ordering::Relaxed);
        let mut wrong = other.join().unwrap();
        let of_sibling = sibling.join().unwrap();
        match harm {
            Harm::None => wrong.extend(of_sibling),
            // It may be told that there is no room, but no answer of another's.
            Harm::Starves | Harm::Exhausts => {
                wrong.extend(of_sibling.into_iter().filter(|wrong| wrong.contains("was asked")))
            }
            // Who writes to the message memory may write an answer of another's there.
            Harm::Scribbles => {}
        }
        (result, wrong)
    })
}

/// As [`beside`], where there is no other function of the same application.
pub(crate) fn beside_other<T>(host: &Host, act: impl FnOnce() -> T) -> (T, Vec<String>) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        let other = scope.spawn(move || ask_until(over, host, OTHER));
        let result = act();
        over.store(true, Ordering::Relaxed);
        (result, other.join().unwrap())
    })
}

/// Waits until both answer as they should; what was wrong if they do not.
pub(crate) fn recovered(host: &Host, application: &str) -> Vec<String> {
    let begin = Instant::now();
    let mut number = 0;
    loop {
        let asked = [OTHER.to_owned(), format!("{application}/echo")].map(|target| ask(host, &target, number));
        let wrong: Vec<String> = asked.into_iter().filter_map(Result::err).collect();
        if wrong.is_empty() || begin.elapsed() > RECOVERY_MAX {
            return wrong.into_iter().map(|wrong| format!("afterwards: {wrong}")).collect();
        }
        number += 1;
        std::thread::sleep(PAUSE);
    }
}
