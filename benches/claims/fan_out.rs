//! One function whose output goes to several: the first of them answers the caller, the others run on their own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use claims_report::{Claim, Goal, Rounds, median};
use sandbar_runtime::{Outcome, Request};

use crate::chains::LIMITS;
use crate::floors::{HALF_ROUND_TRIP, half_futex_round_trip};
use crate::running::{block_on, pause, until};
use crate::stage::{Host, Pinned, Place, Scale};

/// The most that a manifest allows.
const WIDTH: usize = 8;
/// 900 functions are run per second.
const PACE: Duration = Duration::from_millis(10);

pub(crate) fn measure(scale: Scale) -> Vec<Claim> {
    let host = Host::start(Place::First, &[]);
    let _pinned = Pinned::to_first();
    let calls = scale.of(150, 60);
    let (mut wide, mut two, mut last, mut floor) =
        (Rounds::default(), Rounds::default(), Rounds::default(), Rounds::default());
    for round in 0..scale.of(5, 2) {
        floor.push(half_futex_round_trip());
        // Its log is its own.
        let name = format!("wide{round}");
        let mut next = vec![(1..=WIDTH).collect()];
        next.resize(WIDTH + 1, Vec::new());
        host.deploy_native(&name, &next, LIMITS);
        host.deploy_chain("two", 2, LIMITS);
        pause(Duration::from_millis(300));
        let mut each = [Vec::new(), Vec::new()];
        for (name, times) in [(name.as_str(), 0), ("two", 1)] {
            each[times] = block_on(answered(&host, name, "x".repeat(64), calls));
        }
        wide.push(median(&mut each[0]));
        two.push(median(&mut each[1]));
        block_on(answered(&host, &name, "when".to_owned(), calls));
        last.push(median(&mut lateness(&host, &name, calls)));
        host.remove(&name);
        host.remove("two");
    }
    let answered = format!("one output to {WIDTH} functions, until the first has answered, p50");
    let taken = format!("one output to {WIDTH} functions, until the last has it, p50");
    let beside = format!("{WIDTH} x {HALF_ROUND_TRIP}");
    vec![
        Claim::new(answered, "µs", wide, "a chain of two", two, Goal::None),
        Claim::new(taken, "µs", last, beside, floor.map(|half| half * WIDTH as f64), Goal::None),
    ]
}

/// Microseconds of each of so many calls, from end to end.
async fn answered(host: &Host, name: &str, payload: String, calls: usize) -> Vec<f64> {
    let mut times = Vec::new();
    let mut ticks = tokio::time::interval(PACE);
    for _ in 0..calls {
        ticks.tick().await;
        let request = Request { application: name.to_owned(), payload: payload.clone().into(), ..Request::default() };
        let began = Instant::now();
        let answer = host.client.call(request).await.unwrap();
        times.push(began.elapsed().as_secs_f64() * 1e6);
        assert_eq!(answer.outcome, Outcome::Done, "{}", answer.diagnostic);
    }
    times
}

/// Microseconds from the hand-over to the moment at which the last of the functions had the output, of each call: they have logged it.
fn lateness(host: &Host, name: &str, calls: usize) -> Vec<f64> {
    until("every function has logged every call", Duration::from_secs(10), || {
        let logged = block_on(logged(host, name));
        let all = logged.len() == calls && logged.values().all(|(count, _)| *count == WIDTH);
        all.then(|| logged.into_values().map(|(_, last)| last).collect())
    })
}

/// By the call: how many functions have logged it, and the microseconds of the last.
async fn logged(host: &Host, name: &str) -> BTreeMap<String, (usize, f64)> {
    let mut calls = BTreeMap::new();
    let mut records = host.client.logs(name, None, false).await.unwrap();
    while let Some(record) = records.next().await.unwrap() {
        let Some((call, ns)) = record.text.strip_prefix("late ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let us = ns.parse::<f64>().unwrap() / 1000.0;
        let (count, last) = calls.entry(call.to_owned()).or_insert((0, 0.0_f64));
        *count += 1;
        *last = last.max(us);
    }
    calls
}
