//! The host agent, driven as the front doors drive it. Needs root: without, the tests say that they are skipped.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test")]

mod between;
mod under_test;

use std::fs;
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::Duration;

use sandbar_runtime::{CALL_DEPTH_MAX, DeployError, HostConfig, Outcome, Request};
use tokio::task::JoinHandle;
use under_test::{Host, start, start_with, until};

const MANIFEST: &str = r#"
name = "letters"
entry = "upper"

[functions.upper]
runtime = "python3"
code = "letters.py"
handler = "upper"
next = "count"

[functions.count]
runtime = "executable"
code = "count.sh"

[functions.raise]
runtime = "python3"
code = "letters.py"
handler = "wrong"

[functions.both]
runtime = "python3"
code = "letters.py"
handler = "both"
"#;

const LETTERS: &str = r"
def upper(event, context):
    context.log('upper saw %d bytes' % len(event))
    return event.upper()

def wrong(event, context):
    raise ValueError('no such letter')

def both(event, context):
    counted = context.call('upper', event)
    context.send('count', b'aside')
    return counted + b'!'
";

const COUNT: &str = "#!/bin/sh\nwc -c | tr -d ' \\n'\n";

fn letters(host: &Host) -> PathBuf {
    host.write("letters", &[("sandbar.toml", MANIFEST), ("letters.py", LETTERS), ("count.sh", COUNT)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_answers_and_its_functions_call_each_other() {
    let Some(host) = start("chain").await else { return };
    let deployed = host.agent.deploy(&letters(&host)).await.unwrap();
    assert_eq!(deployed.functions.len(), 4);
    let answer = host.call("letters", b"some letters").await;
    assert_eq!((answer.outcome, &answer.payload[..]), (Outcome::Done, &b"12"[..]), "{answer:?}");
    assert_eq!(answer.hops.iter().map(|hop| hop.function.as_str()).collect::<Vec<_>>(), ["upper", "count"]);
    assert_ne!(answer.hops[0].pid, answer.hops[1].pid);
    let answer = host.call("letters/both", b"four").await;
    assert_eq!((answer.outcome, &answer.payload[..]), (Outcome::Done, &b"4!"[..]), "{answer:?}");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_told_to_the_caller() {
    let Some(host) = start("wrong").await else { return };
    host.agent.deploy(&letters(&host)).await.unwrap();
    let answer = host.call("letters/raise", b"").await;
    assert_eq!(answer.outcome, Outcome::Failed);
    assert_eq!(answer.diagnostic, "raise: ValueError: no such letter");
    assert_eq!(host.call("letters/none", b"").await.outcome, Outcome::NotFound);
    assert_eq!(host.call("none", b"").await.outcome, Outcome::NotFound);
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_does_not_load_is_not_deployed_and_what_ran_runs_on() {
    let Some(host) = start("load").await else { return };
    let folder = letters(&host);
    host.agent.deploy(&folder).await.unwrap();
    fs::write(folder.join("letters.py"), "import nothing_of_this_name\n").unwrap();
    let error = host.agent.deploy(&folder).await.unwrap_err();
    assert!(matches!(error, DeployError::Sandbox(_)), "{error:?}");
    assert_eq!(host.call("letters", b"abc").await.payload, "3");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_ends_is_made_again_and_calls_wait_for_it() {
    let Some(host) = start("again").await else { return };
    host.agent.deploy(&letters(&host)).await.unwrap();
    let pid = host.agent.applications()[0].pid.unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL).unwrap();
    // The agent has noticed: it is that call that waits, and not one that the sandbox took with it.
    until("the sandbox is over", || host.agent.applications()[0].pid != Some(pid)).await;
    assert_eq!(host.call("letters", b"abcd").await.payload, "4");
    assert_ne!(host.agent.applications()[0].pid.unwrap(), pid);
    assert!(Path::new(&format!("/proc/{pid}")).metadata().is_err());
    host.end().await;
}

/// Calls that come while all instances are busy get instances of their own, and do not wait for the others to end.
#[tokio::test(flavor = "multi_thread")]
async fn slow_calls_do_not_wait_for_each_other() {
    let Some(host) = start("slow").await else { return };
    let manifest = "name = \"slow\"\n[functions.wait]\nruntime = \"python3\"\ncode = \"wait.py\"\ntimeout = \"30s\"\n";
    let code = "import time\ndef handle(event, context):\n    time.sleep(2)\n    return event\n";
    host.agent.deploy(&host.write("slow", &[("sandbar.toml", manifest), ("wait.py", code)])).await.unwrap();
    for round in 0..2 {
        // One after another they would take twice as long as they may.
        let calls = (0..30).map(|call| {
            let agent = host.agent.clone();
            let payload = format!("{round} {call}");
            let request =
                Request { application: "slow".to_owned(), payload: payload.clone().into(), ..Request::default() };
            tokio::spawn(async move { (agent.call(request).await, payload) })
        });
        for call in calls.collect::<Vec<_>>() {
            let (answer, payload) = call.await.unwrap();
            assert_eq!((answer.outcome, &answer.payload[..]), (Outcome::Done, payload.as_bytes()), "{answer:?}");
        }
    }
    host.end().await;
}

const HOSTILE: &str = r#"
import fcntl, os, time

def block(event, context):
    for descriptor in range(3, 10):
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, 0)
        except OSError:
            pass
    return b"done"

def flood(event, context):
    while True:
        os.write(1, b"\n" * 65536)

def echo(event, context):
    return event

def wait(event, context):
    context.log("waits")
    time.sleep(float(event))
    return event
"#;

fn hostile(host: &Host, name: &str) -> PathBuf {
    let functions = ["block", "flood", "echo", "wait"].map(|function| {
        format!(
            "[functions.{function}]\nruntime = \"python3\"\ncode = \"hostile.py\"\nhandler = \"{function}\"\ntimeout = \"30s\"\n"
        )
    });
    let manifest = format!("name = \"{name}\"\nentry = \"echo\"\n{}", functions.concat());
    host.write(name, &[("sandbar.toml", &manifest), ("hostile.py", HOSTILE)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_cannot_hold_up_the_agent() {
    let Some(host) = start("hostile").await else { return };
    for name in ["one", "two"] {
        host.agent.deploy(&hostile(&host, name)).await.unwrap();
        assert_eq!(host.call(&format!("{name}/block"), b"").await.payload, "done");
    }
    let floods = ["one", "two"].map(|name| {
        let request =
            Request { application: name.to_owned(), function: Some("flood".to_owned()), ..Request::default() };
        let agent = host.agent.clone();
        tokio::spawn(async move { agent.call(request).await })
    });
    for _ in 0..20 {
        assert_eq!(host.call("one", b"still here").await.payload, "still here");
    }
    assert!(!floods.iter().any(JoinHandle::is_finished), "nothing was held up, as nothing flooded");
    host.end().await;
    for flood in floods {
        assert_eq!(flood.await.unwrap().outcome, Outcome::Failed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_versions_that_were_replaced_as_well() {
    let Some(host) = start("replaced").await else { return };
    let folder = hostile(&host, "replaced");
    host.agent.deploy(&folder).await.unwrap();
    let agent = host.agent.clone();
    let request = Request {
        application: "replaced".to_owned(),
        function: Some("wait".to_owned()),
        payload: "20".into(),
        ..Request::default()
    };
    let call = tokio::spawn(async move { agent.call(request).await });
    host.log_says("replaced", "waits").await;
    assert!(host.agent.deploy(&folder).await.unwrap().replaced);
    host.agent.stop().await;
    assert_eq!(call.await.unwrap().outcome, Outcome::Failed);
    let name = fs::read_to_string(host.folder.join("state/host")).unwrap();
    for controller in fs::read_dir("/sys/fs/cgroup").unwrap() {
        assert!(!controller.unwrap().path().join(&name).exists(), "a control group is left behind");
    }
    assert!(matches!(host.agent.deploy(&folder).await, Err(DeployError::Stopping)));
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_cannot_be_built_leaves_no_process() {
    let Some(host) = start("unbuilt").await else { return };
    fs::remove_dir(host.folder.join("state/root")).unwrap();
    fs::write(host.folder.join("state/root"), "no directory").unwrap();
    for _ in 0..3 {
        let error = host.agent.deploy(&letters(&host)).await.unwrap_err();
        assert!(matches!(error, DeployError::Sandbox(_)), "{error:?}");
    }
    let ours = std::process::id().to_string();
    // The last one may be reaped a moment later.
    for attempt in 0.. {
        let left = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
        let left =
            left.filter(|stat| stat.contains("(sandbar-super) Z") && stat.split(' ').nth(3) == Some(ours.as_str()));
        if left.count() == 0 {
            break;
        }
        assert!(attempt < 100, "zombies are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    host.end().await;
}

/// One application's slow calls take all that the host has in common, and another's are answered as ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_application_keeps_no_other_out() {
    let limits = |config: &mut HostConfig| (config.calls_in_flight_max, config.calls_assured) = (2, 1);
    let Some(host) = start_with("flood", limits).await else { return };
    for name in ["flooded", "calm"] {
        host.agent.deploy(&hostile(&host, name)).await.unwrap();
    }
    for _round in 0..2 {
        let mut flood: Vec<_> = (0..6).map(|_| Box::pin(host.call("flooded/wait", b"1"))).collect();
        // Each is admitted or refused when it is first looked at.
        let mut refused = 0;
        poll_fn(|context| {
            flood.retain_mut(|call| match call.as_mut().poll(context) {
                Poll::Pending => true,
                Poll::Ready(answer) => {
                    assert_eq!(answer.outcome, Outcome::Overloaded, "{answer:?}");
                    assert!(answer.retry_after.is_some());
                    refused += 1;
                    false
                }
            });
            Poll::Ready(())
        })
        .await;
        assert_eq!((flood.len(), refused), (3, 3), "its own share and all of the common part, and no more");
        for _ in 0..5 {
            let answer = host.call("calm", b"as ever").await;
            assert_eq!((answer.outcome, &answer.payload[..]), (Outcome::Done, &b"as ever"[..]), "{answer:?}");
        }
        for call in flood {
            assert_eq!(call.await.outcome, Outcome::Done);
        }
    }
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_call_those_that_name_them() {
    let Some(host) = start("callers").await else { return };
    let folder = letters(&host);
    let manifest = MANIFEST.replace("entry =", "callers = [\"porch\"]\nentry =");
    fs::write(folder.join("sandbar.toml"), &manifest).unwrap();
    host.agent.deploy(&folder).await.unwrap();
    let answer = host.call_as("porch", 0, "letters", b"some letters").await;
    assert_eq!((answer.outcome, &answer.payload[..]), (Outcome::Done, &b"12"[..]), "{answer:?}");
    let answer = host.call_as("porch", CALL_DEPTH_MAX - 1, "letters/count", b"four").await;
    assert_eq!((answer.outcome, &answer.payload[..]), (Outcome::Done, &b"4"[..]), "{answer:?}");

    let answer = host.call_as("den", 0, "letters", b"").await;
    assert_eq!(answer.outcome, Outcome::NotAllowed);
    assert!(answer.diagnostic.contains("manifest of letters has to name it, callers = [\"den\"]"), "{answer:?}");
    assert_eq!(host.call_as("letters", 0, "letters", b"").await.outcome, Outcome::NotAllowed);
    assert_eq!(host.call_as("porch", CALL_DEPTH_MAX, "letters", b"").await.outcome, Outcome::Failed);
    assert_eq!(host.call_as("porch", 0, "letters/none", b"").await.outcome, Outcome::NotFound);
    assert_eq!(host.call_as("porch", 0, "none", b"").await.outcome, Outcome::NotFound);

    // What the version says that is there when the call is made counts.
    fs::write(folder.join("sandbar.toml"), manifest.replace("porch", "den")).unwrap();
    assert!(host.agent.deploy(&folder).await.unwrap().replaced);
    assert_eq!(host.call_as("porch", 0, "letters", b"").await.outcome, Outcome::NotAllowed);
    assert_eq!(host.call_as("den", 0, "letters", b"abc").await.payload, "3");
    host.end().await;
}
