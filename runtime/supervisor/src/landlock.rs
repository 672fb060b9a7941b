//! A second wall beside the mounts: Landlock rules for workers and instances, which the kernel holds whatever the mount table says.
//!
//! | | worker | instance |
//! |---|---|---|
//! | read, execute | everywhere | everywhere |
//! | write, make, delete | `/tmp`, `/dev/shm`, the devices | the same |
//! | write | `/proc`, to set its instances' standing for want of memory | – |
//! | signal others, connect to abstract sockets of others | of its own rules' domain only | likewise, so of its own call only |
//!
//! The supervisor makes both sets of rules once; a worker enters the first before it runs, each instance the second before its call. A
//! kernel without Landlock, or with an older one, holds what it can: the wall is a second one.

use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

/// Before the second version, files cannot be renamed between directories under any rules: functions would break.
const OLDEST: ABI = ABI::V2;
/// The newest version whose rights are named here.
const NEWEST: ABI = ABI::V6;

/// Why no rules could be made.
#[derive(Debug, thiserror::Error)]
pub enum LandlockError {
    /// The kernel refused them.
    #[error("cannot make Landlock rules")]
    Rules(#[from] RulesetError),
    /// A directory that they name is not there.
    #[error("cannot make Landlock rules")]
    Path(#[from] PathFdError),
}

/// Both sets of rules, as descriptors that landlock_restrict_self(2) takes.
#[derive(Debug)]
pub struct Rules {
    /// For workers.
    pub worker: OwnedFd,
    /// For instances, on top of their worker's.
    pub instance: OwnedFd,
}

/// Makes the rules; `None` where the kernel has no Landlock that is good enough.
///
/// # Errors
/// When the kernel refuses a rule.
pub fn rules() -> Result<Option<Rules>, LandlockError> {
    let supported = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    if supported.handle_access(AccessFs::from_all(OLDEST)).and_then(Ruleset::create).is_err() {
        return Ok(None);
    }
    let worker = common()?.add_rule(PathBeneath::new(PathFd::new("/proc")?, AccessFs::WriteFile))?;
    let (worker, instance): (Option<OwnedFd>, Option<OwnedFd>) = (worker.into(), common()?.into());
    Ok(worker.zip(instance).map(|(worker, instance)| Rules { worker, instance }))
}

fn common() -> Result<RulesetCreated, LandlockError> {
    let all = AccessFs::from_all(NEWEST);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::from_read(NEWEST)))?;
    for place in ["/tmp", "/dev/shm"] {
        rules = rules.add_rule(PathBeneath::new(PathFd::new(place)?, all))?;
    }
    for device in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"] {
        // What a host does not have is not in the sandbox.
        if let Ok(device) = PathFd::new(device) {
            rules = rules.add_rule(PathBeneath::new(device, AccessFs::from_file(NEWEST)))?;
        }
    }
    Ok(rules)
}
