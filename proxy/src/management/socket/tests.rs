use super::*;

/// A directory of the test's own, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sandbar-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("host.sock")
    }

    fn names(&self) -> Vec<String> {
        fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[tokio::test]
async fn the_file_is_the_owners_alone_and_goes_with_the_socket() {
    let scratch = Scratch::new("own");
    let socket = ManagementSocket::bind(&scratch.socket()).await.unwrap();
    let mode = fs::metadata(scratch.socket()).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(scratch.names(), ["host.sock"], "nothing beside it");
    assert!(listens(&scratch.socket()).await);
    drop(socket);
    assert!(scratch.names().is_empty());
}

#[tokio::test]
async fn what_an_agent_left_that_was_killed_while_it_bound_is_removed_and_nothing_else() {
    let scratch = Scratch::new("swept");
    // No process has the id 0, and this one lives.
    let (dead, ours) = (".sandbar-0-123".to_owned(), format!(".sandbar-{}-123", std::process::id()));
    let others = [ours.as_str(), ".sandbar-0", ".sandbar-0-x", "sandbar-0-123"];
    for name in [dead.as_str()].iter().chain(&others) {
        fs::create_dir(scratch.0.join(name)).unwrap();
        fs::write(scratch.0.join(name).join("s"), "").unwrap();
    }
    let socket = ManagementSocket::bind(&scratch.socket()).await.unwrap();
    let mut names = scratch.names();
    names.sort();
    let mut expected: Vec<_> = others.iter().copied().chain(["host.sock"]).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    drop(socket);
}

#[tokio::test]
async fn a_missing_directory_is_made_but_none_above_it() {
    let scratch = Scratch::new("missing");
    let socket = ManagementSocket::bind(&scratch.0.join("made/host.sock")).await.unwrap();
    assert!(listens(&scratch.0.join("made/host.sock")).await);
    drop(socket);
    let refused = ManagementSocket::bind(&scratch.0.join("mistyped/made/host.sock")).await;
    assert!(matches!(refused, Err(BindError::PrivateDirectory { .. })));
    assert_eq!(scratch.names(), ["made"]);
}

#[tokio::test]
async fn a_living_agents_socket_is_refused_and_stays() {
    let scratch = Scratch::new("live");
    let first = ManagementSocket::bind(&scratch.socket()).await.unwrap();
    let second = ManagementSocket::bind(&scratch.socket()).await;
    assert!(matches!(second, Err(BindError::InUse { .. })));
    assert!(listens(&scratch.socket()).await);
    assert_eq!(scratch.names(), ["host.sock"]);
    drop(first);
}

#[tokio::test]
async fn what_a_killed_agent_left_is_replaced() {
    let scratch = Scratch::new("stale");
    drop(std::os::unix::net::UnixListener::bind(scratch.socket()).unwrap());
    assert!(!listens(&scratch.socket()).await);
    let socket = ManagementSocket::bind(&scratch.socket()).await.unwrap();
    assert!(listens(&scratch.socket()).await);
    assert_eq!(scratch.names(), ["host.sock"]);
    drop(socket);
}

#[tokio::test]
async fn a_socket_that_came_alive_in_the_meantime_gets_its_name_back() {
    let scratch = Scratch::new("race");
    let private = PrivateDirectory::make_in(&scratch.0).unwrap();
    let _other = UnixListener::bind(scratch.socket()).unwrap();
    let taken = take_stale(&scratch.socket(), &private).await;
    assert!(matches!(taken, Err(BindError::InUse { .. })));
    assert!(listens(&scratch.socket()).await);
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let scratch = Scratch::new("file");
    fs::write(scratch.socket(), "precious").unwrap();
    let bound = ManagementSocket::bind(&scratch.socket()).await;
    assert!(matches!(bound, Err(BindError::NotASocket { .. })));
    assert_eq!(fs::read(scratch.socket()).unwrap(), b"precious");
}

#[tokio::test]
async fn a_name_that_another_agent_was_given_is_not_removed() {
    let scratch = Scratch::new("other");
    let first = ManagementSocket::bind(&scratch.socket()).await.unwrap();
    fs::remove_file(scratch.socket()).unwrap();
    let second = ManagementSocket::bind(&scratch.socket()).await.unwrap();
    drop(first);
    assert!(listens(&scratch.socket()).await);
    drop(second);
}

#[tokio::test]
async fn whoever_is_not_the_owner_is_hung_up_on() {
    use tokio::io::AsyncReadExt;

    let scratch = Scratch::new("peer");
    let socket = ManagementSocket::bind(&scratch.socket()).await.unwrap();
    let (mut listener, _file) = socket.into_parts();
    listener.uid = listener.uid.wrapping_add(1);
    let accepting = tokio::spawn(async move { listener.accept().await });
    let mut stranger = UnixStream::connect(scratch.socket()).await.unwrap();
    assert_eq!(stranger.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(!accepting.is_finished());
    accepting.abort();
}
