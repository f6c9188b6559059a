//! Control groups: limits that hold for all processes of a build together, where the caller may make groups.
//!
//! Both versions are known. A group is made below the caller's own (version 1) or beside it (version 2, where a group with
//! processes has no groups below it that are limited), and has the name of the zygote that made it, so that one whose
//! maker is dead can be found and removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::system;

const PREFIX: &str = "ampoule-";

/// What a build may use as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) memory_bytes: u64,
    pub(super) processes: u32,
}

/// The groups of one zygote.
#[derive(Debug)]
pub(super) struct Groups {
    hierarchies: Vec<Hierarchy>,
    /// The start of the names of its groups.
    name: String,
    next: u64,
    made: Vec<PathBuf>,
}

/// A place to make groups in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    directory: PathBuf,
    /// The files for the limits of memory and of processes, if it has them.
    memory: Option<&'static str>,
    processes: Option<&'static str>,
}

impl Groups {
    /// Finds where groups can be made, and removes those that dead zygotes have left there.
    pub(super) fn find() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let hierarchies = hierarchies(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
        let hierarchies: Vec<Hierarchy> = hierarchies.into_iter().filter_map(Hierarchy::or_above).collect();
        hierarchies.iter().for_each(|hierarchy| remove_abandoned(&hierarchy.directory));
        let own = system::own_number();
        let name = format!("{PREFIX}{own}-{}-", start_of(own).unwrap_or(0));
        Self { hierarchies, name, next: 0, made: Vec::new() }
    }

    /// Puts a process into new groups with these limits; whether there are any.
    pub(super) fn limit(&mut self, process: i32, limit: Limit) -> bool {
        self.tidy();
        let name = format!("{}{}", self.name, self.next);
        self.next += 1;
        let mut is_limited = false;
        for hierarchy in &self.hierarchies {
            let group = hierarchy.directory.join(&name);
            if fs::create_dir(&group).is_err() {
                continue;
            }
            self.made.push(group.clone());
            let set = |file: Option<&str>, value: u64| file.is_none_or(|file| write(&group.join(file), value).is_ok());
            let is_set =
                set(hierarchy.memory, limit.memory_bytes) && set(hierarchy.processes, u64::from(limit.processes));
            if hierarchy.memory == Some("memory.max") {
                // What cannot be held in memory is not to be held elsewhere.
                let _ = write(&group.join("memory.swap.max"), 0);
            }
            is_limited |= is_set && write(&group.join("cgroup.procs"), process.unsigned_abs().into()).is_ok();
        }
        is_limited
    }

    /// Removes the groups whose processes are all gone.
    fn tidy(&mut self) {
        self.made.retain(|group| fs::remove_dir(group).is_err() && group.exists());
    }

    /// Removes all groups; what is in them has to die.
    pub(super) fn remove(mut self) {
        for group in &self.made {
            kill(group);
        }
        for _ in 0..100 {
            self.tidy();
            if self.made.is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Hierarchy {
    /// This one, or in version 2 the one above, if groups with the limits can be made there.
    fn or_above(self) -> Option<Self> {
        if self.memory != Some("memory.max") {
            return self.directory.is_dir().then_some(self);
        }
        let above = self.directory.parent().map(Path::to_owned);
        [Some(self.directory), above].into_iter().flatten().find_map(|directory| {
            let given = fs::read_to_string(directory.join("cgroup.subtree_control")).ok()?;
            let has = |controller: &str| given.split_whitespace().any(|name| name == controller);
            let processes = has("pids").then_some("pids.max");
            has("memory").then_some(Self { directory, memory: Some("memory.max"), processes })
        })
    }
}

fn write(file: &Path, value: u64) -> io::Result<()> {
    fs::write(file, value.to_string())
}

/// The groups this process is in, from `/proc/self/cgroup` and `/proc/self/mountinfo`, that can limit something.
fn hierarchies(groups: &str, mounts: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let has = |controller: &str| controllers.split(',').any(|name| name == controller);
        let (memory, processes) = match controllers {
            "" => (Some("memory.max"), Some("pids.max")),
            _ if has("memory") || has("pids") => {
                (has("memory").then_some("memory.limit_in_bytes"), has("pids").then_some("pids.max"))
            }
            _ => continue,
        };
        let directory = mounts.lines().find_map(|mount| directory(mount, controllers, path));
        found.extend(directory.map(|directory| Hierarchy { directory, memory, processes }));
    }
    found
}

/// Where a group is, if this line of `mountinfo` shows its hierarchy.
fn directory(mount: &str, controllers: &str, group: &str) -> Option<PathBuf> {
    let (place, kind) = mount.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, at) = (place.next()?, place.next()?);
    let mut kind = kind.split(' ');
    let (kind, options) = (kind.next()?, kind.nth(1)?);
    let is_it = match controllers {
        "" => kind == "cgroup2",
        _ => kind == "cgroup" && controllers.split(',').all(|name| options.split(',').any(|option| option == name)),
    };
    let below = if root == "/" { group } else { group.strip_prefix(root)? };
    is_it.then(|| Path::new(at).join(below.trim_start_matches('/')))
}

/// Removes groups whose maker is dead, with whatever is still in them.
fn remove_abandoned(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let mut fields = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).unwrap_or_default().split('-');
        let number = |field: Option<&str>| field.and_then(|field| field.parse::<u64>().ok());
        let (Some(maker), Some(start)) = (number(fields.next()), number(fields.next())) else { continue };
        let is_alive = i32::try_from(maker).is_ok_and(|maker| start_of(maker) == Some(start));
        if !is_alive {
            kill(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Kills every process of a group, if it still has some.
fn kill(group: &Path) {
    if fs::write(group.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    for process in fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Some(process) = process.parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
    }
}

/// When a process started, in the kernel's own measure; `None` if there is none.
fn start_of(process: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in brackets, may hold anything; the numbers after it begin with the third field.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(groups: &str, mounts: &str, expected: &[(&str, Option<&'static str>, Option<&'static str>)]) {
        let expected: Vec<Hierarchy> = expected
            .iter()
            .map(|(directory, memory, processes)| Hierarchy {
                directory: PathBuf::from(directory),
                memory: *memory,
                processes: *processes,
            })
            .collect();
        assert_eq!(hierarchies(groups, mounts), expected);
    }

    #[test]
    fn version_1_is_found() {
        check(
            "7:memory:/a\n5:pids:/\n4:cpu,cpuacct:/\n0::/\n",
            "30 20 0:25 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             31 20 0:26 / /sys/fs/cgroup/pids rw shared:9 - cgroup cgroup rw,pids\n",
            &[
                ("/sys/fs/cgroup/memory/a", Some("memory.limit_in_bytes"), None),
                ("/sys/fs/cgroup/pids/", None, Some("pids.max")),
            ],
        );
    }

    #[test]
    fn version_2_is_found() {
        check(
            "0::/user.slice/session-1.scope\n",
            "30 20 0:25 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
            &[("/sys/fs/cgroup/user.slice/session-1.scope", Some("memory.max"), Some("pids.max"))],
        );
    }

    #[test]
    fn a_container_shows_a_part() {
        check(
            "0::/docker/abc/inner\n",
            "30 20 0:25 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
            &[("/sys/fs/cgroup/inner", Some("memory.max"), Some("pids.max"))],
        );
        check("0::/elsewhere\n", "30 20 0:25 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n", &[]);
        check("nonsense\n0::\n", "nonsense\n - \n", &[]);
    }
}
