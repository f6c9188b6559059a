//! The process that creates sandboxes.
//!
//! It is forked before the caller has threads and stays single-threaded, so that what it forks may go on as ordinary
//! programs: no lock is ever held by a thread that did not come along.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use super::super::spec::BuiltinCall;
use super::identity::{Caller, Identity};
use super::init::{self, Birth1};
use super::system::{self, Fork};
use super::wire::{self, Report};

/// The function that knows the builtin builders.
pub(in crate::sandbox) type Builtins = fn(&BuiltinCall) -> i32;

/// Forks the zygote. Returns the socket that takes requests, and the zygote's process number.
///
/// A request is one message, the numbers of user and group inside the sandbox, with three descriptors: the init's side of the run's socket, the log's writing end, and a
/// file with the plan as JSON.
pub(in crate::sandbox) fn start(builtins: Builtins) -> io::Result<(OwnedFd, i32)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let caller = system::own_number();
    match system::fork()? {
        Fork::Parent { child } => Ok((ours, child)),
        Fork::Child => {
            // A caller that died before the tie was made leaves a closed socket.
            let _ = system::die_with_parent();
            if system::parent() != caller {
                system::exit(0);
            }
            system::close_all_but(&[theirs.as_raw_fd()]);
            match settle() {
                Ok(()) => serve(&theirs, builtins),
                Err(_) => system::exit(1),
            }
        }
    }
}

/// Cuts what ties the zygote to the caller's terminal, files and secrets.
fn settle() -> io::Result<()> {
    system::start_session()?;
    system::ignore_children();
    system::wipe_environment();
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for stream in 0..=2 {
        system::set_stream(null.as_fd(), stream)?;
    }
    Ok(rustix::process::chdir("/")?)
}

fn serve(requests: &OwnedFd, builtins: Builtins) -> ! {
    let user_map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    while let Ok(Some((text, descriptors))) = wire::receive(requests) {
        let inside = Inside::parse(&text);
        if let Ok([run, log, plan]) = <[OwnedFd; 3]>::try_from(descriptors)
            && let Err((operation, error)) = launch(&run, log, plan, &inside, &user_map, builtins)
        {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            let _ = wire::report(&run, &Report::Failed { operation: operation.to_owned(), errno }, &[]);
        }
    }
    system::exit(0)
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

/// Creates one sandbox. Everything that is not init's is closed again on return.
fn launch(
    run: &OwnedFd,
    log: OwnedFd,
    plan: OwnedFd,
    inside: &Inside,
    user_map: &str,
    builtins: Builtins,
) -> Result<(), (&'static str, io::Error)> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let caller = Caller { user, group, user_map };
    let is_own_user = Identity::choose(&caller, 1).is_own;
    let doing = |operation| move |error: io::Error| (operation, error);
    let (mapped, go) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| ("make a pipe", io::Error::from(error)))?;
    let copy = run.try_clone().map_err(doing("copy a descriptor"))?;
    match system::fork_into_namespaces().map_err(doing("create namespaces"))? {
        (Fork::Child, _) => {
            drop(go);
            init::live(Birth1 { caller: copy, log, plan, mapped, is_own_user }, builtins)
        }
        (Fork::Parent { child }, init) => {
            let identity = Identity::choose(&caller, child.unsigned_abs());
            // If this fails, `go` is dropped unwritten and init gives up.
            map(child, &identity, inside, log.as_fd()).map_err(doing("map the build's user"))?;
            let descriptors: Vec<_> = init.iter().map(AsFd::as_fd).collect();
            wire::report(run, &Report::Created, &descriptors).map_err(doing("report the new sandbox"))?;
            fs::File::from(go).write_all(b"!").map_err(doing("wake the new sandbox"))
        }
    }
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
