//! Files and ports, by Landlock: of all files a worker reads its templates, its own program and
//! what `/proc` tells of itself, and of the network it reaches its master's port.

use std::error::Error;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};

use super::Reach;

/// All that the crate knows of; an older kernel enforces what it knows.
const NEWEST: ABI = ABI::V10;

/// Restricts this thread and those that it will start; returns the ABI that is in force, and how
/// much of [`NEWEST`] that is.
///
/// # Errors
/// Nothing is enforced, and why.
pub(super) fn restrict(
    templates: Option<&Path>,
    reach: &Reach,
) -> Result<(u64, &'static str), String> {
    let status = enforce(templates, reach).map_err(|error| format!("Landlock: {error}"))?;
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u64,
        LandlockStatus::NotEnabled => {
            return Err("Landlock: the kernel has it off (lsm= on its command line)".to_owned());
        }
        LandlockStatus::NotImplemented => {
            return Err("Landlock: the kernel has none (Linux 5.13 brings it)".to_owned());
        }
    };
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok((abi, "full")),
        RulesetStatus::PartiallyEnforced => Ok((abi, "partial")),
        RulesetStatus::NotEnforced => Err("Landlock: the kernel enforces nothing".to_owned()),
    }
}

/// Whether this kernel restricts files at all.
pub(super) fn can_be_restricted() -> bool {
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    rules.handle_access(AccessFs::from_all(ABI::V1)).and_then(Ruleset::create).is_ok()
}

fn enforce(templates: Option<&Path>, reach: &Reach) -> Result<RestrictionStatus, Box<dyn Error>> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // A rule about `/proc/self` holds for the process that makes it: this one.
    let mut paths: Vec<(&Path, BitFlags<AccessFs>)> = vec![(Path::new("/proc/self"), read)];
    // The program itself, for the names in a panic's backtrace.
    paths.push((Path::new("/proc/self/exe"), AccessFs::ReadFile.into()));
    paths.extend(templates.map(|templates| (templates, read)));
    if let Reach::Unix(socket) = reach {
        // Its directory: the socket is another one after each start of its master. Before the first
        // one there may not even be that.
        let folder = socket.ancestors().skip(1).find(|folder| folder.exists());
        paths.extend(folder.map(|folder| (folder, AccessFs::ResolveUnix.into())));
    }
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        // Signals to other processes, and their abstract sockets.
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for (path, access) in paths {
        rules = rules.add_rule(PathBeneath::new(PathFd::new(path)?, access))?;
    }
    if let Reach::Tcp(port) = reach {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    Ok(rules.restrict_self()?)
}
