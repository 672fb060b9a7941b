//! Hops between functions, and chains of them.

use std::time::{Duration, Instant};

use sandbar_runtime::{Outcome, Request};

use crate::floors::futex_round_trips;
use crate::report::{Claim, Goal, median, percentile};
use crate::stage::{Host, Place, Scale, block_on};

/// Between two calls, for each function of the chain: so that a tenth of a processor is used, as forking ahead needs idle time.
const PACE: Duration = Duration::from_micros(2500);
/// Between two chains of three whose hops are looked at: 500 per second.
const HOPS_PACE: Duration = Duration::from_millis(2);
const LIMITS: &str = "[limits]\nmemory = \"512MiB\"\nprocesses = 512\npayload = \"64KiB\"";
const LENGTHS: [usize; 6] = [1, 2, 5, 10, 50, 100];

pub(crate) fn measure(scale: Scale) -> Vec<Claim> {
    let calls = scale.of(1500, 300);
    let mut floor = futex_round_trips();
    let (floor_p50, half) = (median(&mut floor), median(&mut floor) / 2.0);
    let floor_name = "half a futex round trip between two processes, one core";
    let claim = |what: String, ours: f64, beside: &str, theirs: f64, goal: Goal| Claim {
        what,
        unit: "µs",
        ours,
        beside: beside.to_owned(),
        theirs,
        goal,
    };
    let host = Host::start(Place::First, &[]);
    host.deploy_chain("three", 3, LIMITS);
    let mut pinned = hops(&host, "three", calls);
    let (p50, p99) = (median(&mut pinned), percentile(&mut pinned, 99));
    let mut claims = vec![
        claim("a hop, 64 bytes, one core, p50".to_owned(), p50, floor_name, half, Goal::AtMost(2.5)),
        claim("a hop, one core, p99".to_owned(), p99, floor_name, half, Goal::AtMost(30.0)),
        claim("a hop, one core, p50".to_owned(), p50, "the whole round trip", floor_p50, Goal::AtMost(2.5)),
    ];
    let mut one_call = 0.0;
    for (length, calls) in LENGTHS.map(|length| (length, calls / (1 + length / 10))) {
        let name = format!("chain{length}");
        host.deploy_chain(&name, length, LIMITS);
        let took = end_to_end(&host, &name, calls, PACE * u32::try_from(length).unwrap());
        if length == 1 {
            one_call = took;
        }
        let expected = one_call + (length - 1) as f64 * p50;
        let goal = if [10, 100].contains(&length) { Goal::AtMost(1.2) } else { Goal::None };
        let what = format!("chain of {length}, native, end to end, p50");
        claims.push(claim(what, took, "one call and the hops", expected, goal));
        block_on(host.client.remove(&name)).unwrap();
    }
    for length in [1, 2, 5, 10] {
        let name = format!("python{length}");
        host.deploy_python(&name, length, LIMITS, "def handle(event, context):\n    return event\n");
        let took = end_to_end(&host, &name, calls / (1 + length), PACE * 4 * u32::try_from(length).unwrap());
        let what = format!("chain of {length}, Python, end to end, p50");
        claims.push(claim(what, took, "the native chain of one", one_call, Goal::None));
        block_on(host.client.remove(&name)).unwrap();
    }
    drop(host);
    let host = Host::start(Place::Any, &[]);
    host.deploy_chain("three", 3, LIMITS);
    let unpinned = median(&mut hops(&host, "three", calls));
    claims.push(claim("a hop, both cores, p50".to_owned(), unpinned, "the same on one core", p50, Goal::AtMost(1.5)));
    claims
}

fn request(name: &str, trace: bool) -> Request {
    Request { application: name.to_owned(), payload: vec![b'x'; 64].into(), trace, ..Request::default() }
}

/// Microseconds of each hop of so many paced calls: from the moment at which an instance begins to hand its output over, its trace being
/// reported, to the moment the next one has it in hand.
fn hops(host: &Host, name: &str, calls: usize) -> Vec<f64> {
    block_on(async {
        let mut hops = Vec::new();
        for _ in 0..calls {
            tokio::time::sleep(HOPS_PACE).await;
            let answer = host.client.call(request(name, true)).await.unwrap();
            assert_eq!(answer.outcome, Outcome::Done, "{}", answer.diagnostic);
            hops.extend(answer.hops.iter().skip(1).map(|hop| hop.taken_ns.saturating_sub(hop.sent_ns) as f64 / 1000.0));
        }
        hops
    })
}

/// Microseconds of a call, over the management socket, p50.
fn end_to_end(host: &Host, name: &str, calls: usize, pace: Duration) -> f64 {
    let mut times = block_on(async {
        let mut times = Vec::new();
        for _ in 0..calls.max(20) {
            tokio::time::sleep(pace).await;
            let began = Instant::now();
            let answer = host.client.call(request(name, false)).await.unwrap();
            assert_eq!(answer.outcome, Outcome::Done, "{}", answer.diagnostic);
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
        times
    });
    median(&mut times)
}
