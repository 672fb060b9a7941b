//! A host agent for one test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sandbar_runtime::manifest::Name;
use sandbar_runtime::{Answer, Caller, HostAgent, HostConfig, Request};

/// Longer than anything here takes, unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// A host of the test's own, and a folder for applications; both are gone with it.
pub(crate) struct Host {
    pub(crate) agent: HostAgent,
    pub(crate) folder: PathBuf,
}

pub(crate) async fn start(name: &str) -> Option<Host> {
    start_with(name, |_| {}).await
}

pub(crate) async fn start_with(name: &str, set_up: impl FnOnce(&mut HostConfig)) -> Option<Host> {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: sandboxes are made by root");
        return None;
    }
    let folder = std::env::temp_dir().join(format!("sandbar-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let mut config = HostConfig::new(folder.join("state"));
    set_up(&mut config);
    let agent = HostAgent::start(config).await.unwrap();
    Some(Host { agent, folder })
}

impl Host {
    pub(crate) fn write(&self, application: &str, files: &[(&str, &str)]) -> PathBuf {
        let directory = self.folder.join(application);
        fs::create_dir_all(&directory).unwrap();
        for (name, contents) in files {
            fs::write(directory.join(name), contents).unwrap();
            fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        directory
    }

    pub(crate) async fn deploy(&self, application: &str, files: &[(&str, &str)]) {
        self.agent.deploy(&self.write(application, files)).await.unwrap();
    }

    /// Waits until the application's log has a line with this text.
    pub(crate) async fn log_says(&self, application: &str, text: &str) {
        let mut lines = self.agent.logs(application, None, true).unwrap();
        let said = async {
            while let Some(line) = lines.next().await {
                if line.text.contains(text) {
                    return;
                }
            }
            panic!("the log has ended");
        };
        let in_time = tokio::time::timeout(PATIENCE, said).await;
        assert!(in_time.is_ok(), "the log of {application} does not say {text:?}");
    }

    pub(crate) async fn call(&self, target: &str, payload: &[u8]) -> Answer {
        self.agent.call(request(target, payload)).await
    }

    /// A call as a function of the application `name` makes it, in a call that is so deep.
    pub(crate) async fn call_as(&self, name: &str, depth: u32, target: &str, payload: &[u8]) -> Answer {
        let name = Name::new(name).unwrap();
        self.agent.bus().call(Caller::Application { name: &name, depth }, request(target, payload)).await
    }

    pub(crate) async fn end(self) {
        self.agent.stop().await;
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn request(target: &str, payload: &[u8]) -> Request {
    let (application, function) = target.split_once('/').map_or((target, None), |(a, f)| (a, Some(f)));
    Request {
        application: application.to_owned(),
        function: function.map(str::to_owned),
        payload: payload.to_vec().into(),
        trace: true,
        ..Request::default()
    }
}
