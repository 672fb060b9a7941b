use std::time::Duration;

use super::*;

fn watched(application: &str, function: Option<&str>) -> Arc<Watched> {
    Arc::new(Watched { application: application.to_owned(), subject: function.map(str::to_owned).into() })
}

fn output(payload: &str) -> Output {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    Output { payload, content_format: None, properties: AnswerProperties::default() }
}

/// What a watcher takes, as text.
fn taken(watcher: &Watcher) -> Vec<String> {
    let told = |change| match change {
        Change::Output(watched, output, given) => {
            let function = match &watched.subject {
                Subject::Function(name) => name,
                Subject::Entry | Subject::Call(_) => "-",
            };
            format!("{}/{function}={} of {given}", watched.application, String::from_utf8_lossy(&output.payload))
        }
        Change::Call(watched) => format!("{:?} ended", watched.subject),
        Change::Application(name) => format!("{name} replaced"),
    };
    watcher.take().into_iter().map(told).collect()
}

#[test]
fn who_watches_a_function_is_told_its_newest_output() {
    let outputs = Arc::new(Outputs::default());
    let (one, other) = (outputs.watcher(), outputs.watcher());
    assert!(!outputs.is_watched());
    one.watch(&watched("porch", Some("average")));
    one.watch(&watched("porch", None));
    other.watch(&watched("den", None));
    for text in ["1", "2", "3"] {
        outputs.publish("porch", "average", false, &output(text));
    }
    outputs.publish("porch", "alarm", false, &output("x"));
    outputs.publish("porch", "ingest", true, &output("4"));
    assert_eq!(taken(&one), ["porch/average=3 of 3", "porch/-=4 of 1"]);
    assert!(taken(&one).is_empty() && taken(&other).is_empty());
}

#[test]
fn what_is_watched_no_more_is_not_told_and_costs_nothing() {
    let outputs = Arc::new(Outputs::default());
    let watcher = outputs.watcher();
    let (average, alarm) = (watched("porch", Some("average")), watched("porch", Some("alarm")));
    for _ in 0..2 {
        watcher.watch(&average);
    }
    watcher.watch(&alarm);
    outputs.publish("porch", "average", false, &output("1"));
    watcher.unwatch(&average);
    watcher.unwatch(&average);
    assert!(outputs.is_watched() && taken(&watcher).is_empty());
    assert_eq!(watcher.waiting.lock().bytes, 0);
    watcher.unwatch(&alarm);
    assert!(!outputs.is_watched());
    watcher.watch(&alarm);
    drop(watcher);
    assert!(!outputs.is_watched());
    outputs.publish("porch", "alarm", false, &output("1"));
    let _another = outputs.watcher();
    assert_eq!(outputs.watchers.read().unwrap().len(), 1, "the one that is gone is forgotten");
}

#[test]
fn outputs_beyond_the_bytes_that_may_wait_are_counted_instead() {
    let outputs = Arc::new(Outputs::default());
    let watcher = outputs.watcher();
    watcher.watch(&watched("porch", Some("one")));
    watcher.watch(&watched("porch", Some("two")));
    let large = Output { payload: vec![0; WAITING_BYTES_MAX / 2 + 1].into(), ..output("") };
    outputs.publish("porch", "one", false, &large);
    outputs.publish("porch", "two", false, &large);
    outputs.publish("porch", "one", false, &large);
    assert_eq!((watcher.take().len(), watcher.take_missed(), watcher.take_missed()), (1, 1, 0));
    outputs.publish("porch", "two", false, &large);
    assert_eq!(watcher.take().len(), 1);
}

#[tokio::test]
async fn a_change_wakes_who_waits_for_it() {
    let outputs = Arc::new(Outputs::default());
    let watcher = outputs.watcher();
    watcher.watch(&watched("porch", Some("one")));
    let tell = async {
        tokio::task::yield_now().await;
        outputs.replaced("den");
        outputs.replaced("porch");
        outputs.replaced("porch");
    };
    let changes = tokio::time::timeout(Duration::from_secs(10), watcher.changes());
    let (changes, ()) = tokio::join!(changes, tell);
    assert!(matches!(&changes.unwrap()[..], [Change::Application(name)] if name == "porch"));
}

#[test]
fn who_watches_an_accepted_call_is_told_once_that_it_has_ended() {
    let outputs = Arc::new(Outputs::default());
    let watcher = outputs.watcher();
    let ticket = |call| Ticket { call: crate::CallId(call), secret: 7 };
    let watched = |call| Arc::new(Watched { application: "porch".to_owned(), subject: Subject::Call(ticket(call)) });
    watcher.watch(&watched(1));
    watcher.watch(&watched(2));
    for _ in 0..2 {
        outputs.ended("porch", ticket(1));
    }
    outputs.ended("den", ticket(2));
    outputs.ended("porch", ticket(3));
    let told = format!("{:?} ended", watched(1).subject);
    assert_eq!(taken(&watcher), [told.as_str()]);
    // That it is known no more is told as well.
    outputs.ended("porch", ticket(1));
    assert_eq!(taken(&watcher), [told]);
    outputs.ended("porch", ticket(2));
    watcher.unwatch(&watched(2));
    watcher.unwatch(&watched(1));
    assert!(taken(&watcher).is_empty() && !outputs.is_watched());
}
