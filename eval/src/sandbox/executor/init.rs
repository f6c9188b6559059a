//! Process 1 of a sandbox.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::super::operations::{Operation, Plan};
use super::builder::{self, Birth};
use super::prepare::Stage;
use super::supervisor::Supervisor;
use super::system::{self, Fork, Waited};
use super::vdso::Patches;
use super::views::Places;
use super::wire::{self, Report};
use super::{modes, zygote};

/// What init is born with.
pub(super) struct Birth1 {
    /// The caller's side of the run: reports go there, and the caller's death is seen there.
    pub(super) caller: OwnedFd,
    /// The log's writing end.
    pub(super) log: OwnedFd,
    /// What to do.
    pub(super) plan: Plan,
    /// Where to find what the zygote has prepared.
    pub(super) places: Places,
    /// Readable once the zygote has mapped the user.
    pub(super) mapped: OwnedFd,
    /// Whether the build runs as the caller's own user.
    pub(super) is_own_user: bool,
    /// Whether the network is up already.
    pub(super) has_network: bool,
}

/// What the zygote says when init may go on.
pub(super) const GO_ON: u8 = b'!';
/// The same, when it has put init into control groups of its own.
pub(super) const GO_ON_IN_GROUPS: u8 = b'g';

/// Why a run came to nothing.
struct Failure {
    operation: String,
    error: io::Error,
}

/// Lives the life of process 1: prepare, start the builder, wait, kill what is left, report.
pub(super) fn live(birth: Birth1, builtins: zygote::Builtins) -> ! {
    system::close_all_but(&[&birth.caller, &birth.log, &birth.mapped].map(AsRawFd::as_raw_fd));
    let caller = match birth.caller.try_clone() {
        Ok(caller) => caller,
        Err(_) => system::exit(1),
    };
    if let Err(Failure { operation, error }) = run(birth, builtins) {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        // An error without a number says more in words.
        let operation = match error.raw_os_error() {
            Some(_) => operation,
            None => format!("{operation} ({error})"),
        };
        let _ = wire::report(&caller, &Report::Failed { operation, errno }, &[]);
        system::exit(1);
    }
    system::exit(0)
}

fn run(birth: Birth1, builtins: zygote::Builtins) -> Result<(), Failure> {
    let doing = |operation: &'static str| move |error: io::Error| Failure { operation: operation.to_owned(), error };
    system::die_with_parent().map_err(doing("tie the sandbox to its caller"))?;
    system::wipe_arguments().map_err(doing("wipe the command line"))?;
    system::set_umask(0);
    system::raise_files_limit();
    let plan = birth.plan;
    let prepared = birth.places.open().map_err(doing("open what was prepared"))?;
    let mut stage = Stage::new(prepared, !birth.is_own_user, birth.has_network);
    // What needs no user is done while the zygote maps it.
    let (early, rest) = plan.prepare.split_at(plan.prepare.iter().take_while(|operation| operation.is_open()).count());
    perform_all(&mut stage, early)?;
    match wait_until_mapped(birth.mapped) {
        Ok(GO_ON_IN_GROUPS) => system::unshare_groups().map_err(doing("hide the names of control groups"))?,
        Ok(_) => {}
        // The zygote knows why, and says so.
        Err(_) => system::exit(1),
    }
    perform_all(&mut stage, rest)?;
    let (store, build) = stage.results().map_err(doing("open the store directory"))?;
    let processes = stage.processes().map_err(doing("open `/proc`"))?;
    drop(stage);
    wire::report(&birth.caller, &Report::Ready, &[store.as_fd(), build.as_fd()])
        .map_err(doing("hand over the store directory"))?;
    let children = system::children_descriptor().map_err(doing("watch processes"))?;
    let (pid, supervisor) =
        start_builder(&plan, &birth.caller, &birth.log, processes, builtins).map_err(doing("start the builder"))?;
    drop((birth.log, plan));
    let watch = Watch { caller: &birth.caller, children: &children, supervisor };
    let status = watch.until_end(pid).map_err(doing("watch the builder"))?;
    bury_all().map_err(doing("end what the builder left running"))?;
    if birth.is_own_user {
        // Root reads whatever the modes say; an ordinary owner may have taken the right to read from itself.
        modes::make_readable(store.as_fd()).map_err(doing("make the outputs readable"))?;
        let _ = modes::make_readable(build.as_fd());
    }
    wire::report(&birth.caller, &Report::Ended { status }, &[]).map_err(doing("report the end"))
}

fn perform_all(stage: &mut Stage, operations: &[Operation]) -> Result<(), Failure> {
    operations.iter().try_for_each(|operation| {
        stage.perform(operation).map_err(|error| Failure { operation: operation.to_string(), error })
    })
}

fn wait_until_mapped(mapped: OwnedFd) -> io::Result<u8> {
    let mut byte = [0];
    io::Read::read_exact(&mut fs::File::from(mapped), &mut byte)?;
    Ok(byte[0])
}

/// Forks the builder; takes over the supervision of its calls.
fn start_builder(
    plan: &Plan,
    caller: &OwnedFd,
    log: &OwnedFd,
    processes: OwnedFd,
    builtins: zygote::Builtins,
) -> io::Result<(i32, Option<Supervisor>)> {
    let (channel, supervisor) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // Found now, because soon init cannot look into itself either.
    let patches = match plan.supervision.needs_patches() {
        true => Some(Patches::find(&plan.supervision, processes.try_clone()?)?),
        false => None,
    };
    // From here on nothing in the sandbox may look into init.
    system::set_dumpable(false)?;
    match system::fork()? {
        Fork::Child => {
            drop((channel, patches));
            builder::become_builder(plan, &Birth { caller, log, processes: &processes, supervisor }, builtins)
        }
        Fork::Parent { child } => {
            drop(supervisor);
            Ok((child, Supervisor::take_over(&channel, child, patches, &plan.supervision)?))
        }
    }
}

/// What init looks at while the build runs.
struct Watch<'a> {
    caller: &'a OwnedFd,
    children: &'a OwnedFd,
    supervisor: Option<Supervisor>,
}

impl Watch<'_> {
    /// Buries orphans and answers calls until the builder ends; returns its status.
    fn until_end(mut self, builder: i32) -> io::Result<c_int> {
        loop {
            if let Some(status) = bury_ended(builder)? {
                return Ok(status);
            }
            let (caller, asked) = self.wait()?;
            if let Some(supervisor) = &mut self.supervisor {
                supervisor.release();
            }
            if !caller.is_empty() {
                // The caller never speaks: it is gone. The kernel kills the build together with its init.
                system::exit(1);
            }
            match &mut self.supervisor {
                Some(supervisor) if asked.contains(PollFlags::IN) => supervisor.answer_one()?,
                // Nobody is left who could ask.
                supervisor if !asked.is_empty() => *supervisor = None,
                _ => {}
            }
        }
    }

    /// Waits until something happens: to the caller, or to the listener.
    fn wait(&self) -> io::Result<(PollFlags, PollFlags)> {
        let mut watched = vec![PollFd::new(self.caller, PollFlags::IN), PollFd::new(self.children, PollFlags::IN)];
        let listener = self.supervisor.as_ref().map(Supervisor::listener);
        watched.extend(listener.as_ref().map(|listener| PollFd::new(listener, PollFlags::IN)));
        let left = self.supervisor.as_ref().and_then(Supervisor::next_release);
        let left =
            left.map(|left| Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() });
        match poll(&mut watched, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened = |number: usize| watched.get(number).map_or(PollFlags::empty(), PollFd::revents);
        if !happened(1).is_empty() {
            // One notice may stand for several children; all of them are looked at next.
            let _ = rustix::io::read(self.children, &mut [0_u8; 128]);
        }
        Ok((happened(0), happened(2)))
    }
}

/// Buries every child that has ended; the builder's status if it is among them.
fn bury_ended(builder: i32) -> io::Result<Option<c_int>> {
    loop {
        match system::wait_child(libc::WNOHANG)? {
            Waited::Ended(child, status) if child == builder => return Ok(Some(status)),
            Waited::Ended(..) => {}
            Waited::NotYet => return Ok(None),
            Waited::NoChildren => return Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Kills every process of the sandbox but this one, and buries them.
fn bury_all() -> io::Result<()> {
    loop {
        system::kill_all();
        if let Waited::NoChildren = system::wait_child(0)? {
            return Ok(());
        }
    }
}
