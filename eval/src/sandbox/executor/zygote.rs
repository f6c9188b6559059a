//! The process that creates sandboxes.
//!
//! It is forked before the caller has threads and stays single-threaded, so that what it forks may go on as ordinary
//! programs: no lock is ever held by a thread that did not come along.

use std::fs;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use super::super::operations::{Operation, Plan};
use super::super::spec::BuiltinCall;
use super::groups::{Groups, Limit};
use super::identity::{Caller, Identity};
use super::init::{self, Birth1};
use super::system::{self, Fork};
use super::views::Views;
use super::wire::{self, Report};

/// The function that knows the builtin builders.
pub(in crate::sandbox) type Builtins = fn(&BuiltinCall) -> i32;

/// Forks the zygote. Returns the socket that takes requests, and the zygote's process number.
///
/// A request is one message, the numbers of user and group inside the sandbox, with three descriptors: the init's side of
/// the run's socket, the log's writing end, and a file with the plan as JSON.
pub(in crate::sandbox) fn start(builtins: Builtins) -> io::Result<(OwnedFd, i32)> {
    // Namespaces of its own only make the zygote faster. Where it may have none, sandboxes may not either, and say so.
    match start_in(Surroundings::Own, builtins)? {
        Some(started) => Ok(started),
        None => start_in(Surroundings::Callers, builtins)?.ok_or_else(|| io::ErrorKind::BrokenPipe.into()),
    }
}

/// Where the zygote lives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Surroundings {
    /// In a user and a mount namespace of its own, in which it may do what only root may outside: prepare mounts and
    /// networks that sandboxes then find ready.
    Own,
    /// In the caller's.
    Callers,
}

/// Forks the zygote; `None` if it may not live there.
fn start_in(surroundings: Surroundings, builtins: Builtins) -> io::Result<Option<(OwnedFd, i32)>> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let caller = system::own_number();
    match system::fork()? {
        Fork::Parent { child } => {
            drop(theirs);
            if surroundings == Surroundings::Callers || move_in(&ours, child).is_ok() {
                return Ok(Some((ours, child)));
            }
            drop(ours);
            system::bury(child);
            Ok(None)
        }
        Fork::Child => {
            // A caller that died before the tie was made leaves a closed socket.
            let _ = system::die_with_parent();
            if system::parent() != caller {
                system::exit(0);
            }
            system::close_all_but(&[theirs.as_raw_fd()]);
            match settle(surroundings, &theirs) {
                Ok(()) => Zygote::new(surroundings, builtins).serve(&theirs),
                Err(_) => system::exit(1),
            }
        }
    }
}

/// The caller's part of giving the zygote a user namespace: every user is the same inside as outside.
fn move_in(zygote: &OwnedFd, process: i32) -> io::Result<()> {
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    wire::receive(zygote)?.ok_or_else(gone)?;
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let (users, groups) = if user.is_root() {
        (same(&fs::read_to_string("/proc/self/uid_map")?), same(&fs::read_to_string("/proc/self/gid_map")?))
    } else {
        fs::write(format!("/proc/{process}/setgroups"), "deny")?;
        (format!("{0} {0} 1", user.as_raw()), format!("{0} {0} 1", group.as_raw()))
    };
    fs::write(format!("/proc/{process}/uid_map"), users)?;
    fs::write(format!("/proc/{process}/gid_map"), groups)?;
    wire::send(zygote, b"mapped", &[])?;
    wire::receive(zygote)?.ok_or_else(gone).map(drop)
}

/// A map that gives every user of this map the same number inside.
fn same(map: &str) -> String {
    let mut lines = String::new();
    for line in map.lines() {
        let mut fields = line.split_whitespace();
        if let (Some(first), Some(_), Some(count)) = (fields.next(), fields.next(), fields.next()) {
            lines.push_str(&format!("{first} {first} {count}\n"));
        }
    }
    lines
}

/// Cuts what ties the zygote to the caller's terminal, files and secrets.
fn settle(surroundings: Surroundings, caller: &OwnedFd) -> io::Result<()> {
    system::start_session()?;
    system::ignore_children();
    system::wipe_environment();
    system::raise_files_limit();
    // The caller's keys are not the build's.
    system::forget_keys();
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for stream in 0..=2 {
        system::set_stream(null.as_fd(), stream)?;
    }
    rustix::process::chdir("/")?;
    if surroundings == Surroundings::Own {
        system::unshare_users_and_mounts()?;
        wire::send(caller, b"unshared", &[])?;
        wire::receive(caller)?.ok_or(io::ErrorKind::BrokenPipe)?;
        // Both are undone by new capabilities.
        system::die_with_parent()?;
        system::set_dumpable(true)?;
        system::unshare_network()?;
        wire::send(caller, b"settled", &[])?;
    }
    Ok(())
}

/// Who the build is inside its sandbox.
struct Inside {
    user: u32,
    group: u32,
}

impl Inside {
    /// From a request: the numbers of the user and the group.
    fn parse(text: &[u8]) -> Self {
        let mut numbers = std::str::from_utf8(text).unwrap_or_default().split(' ').map(|number| number.parse().ok());
        let mut next = |default| numbers.next().flatten().unwrap_or(default);
        Self { user: next(1000), group: next(100) }
    }
}

/// What the zygote knows.
struct Zygote {
    builtins: Builtins,
    user_map: String,
    /// Whether it lives in namespaces of its own.
    is_apart: bool,
    /// Whether its network namespace is ready for the next sandbox, and nobody has seen it.
    has_network: bool,
    views: Option<Views>,
    /// Found when they are first asked for.
    groups: Option<Groups>,
}

impl Zygote {
    fn new(surroundings: Surroundings, builtins: Builtins) -> Self {
        let user_map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let is_apart = surroundings == Surroundings::Own;
        let views = if is_apart { Views::start().ok() } else { None };
        Self { builtins, user_map, is_apart, has_network: is_apart, views, groups: None }
    }

    fn serve(mut self, requests: &OwnedFd) -> ! {
        while let Ok(Some((text, descriptors))) = wire::receive(requests) {
            if let Ok([run, log, plan]) = <[OwnedFd; 3]>::try_from(descriptors)
                && let Err((operation, error)) = self.launch(&run, log, &plan, &Inside::parse(&text))
            {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                let _ = wire::report(&run, &Report::Failed { operation: operation.to_owned(), errno }, &[]);
            }
            // Making one takes longer than all the rest. The next sandbox finds it ready.
            self.has_network |= self.is_apart && system::unshare_network().is_ok();
        }
        if let Some(groups) = self.groups {
            groups.remove();
        }
        system::exit(0)
    }

    /// Limits the sandbox as a whole if the plan says so; whether it is in groups of its own then.
    fn limit_together(&mut self, init: i32, plan: &Plan) -> bool {
        let limit = plan.prepare.iter().find_map(|operation| match operation {
            Operation::LimitTogether { memory_bytes, processes } => {
                Some(Limit { memory_bytes: *memory_bytes, processes: *processes })
            }
            _ => None,
        });
        limit.is_some_and(|limit| self.groups.get_or_insert_with(Groups::find).limit(init, limit))
    }

    /// Creates one sandbox. Everything that is not init's is closed again on return.
    fn launch(
        &mut self,
        run: &OwnedFd,
        log: OwnedFd,
        plan: &OwnedFd,
        inside: &Inside,
    ) -> Result<(), (&'static str, io::Error)> {
        let doing = |operation| move |error: io::Error| (operation, error);
        let plan = read_plan(plan).map_err(doing("read the plan"))?;
        let places = self.views.as_mut().map(|views| views.prepare(&plan)).unwrap_or_default();
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let caller = Caller { user, group, user_map: &self.user_map };
        let is_own_user = Identity::choose(&caller, 1).is_own;
        let (mapped, go) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| ("make a pipe", io::Error::from(error)))?;
        let copy = run.try_clone().map_err(doing("copy a descriptor"))?;
        let has_network = std::mem::take(&mut self.has_network);
        match system::fork_into_namespaces(has_network).map_err(doing("create namespaces"))? {
            (Fork::Child, _) => {
                drop(go);
                init::live(Birth1 { caller: copy, log, plan, places, mapped, is_own_user, has_network }, self.builtins)
            }
            (Fork::Parent { child }, init) => {
                let identity = Identity::choose(&caller, child.unsigned_abs());
                // If this fails, `go` is dropped unwritten and init gives up.
                map(child, &identity, inside, log.as_fd()).map_err(doing("map the build's user"))?;
                let descriptors: Vec<_> = init.iter().map(AsFd::as_fd).collect();
                wire::report(run, &Report::Created, &descriptors).map_err(doing("report the new sandbox"))?;
                // What the zygote's own groups are called is not for the build to see.
                let go_on = if self.limit_together(child, &plan) { init::GO_ON_IN_GROUPS } else { init::GO_ON };
                fs::File::from(go).write_all(&[go_on]).map_err(doing("wake the new sandbox"))
            }
        }
    }
}

fn read_plan(file: &OwnedFd) -> io::Result<Plan> {
    let mut file = fs::File::from(file.try_clone()?);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn map(init: i32, identity: &Identity, inside: &Inside, log: BorrowedFd<'_>) -> io::Result<()> {
    if identity.is_own {
        fs::write(format!("/proc/{init}/setgroups"), "deny")?;
    } else {
        // So that the build can reopen its standard streams by name.
        fchown(log, Some(Uid::from_raw(identity.user)), Some(Gid::from_raw(identity.group)))?;
    }
    fs::write(format!("/proc/{init}/uid_map"), identity.user_map(inside.user))?;
    fs::write(format!("/proc/{init}/gid_map"), identity.group_map(inside.group))
}
