//! From what was written to what is legal: names resolved, quantities within their bounds, no cycle.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::{At, Plain, PlainFunction, PlainReady};
use super::problem::{Problems, did_you_mean};
use super::quantity::{show_time, time};
use super::{
    Application, CALLERS_MAX, CALLS_MAX, FUNCTIONS_MAX, Function, Limits, NEXT_MAX, Name, Network, READY_MAX, Ready,
    Rootfs, Runtime, Target, access, code, limits, rest,
};

/// The time-out of a function that names none.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Below a millisecond not even a fork ends in time; over an hour, an error holds its caller up for too long.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);

/// Checks all that was written. `dir` is the folder of the code files; without it they are not looked at. `None` if the
/// problems found leave no application to speak of.
pub(super) fn application(plain: &Plain, dir: Option<&Path>, problems: &mut Problems<'_>) -> Option<Application> {
    let name = plain.name.as_ref().and_then(|name| checked_name(name, problems));
    if let Some(surplus) = plain.functions.get(FUNCTIONS_MAX) {
        let found = plain.functions.len();
        problems.at(
            &surplus.name.span,
            format_args!("{found} functions are too many; an application has up to {FUNCTIONS_MAX}"),
        );
        return None;
    }
    let next: Vec<_> = plain.functions.iter().map(|function| resolved_next(function, plain, problems)).collect();
    refuse_cycles(&next, plain, problems);
    let entry = entry(plain, problems);
    let calls = calls(plain, problems);
    let callers = callers(plain, problems);
    let rootfs = plain.rootfs.as_ref().and_then(|rootfs| checked_rootfs(rootfs, dir, problems));
    let access = access::access(&plain.access, problems);
    let limits = limits::limits(&plain.limits, plain.functions.len(), problems);
    let rest = rest::rest(&plain.rest, problems);
    let network = network(plain.network.as_ref(), problems);
    let function = |(plain, next)| function(plain, next, &limits, dir, problems);
    let functions: Vec<_> = plain.functions.iter().zip(next).filter_map(function).collect();
    let complete = functions.len() == plain.functions.len();
    let (name, entry) = (name?, entry?);
    complete.then_some(Application { name, entry, functions, calls, callers, network, rootfs, access, limits, rest })
}

fn network(written: Option<&At<String>>, problems: &mut Problems<'_>) -> Network {
    match written.map(|written| (written, written.value.as_str())) {
        None | Some((_, "none")) => Network::None,
        Some((_, "host")) => Network::Host,
        Some((written, other)) => {
            let why = format_args!("network = \"{}\" is neither \"none\" nor \"host\"", other.escape_debug());
            problems.at(&written.span, why);
            Network::None
        }
    }
}

fn checked_name(name: &At<String>, problems: &mut Problems<'_>) -> Option<Name> {
    Name::new(&name.value).map_err(|error| problems.at(&name.span, error)).ok()
}

/// The index of the function of that name, or a problem at the place of the name.
fn resolved(name: &At<String>, what: &str, plain: &Plain, problems: &mut Problems<'_>) -> Option<usize> {
    let found = plain.functions.iter().position(|function| function.name.value == name.value);
    if found.is_none() {
        let meant = did_you_mean(&name.value, plain.functions.iter().map(|function| function.name.value.as_str()));
        problems.at(&name.span, format_args!("{what} `{}` is not a function of this application{meant}", name.value));
    }
    found
}

fn entry(plain: &Plain, problems: &mut Problems<'_>) -> Option<usize> {
    match &plain.entry {
        Some(entry) => resolved(entry, "entry", plain, problems),
        None => (plain.functions.len() == 1).then_some(0),
    }
}

/// What functions may call of other applications, in the order it was written: functions name it by its place.
fn calls(plain: &Plain, problems: &mut Problems<'_>) -> Vec<Target> {
    refuse_surplus(&plain.calls, CALLS_MAX, "`calls` names", "functions", problems);
    let mut calls = Vec::new();
    for path in plain.calls.iter().take(CALLS_MAX) {
        match Target::parse(&path.value) {
            Ok(target) if is_own_name(&target.application, plain) => {
                problems.at(
                    &path.span,
                    format_args!(
                        "`{target}` is of this application, whose functions call each other by name, such as `{}`",
                        own_function(&target, plain)
                    ),
                );
            }
            Ok(target) if calls.contains(&target) => {
                problems.at(&path.span, format_args!("`calls` names `{target}` twice"));
            }
            Ok(target) => calls.push(target),
            Err(why) => problems.at(&path.span, why),
        }
    }
    calls
}

/// The name by which functions of the application call what the path is for.
fn own_function<'p>(target: &'p Target, plain: &'p Plain) -> &'p str {
    let entry = plain.entry.as_ref().map(|entry| &entry.value);
    let first = plain.functions.first().map(|function| &function.name.value);
    target.function.as_ref().map(Name::as_str).or(entry.or(first).map(String::as_str)).unwrap_or("FUNCTION")
}

fn callers(plain: &Plain, problems: &mut Problems<'_>) -> BTreeSet<Name> {
    refuse_surplus(&plain.callers, CALLERS_MAX, "`callers` names", "applications", problems);
    let mut callers = BTreeSet::new();
    for written in plain.callers.iter().take(CALLERS_MAX) {
        match checked_name(written, problems) {
            Some(name) if is_own_name(&name, plain) => problems.at(
                &written.span,
                format_args!(
                    "`callers` names `{name}` itself; functions of one application may call each other anyway"
                ),
            ),
            Some(name) if callers.contains(&name) => {
                problems.at(&written.span, format_args!("`callers` names `{name}` twice"));
            }
            Some(name) => {
                callers.insert(name);
            }
            None => {}
        }
    }
    callers
}

fn checked_rootfs(written: &At<String>, dir: Option<&Path>, problems: &mut Problems<'_>) -> Option<Rootfs> {
    let looked_at = Rootfs::parse(&written.value).and_then(|rootfs| match dir {
        Some(dir) => rootfs.look(dir).map(|()| rootfs),
        None => Ok(rootfs),
    });
    looked_at.map_err(|why| problems.at(&written.span, format_args!("rootfs `{}` {why}", written.value))).ok()
}

fn is_own_name(name: &Name, plain: &Plain) -> bool {
    plain.name.as_ref().is_some_and(|own| own.value == name.as_str())
}

fn refuse_surplus(written: &[At<String>], max: usize, names: &str, what: &str, problems: &mut Problems<'_>) {
    if let Some(surplus) = written.get(max) {
        problems.at(&surplus.span, format_args!("{names} {} {what}; the most is {max}", written.len()));
    }
}

fn resolved_next(function: &PlainFunction, plain: &Plain, problems: &mut Problems<'_>) -> Vec<usize> {
    refuse_surplus(&function.next, NEXT_MAX, "`next` names", "functions", problems);
    let mut indices = Vec::new();
    for name in function.next.iter().take(NEXT_MAX) {
        match resolved(name, "next", plain, problems) {
            Some(index) if indices.contains(&index) => {
                problems.at(&name.span, format_args!("`next` names `{}` twice", name.value));
            }
            Some(index) => indices.push(index),
            None => {}
        }
    }
    indices
}

/// How far the search for cycles has come with a function.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    NotYet,
    /// It is on the path that is being followed: reaching it again closes a cycle.
    OnPath,
    Done,
}

/// Follows `next` depth first from each function, and notes each way back into the path that is being followed.
fn refuse_cycles(next: &[Vec<usize>], plain: &Plain, problems: &mut Problems<'_>) {
    let mut visits = vec![Visit::NotYet; next.len()];
    for start in 0..next.len() {
        if visits[start] != Visit::NotYet {
            continue;
        }
        // The functions on the path, each with how many of its `next` were followed.
        let mut path = vec![(start, 0)];
        visits[start] = Visit::OnPath;
        while let Some((function, followed)) = path.last_mut() {
            let Some(&to) = next[*function].get(*followed) else {
                visits[*function] = Visit::Done;
                path.pop();
                continue;
            };
            *followed += 1;
            match visits[to] {
                Visit::NotYet => {
                    visits[to] = Visit::OnPath;
                    path.push((to, 0));
                }
                Visit::OnPath => note_cycle(&path, to, plain, problems),
                Visit::Done => {}
            }
        }
    }
}

fn note_cycle(path: &[(usize, usize)], back_to: usize, plain: &Plain, problems: &mut Problems<'_>) {
    let name = |index: usize| plain.functions[index].name.value.as_str();
    let mut cycle: Vec<_> =
        path.iter().map(|&(function, _)| function).skip_while(|&function| function != back_to).map(name).collect();
    cycle.push(name(back_to));
    problems.at(&plain.functions[back_to].name.span, format_args!("`next` leads in a circle: {}", cycle.join(" -> ")));
}

fn function(
    plain: &PlainFunction,
    next: Vec<usize>,
    of: &Limits,
    dir: Option<&Path>,
    problems: &mut Problems<'_>,
) -> Option<Function> {
    let limits = limits::function_limits(&plain.limits, of, problems);
    let name = checked_name(&plain.name, problems);
    let runtime = plain
        .runtime
        .as_ref()
        .and_then(|runtime| runtime.value.parse::<Runtime>().map_err(|error| problems.at(&runtime.span, error)).ok());
    let code = plain.code.as_ref().and_then(|code| checked_code(code, runtime, dir, problems));
    let handler = runtime.and_then(|runtime| handler(plain, runtime, problems));
    let timeout = match &plain.timeout {
        Some(timeout) => {
            within(timeout, time(&timeout.value), &TIMEOUTS, "a time-out", |time| show_time(*time), problems)
        }
        None => Some(TIMEOUT_DEFAULT),
    };
    let ready = match &plain.ready {
        Some(ready) => checked_ready(ready, problems)?,
        None => Ready::Auto,
    };
    let content_format = match &plain.content_format {
        Some(number) => Some(checked_content_format(number, problems)?),
        None => None,
    };
    let (name, runtime, code) = (name?, runtime?, code?);
    let (handler, timeout) = (handler?, timeout?);
    let observe = plain.observe.unwrap_or(true);
    Some(Function { name, runtime, code, handler, timeout, ready, content_format, observe, next, limits })
}

fn checked_ready(written: &At<PlainReady>, problems: &mut Problems<'_>) -> Option<Ready> {
    let number = match &written.value {
        PlainReady::Word(word) if word == "auto" => return Some(Ready::Auto),
        PlainReady::Word(word) => {
            let why = format_args!("ready = \"{}\" is neither \"auto\" nor a number", word.escape_debug());
            problems.at(&written.span, why);
            return None;
        }
        PlainReady::Number(number) => *number,
    };
    match u32::try_from(number) {
        Ok(number) if number <= READY_MAX => Some(Ready::Exactly(number)),
        Ok(_) | Err(_) => {
            let why = format_args!("{number} is out of range: instances that stand ready are from 0 to {READY_MAX}");
            problems.at(&written.span, why);
            None
        }
    }
}

fn checked_content_format(number: &At<i64>, problems: &mut Problems<'_>) -> Option<u16> {
    let checked = u16::try_from(number.value).ok();
    if checked.is_none() {
        problems.at(
            &number.span,
            format_args!(
                "content_format = {} is not a number of the CoAP Content-Formats registry, 0 to 65535",
                number.value
            ),
        );
    }
    checked
}

fn checked_code(
    code: &At<String>,
    runtime: Option<Runtime>,
    dir: Option<&Path>,
    problems: &mut Problems<'_>,
) -> Option<PathBuf> {
    let looked_at = code::relative(&code.value).and_then(|path| match dir.zip(runtime) {
        Some((dir, runtime)) => code::look(dir, &path, runtime).map(|()| path),
        None => Ok(path),
    });
    looked_at.map_err(|why| problems.at(&code.span, format_args!("code `{}` {why}", code.value))).ok()
}

fn handler(plain: &PlainFunction, runtime: Runtime, problems: &mut Problems<'_>) -> Option<String> {
    let Some(handler) = &plain.handler else {
        return Some(match runtime {
            Runtime::Python3 => "handle".to_owned(),
            Runtime::Native => plain.name.value.clone(),
            Runtime::Executable => String::new(),
        });
    };
    let refused = match runtime {
        Runtime::Python3 if is_identifier(&handler.value) => None,
        Runtime::Python3 => Some(format!("`{}` is not the name of a Python function", handler.value.escape_debug())),
        Runtime::Native => {
            Some("a native function has no `handler`: its executable adds it under the function's name".to_owned())
        }
        Runtime::Executable => Some("an `executable` has no handler: the file itself is run".to_owned()),
    };
    match refused {
        None => Some(handler.value.clone()),
        Some(why) => {
            problems.at(&handler.span, why);
            None
        }
    }
}

fn is_identifier(text: &str) -> bool {
    let starts = |letter: char| letter.is_alphabetic() || letter == '_';
    text.len() <= 255
        && text.chars().next().is_some_and(starts)
        && text.chars().all(|letter| starts(letter) || letter.is_numeric())
}

/// The value if it was read and is in the range.
pub(super) fn within<W, T: PartialOrd>(
    written: &At<W>,
    value: Result<T, String>,
    range: &RangeInclusive<T>,
    what: &str,
    show: impl Fn(&T) -> String,
    problems: &mut Problems<'_>,
) -> Option<T> {
    match value {
        Ok(value) if range.contains(&value) => Some(value),
        Ok(value) => {
            let (value, least, most) = (show(&value), show(range.start()), show(range.end()));
            problems.at(&written.span, format_args!("{value} is out of range: {what} is from {least} to {most}"));
            None
        }
        Err(why) => {
            problems.at(&written.span, why);
            None
        }
    }
}
