//! More calls than can be served: at once, and for long.

use crate::report::{Claim, Goal};
use crate::stage::{Host, Place, Scale, figure, load};

const LIMITS: &str = "[limits]\nmemory = \"256MiB\"\nprocesses = 128\npayload = \"64KiB\"\ncalls = 1024\nqueue = 1024";

pub(crate) fn measure(scale: Scale) -> Vec<Claim> {
    let host = Host::start(Place::First, &[]);
    host.deploy_chain("echo", 1, LIMITS);
    let target = format!("http://{}/echo", host.http);
    let seconds = scale.of("8s", "3s");
    let burst = load(Place::Second, &format!("coap://{}/echo", host.coap), &["--burst", "100", "--strict"]);
    // Over the management socket: the HTTP door gives one client address no more than its share.
    let socket = host.socket();
    let at_once = load(Place::Second, "echo", &["--burst", "500", "--strict", "--socket", &socket]);
    let closed = load(Place::Second, &target, &["--in-flight", "16", "--for", seconds, "--warm-up", "1s"]);
    let saturation = closed["throughput_per_s"].as_f64().unwrap();
    let rate = |times: f64| format!("{:.0}", saturation * times);
    let paced = |times: f64| {
        load(
            Place::Second,
            &target,
            &["--rate", &rate(times), "--for", seconds, "--warm-up", "1s", "--outstanding", "900"],
        )
    };
    let (full, over) = (paced(1.0), paced(3.0));
    let count = |load: &serde_json::Value, what: &str| load[what].as_f64().unwrap();
    let share = |load: &serde_json::Value, what: &str| count(load, what) / count(load, "calls") * 100.0;
    println!("  saturation {saturation:.0}/s; at 3 x: {over}");
    let claim = |what: &str, unit: &'static str, ours: f64, beside: &str, theirs: f64, goal: Goal| Claim {
        what: what.to_owned(),
        unit,
        ours,
        beside: beside.to_owned(),
        theirs,
        goal,
    };
    let mut claims = vec![
        claim("500 calls at once, done", "calls", count(&at_once, "done"), "all of them", 500.0, Goal::AtLeast(1.0)),
        claim("100 CoAP calls at once, done", "calls", count(&burst, "done"), "all of them", 100.0, Goal::AtLeast(1.0)),
        claim(
            "500 calls at once, the last",
            "ms",
            figure(&at_once, "latency_us", "max") / 1e3,
            "calls at saturation",
            500.0 / saturation * 1e3,
            Goal::None,
        ),
        claim(
            "at 3 x saturation, p99 of calls that are done",
            "ms",
            figure(&over, "service_us", "p99") / 1e3,
            "at saturation",
            figure(&full, "service_us", "p99") / 1e3,
            Goal::AtMost(3.0),
        ),
        claim("at 3 x saturation, calls lost", "%", share(&over, "lost"), "of 100 %", 100.0, Goal::AtMost(0.0)),
        claim(
            "at 3 x saturation, calls done per second",
            "/s",
            over["throughput_per_s"].as_f64().unwrap(),
            "at saturation",
            saturation,
            Goal::None,
        ),
    ];
    if over["refused_us"].is_object() {
        let ours = figure(&over, "refused_us", "p99") / 1e3;
        claims.push(claim("at 3 x saturation, refused after, p99", "ms", ours, "5 ms", 5.0, Goal::AtMost(1.0)));
    }
    claims
}
