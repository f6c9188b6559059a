//! Which user and group of the host a build gets.

/// Builds of root get a user and group of their own, this number plus the process number of their init: no two running
/// builds share one, and none is shared with a real user. The range lies behind the one Nix allocates from.
const FIRST: u32 = 880_803_840;
/// Process numbers stay below this on every Linux.
const PROCESSES: u32 = 1 << 22;

/// A build's user and group on the host, and how to map them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The user.
    pub(super) user: u32,
    /// The group.
    pub(super) group: u32,
    /// Whether they are the caller's own; then the kernel demands that `setgroups` is given up first.
    pub(super) is_own: bool,
}

/// The parts of a process's identity that matter here.
pub(super) struct Caller<'a> {
    pub(super) user: u32,
    pub(super) group: u32,
    /// Content of `/proc/self/uid_map`.
    pub(super) user_map: &'a str,
}

impl Identity {
    /// Chooses for the sandbox whose init has this process number.
    pub(super) fn choose(caller: &Caller<'_>, init: u32) -> Self {
        let own = Self { user: caller.user, group: caller.group, is_own: true };
        if caller.user != 0 || init >= PROCESSES {
            return own;
        }
        // Root of a container may own few users; then the highest ones are the least likely to be anybody's.
        let end = caller.user_map.lines().filter_map(range_end).max().unwrap_or(0);
        let user = match end {
            end if end >= u64::from(FIRST) + u64::from(PROCESSES) => FIRST + init,
            end if end >= 32_768 => u32::try_from(end - 1).unwrap_or(u32::MAX) - init % 8192,
            _ => return own,
        };
        Self { user, group: user, is_own: false }
    }

    /// The line for `uid_map`.
    pub(super) fn user_map(&self, inside: u32) -> String {
        format!("{inside} {} 1", self.user)
    }

    /// The line for `gid_map`.
    pub(super) fn group_map(&self, inside: u32) -> String {
        format!("{inside} {} 1", self.group)
    }
}

/// Where a line `inside outside count` of a user map ends, inside.
fn range_end(line: &str) -> Option<u64> {
    let mut fields = line.split_whitespace().map(str::parse::<u64>);
    let first = fields.next()?.ok()?;
    let count = fields.nth(1)?.ok()?;
    first.checked_add(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(user: u32, map: &str, expected: (u32, bool)) {
        let identity = Identity::choose(&Caller { user, group: 7, user_map: map }, 1234);
        assert_eq!((identity.user, identity.is_own), expected, "{map}");
    }

    #[test]
    fn root_lends_a_private_user() {
        check(0, "         0          0 4294967295\n", (FIRST + 1234, false));
        check(0, "0 100000 65536\n", (65_535 - 1234, false));
    }

    #[test]
    fn others_lend_their_own() {
        check(1000, "0 0 4294967295\n", (1000, true));
        check(0, "0 1000 1\n", (0, true));
        check(0, "nonsense", (0, true));
    }
}
