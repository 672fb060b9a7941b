//! The host bus: joins applications, front doors and, later, the global bus.
//!
//! ```text
//!  front door ──────────┐                          ┌──▶ application bus of A ──┐ a function of A
//!                       ├──▶ HostBus::call ─ find ─┤                           │ calls /B
//!  application's call ──┘      allowed? room?      └──▶ application bus of B   │
//!        ▲                                                                     │
//!        └─────────────────────── up one level, down one level ────────────────┘
//! ```
//!
//! There is one way to call, [`HostBus::call`], whoever calls. It finds the application, decides whether the caller may
//! call it, counts the call, and has its [`Service`] make it.
//!
//! Invariants:
//! 1. What a call costs here does not grow with the number of applications: one look-up in a hash table, and two counts.
//! 2. No application's calls keep another's out: see [`admission`].
//! 3. A call of an application goes on only if the manifest of the one that is called names the caller. That the caller's
//!    own manifest says what it calls is seen to by whoever hands its request in.
//!
//! It does not own applications: the host agent deploys and removes them, and keeps the directory here up to date. It does
//! not touch a sandbox, and does not know a protocol.

mod admission;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::call::{Answer, Call, CallId, Origin, Outcome, Request};
use crate::host::HostConfig;
use crate::manifest::{Application, Name};
use crate::outputs::Outputs;
use crate::service::Service;
use admission::{Admission, Share};

/// How many calls from one application into another may lie between a front door and a function. Applications that call
/// each other in a circle come to an end here.
pub const CALL_DEPTH_MAX: u32 = 16;

/// The host bus: finds what a call is for, admits it, and has it made.
#[derive(Debug)]
pub struct HostBus {
    directory: RwLock<HashMap<String, Entry>>,
    admission: Admission,
    /// What functions give out, for whoever watches.
    pub(crate) outputs: Arc<Outputs>,
    next_call: AtomicU64,
    /// The largest payload of any call, in bytes.
    payload_bytes_max: usize,
    /// Whether the path of every call is written to its application's log.
    trace: bool,
}

/// One application in the directory.
#[derive(Debug)]
struct Entry {
    service: Arc<Service>,
    /// Counts the calls of all versions: a new version begins with what the one before it has under way.
    share: Arc<Share>,
}

/// Who makes a call.
#[derive(Clone, Copy, Debug)]
pub enum Caller<'a> {
    /// A front door, for somebody from there. May call the applications whose manifests admit that.
    Door(Origin),
    /// A function of an application. May call the applications that name its own in their `callers`.
    Application {
        /// The application's name.
        name: &'a Name,
        /// How many calls from one application into another led to the one that this is made in; 0 when a door made that.
        depth: u32,
    },
}

/// What a request is for, found and allowed.
#[derive(Debug)]
struct Target {
    service: Arc<Service>,
    share: Arc<Share>,
    /// The function's index in the application.
    function: usize,
}

impl HostBus {
    /// A bus without applications, which numbers calls from `first_call` on.
    pub(crate) fn new(config: &HostConfig, first_call: u64) -> Self {
        Self {
            directory: RwLock::default(),
            admission: Admission::new(config.calls_assured, config.calls_in_flight_max),
            outputs: Arc::default(),
            next_call: AtomicU64::new(first_call),
            payload_bytes_max: config.payload_bytes_max,
            trace: config.trace,
        }
    }

    /// Makes a call and waits for its end. Always returns by the call's deadline.
    pub async fn call(&self, caller: Caller<'_>, request: Request) -> Answer {
        self.make(None, caller, request).await
    }

    /// Makes a call that has its id already, for the host itself.
    pub(crate) async fn call_by(&self, id: CallId, request: Request) -> Answer {
        self.make(Some(id), Caller::Door(Origin::Known), request).await
    }

    /// Whether a call could be made, but for room.
    pub(crate) fn check(&self, caller: Caller<'_>, request: &Request) -> Result<(), Box<Answer>> {
        self.target(caller, request).map(|_| ())
    }

    /// The id for a new call.
    pub(crate) fn new_id(&self) -> CallId {
        CallId(self.next_call.fetch_add(1, Ordering::Relaxed))
    }

    async fn make(&self, id: Option<CallId>, caller: Caller<'_>, mut request: Request) -> Answer {
        let asked_for = request.trace;
        request.trace |= self.trace;
        let mut target = match self.target(caller, &request) {
            Ok(target) => target,
            Err(refused) => return *refused,
        };
        let Some(_admitted) = self.admission.admit(&target.share) else {
            let diagnostic =
                "the host has as many calls under way as it takes, and the application all it is assured of";
            return Answer::refused(Outcome::Overloaded, diagnostic);
        };
        let id = id.unwrap_or_else(|| self.new_id());
        let depth = match caller {
            Caller::Door(_) => 0,
            Caller::Application { depth, .. } => depth + 1,
        };
        loop {
            let call = Call { id, function: target.function, depth };
            if let Ok(mut answer) = target.service.call(call, &request).await {
                if self.trace {
                    target.service.log.add("", &path_line(id, &answer));
                }
                if !asked_for {
                    answer.hops.clear();
                }
                return answer;
            }
            // The version was replaced between the look-up and the call: the new one is there now.
            target = match self.target(caller, &request) {
                Ok(target) => target,
                Err(refused) => return *refused,
            };
        }
    }

    /// Whether a call to this application (and function, if named) can exist at all and may come from there: cheap, for
    /// doors that refuse before a payload has arrived.
    ///
    /// # Errors
    /// What the caller is to be told.
    pub fn find(&self, origin: Origin, application: &str, function: Option<&str>) -> Result<(), Box<Answer>> {
        let directory = self.directory();
        let application = &entry(&directory, application)?.service.application;
        allow(Caller::Door(origin), application)?;
        function_of(application, function).map(|_| ())
    }

    /// Whether what a function gives out may be observed; not if there is none.
    pub fn observable(&self, application: &str, function: Option<&str>) -> bool {
        let directory = self.directory();
        let entry = directory.get(application);
        entry.is_some_and(|entry| {
            let application = &entry.service.application;
            function_of(application, function).is_ok_and(|index| application.functions[index].observe)
        })
    }

    fn target(&self, caller: Caller<'_>, request: &Request) -> Result<Target, Box<Answer>> {
        let directory = self.directory();
        let entry = entry(&directory, &request.application)?;
        let application = &entry.service.application;
        allow(caller, application)?;
        let function = function_of(application, request.function.as_deref())?;
        refuse_too_large(application, self.payload_bytes_max, request.payload.len())?;
        Ok(Target { service: Arc::clone(&entry.service), share: Arc::clone(&entry.share), function })
    }

    fn directory(&self) -> RwLockReadGuard<'_, HashMap<String, Entry>> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory_to_change(&self) -> RwLockWriteGuard<'_, HashMap<String, Entry>> {
        self.directory.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a service, and returns the one that was entered under its name before.
    pub(crate) fn put(&self, service: Arc<Service>) -> Option<Arc<Service>> {
        let name = service.application.name.as_str().to_owned();
        let mut directory = self.directory_to_change();
        if let Some(entry) = directory.get_mut(&name) {
            let before = std::mem::replace(&mut entry.service, service);
            drop(directory);
            self.outputs.replaced(&name);
            return Some(before);
        }
        directory.insert(name, Entry { service, share: Arc::default() });
        None
    }

    /// Takes an application's service out of the directory.
    pub(crate) fn take(&self, application: &str) -> Option<Arc<Service>> {
        let taken = self.directory_to_change().remove(application).map(|entry| entry.service);
        self.outputs.replaced(application);
        taken
    }

    /// Takes all services out of the directory.
    pub(crate) fn take_all(&self) -> Vec<Arc<Service>> {
        self.directory_to_change().drain().map(|(_, entry)| entry.service).collect()
    }

    /// An application's service.
    pub(crate) fn service(&self, application: &str) -> Option<Arc<Service>> {
        self.directory().get(application).map(|entry| Arc::clone(&entry.service))
    }

    /// All services, by their applications' names.
    pub(crate) fn services(&self) -> Vec<Arc<Service>> {
        let mut services: Vec<_> = self.directory().values().map(|entry| Arc::clone(&entry.service)).collect();
        services.sort_by(|a, b| a.application.name.cmp(&b.application.name));
        services
    }
}

fn refused(outcome: Outcome, diagnostic: String) -> Box<Answer> {
    Box::new(Answer::refused(outcome, diagnostic))
}

fn entry<'d>(directory: &'d HashMap<String, Entry>, application: &str) -> Result<&'d Entry, Box<Answer>> {
    let entry = directory.get(application);
    entry.ok_or_else(|| refused(Outcome::NotFound, format!("no application {application:?} is deployed")))
}

/// Whether the caller may call the application.
fn allow(caller: Caller<'_>, application: &Application) -> Result<(), Box<Answer>> {
    let called = &application.name;
    let (name, depth) = match caller {
        Caller::Door(origin) if admits(application, origin) => return Ok(()),
        Caller::Door(_) => {
            let diagnostic = format!("application \"{called}\" may not be called by this way from there");
            return Err(refused(Outcome::NotAllowed, diagnostic));
        }
        Caller::Application { name, depth } => (name, depth),
    };
    if !application.callers.contains(name) {
        let diagnostic = format!(
            "application \"{name}\" may not call \"{called}\": the manifest of {called} has to name it, callers = [\"{name}\"]"
        );
        return Err(refused(Outcome::NotAllowed, diagnostic));
    }
    if depth >= CALL_DEPTH_MAX {
        let diagnostic = format!(
            "{called}: the call went round through applications: it is {depth} calls from one into another deep, and {name} may make no more"
        );
        return Err(refused(Outcome::Failed, diagnostic));
    }
    Ok(())
}

/// Whether the application's manifest lets calls come from there.
pub(crate) fn admits(application: &Application, origin: Origin) -> bool {
    match origin {
        Origin::Known => true,
        Origin::Coap(from) => application.access.coap.admits(from),
        Origin::Http(from) => application.access.http.admits(from),
    }
}

/// The index of the function of that name, or of the one that is called when none is named.
fn function_of(application: &Application, function: Option<&str>) -> Result<usize, Box<Answer>> {
    let Some(name) = function else { return Ok(application.entry) };
    application.function(name).ok_or_else(|| {
        refused(Outcome::NotFound, format!("application {:?} has no function {name:?}", application.name.as_str()))
    })
}

fn refuse_too_large(application: &Application, host_max: usize, payload_bytes: usize) -> Result<(), Box<Answer>> {
    let max = application.limits.payload_bytes.min(host_max);
    if payload_bytes <= max {
        return Ok(());
    }
    let refused = Answer::refused(Outcome::TooLarge, format!("a payload of at most {max} bytes is taken"));
    Err(Box::new(Answer { payload_bytes_max: Some(max), ..refused }))
}

/// The path of a call in one line: each function with its instance's process id, how long the message waited for it and how
/// long it ran.
fn path_line(id: CallId, answer: &Answer) -> String {
    let micros = |ns: u64| format!("{}.{} µs", ns / 1000, ns % 1000 / 100);
    let hops = answer.hops.iter().map(|hop| {
        let waited = micros(hop.taken_ns.saturating_sub(hop.sent_ns));
        let ran = micros(hop.done_ns.saturating_sub(hop.taken_ns));
        format!("{}[{}] waited {waited}, ran {ran}", hop.function, hop.pid)
    });
    let hops: Vec<_> = hops.collect();
    format!("call {id}: {}: {}", answer.outcome, hops.join(" > "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::FILE_NAME;

    fn gallery(top: &str) -> Application {
        let text = format!(
            "name = \"gallery\"\n{top}\n[functions.thumbnail]\nruntime = \"python3\"\ncode = \"thumbnail.py\"\n"
        );
        Application::parse(&text, FILE_NAME).unwrap()
    }

    fn from<'a>(name: &'a Name, depth: u32) -> Caller<'a> {
        Caller::Application { name, depth }
    }

    #[test]
    fn doors_call_every_application_and_applications_those_that_name_them() {
        let (porch, den) = (Name::new("porch").unwrap(), Name::new("den").unwrap());
        assert!(allow(Caller::Door(Origin::Known), &gallery("")).is_ok());
        let gallery = gallery("callers = [\"den\"]");
        assert!(allow(Caller::Door(Origin::Known), &gallery).is_ok());
        assert!(allow(from(&den, 0), &gallery).is_ok());
        let refused = allow(from(&porch, 0), &gallery).unwrap_err();
        assert_eq!(refused.outcome, Outcome::NotAllowed);
        let expected = "application \"porch\" may not call \"gallery\": the manifest of gallery has to name it, callers = [\"porch\"]";
        assert_eq!(refused.diagnostic, expected);
    }

    #[test]
    fn strangers_come_in_where_and_from_where_the_manifest_says() {
        let near = std::net::IpAddr::from([192, 168, 1, 9]);
        let far = std::net::IpAddr::from([192, 168, 2, 9]);
        let gallery = gallery("[access]\ncoap = [\"192.168.1.0/24\"]\nhttp = \"none\"\n");
        assert!(allow(Caller::Door(Origin::Coap(near)), &gallery).is_ok());
        assert!(allow(Caller::Door(Origin::Known), &gallery).is_ok());
        for origin in [Origin::Coap(far), Origin::Http(near)] {
            assert_eq!(allow(Caller::Door(origin), &gallery).unwrap_err().outcome, Outcome::NotAllowed);
        }
    }

    #[test]
    fn calls_that_go_round_through_applications_come_to_an_end() {
        let den = Name::new("den").unwrap();
        let gallery = gallery("callers = [\"den\"]");
        assert!(allow(from(&den, CALL_DEPTH_MAX - 1), &gallery).is_ok());
        for depth in [CALL_DEPTH_MAX, u32::MAX] {
            let refused = allow(from(&den, depth), &gallery).unwrap_err();
            assert_eq!(refused.outcome, Outcome::Failed);
            assert!(refused.diagnostic.contains("went round through applications"), "{}", refused.diagnostic);
        }
    }

    #[test]
    fn functions_are_found_by_name_and_payloads_measured() {
        let gallery = gallery("[limits]\npayload = \"1KiB\"");
        assert_eq!(function_of(&gallery, None).unwrap(), 0);
        assert_eq!(function_of(&gallery, Some("thumbnail")).unwrap(), 0);
        assert_eq!(function_of(&gallery, Some("none")).unwrap_err().outcome, Outcome::NotFound);
        assert!(refuse_too_large(&gallery, 1 << 20, 1024).is_ok());
        for (host_max, most) in [(1 << 20, 1024), (100, 100)] {
            let refused = refuse_too_large(&gallery, host_max, 1025).unwrap_err();
            assert_eq!((refused.outcome, refused.payload_bytes_max), (Outcome::TooLarge, Some(most)));
        }
    }
}
