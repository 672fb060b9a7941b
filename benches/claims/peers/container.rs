//! A container for each call, made by bubblewrap and by crun: all namespaces, no capabilities, a read-only root. crun sets limits too, as
//! whoever runs containers on a host does. Both run the function's program once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use super::program::Program;
use super::{Peer, Rate, Skipped, Way, function, installed};

const ISOLATION: &str = "container";
/// Control groups of version 2 on a host that has both.
const UNIFIED: &str = "/sys/fs/cgroup/unified";
/// The first user of a container, on the host: nobody's.
const USERS_FROM: u32 = 1_900_000_000;

pub(crate) fn peers(folder: &Path) -> Vec<(String, Result<Peer, Skipped>)> {
    let peer = |name: &str, program: Result<Program, Skipped>| {
        (name.to_owned(), program.map(|program| Peer::new(name, ISOLATION, Rate::Found, Way::Started(program))))
    };
    vec![peer("bubblewrap", bubblewrap()), peer("crun", crun(folder))]
}

fn bubblewrap() -> Result<Program, Skipped> {
    let (bwrap, function) = (installed("bwrap", "bubblewrap")?, function()?);
    Ok(Program::new(move |_| {
        let mut command = Command::new(&bwrap);
        command.args(["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]);
        command.args(["--uid", "1000", "--gid", "1000", "--ro-bind", "/usr", "/usr", "--ro-bind"]).arg(&function);
        command.args(["/function", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "/function", "once"]);
        command
    }))
}

fn crun(folder: &Path) -> Result<Program, Skipped> {
    let (crun, function) = (installed("crun", "crun")?, function()?);
    let (bundle, state) = (folder.join("bundle"), folder.join("crun"));
    let root = bundle.join("rootfs");
    for mount_point in ["proc", "dev", "tmp"] {
        fs::create_dir_all(root.join(mount_point)).unwrap();
    }
    // Its root is a user who is nobody on the host, and has to find it.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(function, root.join("function")).unwrap();
    let group = format!("sandbar-peers-{}", std::process::id());
    fs::write(bundle.join("config.json"), configuration(&group).to_string()).unwrap();
    let crun = move |what: &str, number: u64, more: &[&str], bundle: Option<&PathBuf>| {
        let mut command = Command::new(&crun);
        command.arg("--root").arg(&state).arg(what).args(more);
        if let Some(bundle) = bundle {
            command.arg("--bundle").arg(bundle);
        }
        command.arg(format!("{group}-{number}"));
        command
    };
    let delete = crun.clone();
    let program = Program::new(move |number| crun("run", number, &[], Some(&bundle)));
    Ok(program.swept_by(move |number| delete("delete", number, &["--force"], None)).within(without_unified_groups))
}

/// Where control groups are of both versions, crun refuses to make any; it is shown those of version 1 alone.
fn without_unified_groups() -> nix::Result<()> {
    if !Path::new(UNIFIED).exists() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    umount2(UNIFIED, MntFlags::MNT_DETACH)
}

/// What `crun spec` suggests, with users of its own and limits, and without a terminal.
fn configuration(group: &str) -> serde_json::Value {
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "user", "cgroup"];
    let users = json!([{ "containerID": 0, "hostID": USERS_FROM, "size": 65536 }]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": { "uid": 1000, "gid": 1000 }, "args": ["/function", "once"], "env": [],
            "cwd": "/", "noNewPrivileges": true,
            "capabilities": { "bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": [] },
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "function",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"] },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"] },
        ],
        "linux": {
            "namespaces": namespaces.map(|kind| json!({ "type": kind })),
            "uidMappings": users, "gidMappings": users,
            "cgroupsPath": format!("/{group}"),
            "resources": { "memory": { "limit": 128 << 20 }, "pids": { "limit": 32 } },
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/sysrq-trigger", "/proc/timer_list"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
        },
    })
}
