//! Messages between the caller, the zygote and a sandbox's init: JSON and file descriptors over `SOCK_SEQPACKET`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// The most descriptors that travel with one message.
const DESCRIPTORS: usize = 4;
/// The longest message. Descriptions of operations are short.
const BYTES: usize = 32 << 10;

/// What the zygote and init tell the caller about a run.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sandbox) enum Report {
    /// The namespaces exist. Comes with the process descriptor of init.
    Created,
    /// The sandbox is set up. Comes with the directory descriptors of the store directory and of `/build`.
    Ready,
    /// A shell has a terminal. Comes with the other end of it.
    Terminal,
    /// The builder could not be started, which is a fact about the build.
    NotStarted { program: String, errno: i32 },
    /// An operation failed.
    Failed { operation: String, errno: i32 },
    /// The builder ended; a wait status.
    Ended { status: i32 },
}

/// Sends a message.
pub(in crate::sandbox) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result.map(drop)?),
        }
    }
}

/// Sends a report.
pub(super) fn report(socket: impl AsFd, report: &Report, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    send(socket, &serde_json::to_vec(report)?, descriptors)
}

/// Receives a message; `None` when the other side is gone.
pub(in crate::sandbox) fn receive(socket: impl AsFd) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            result => break result?,
        }
    };
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
    }
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    bytes.truncate(received.bytes);
    Ok((received.bytes > 0).then_some((bytes, descriptors)))
}

/// Receives a report; `None` when the other side is gone.
pub(in crate::sandbox) fn receive_report(socket: impl AsFd) -> io::Result<Option<(Report, Vec<OwnedFd>)>> {
    match receive(socket)? {
        Some((bytes, descriptors)) => Ok(Some((serde_json::from_slice(&bytes)?, descriptors))),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    #[test]
    fn reports_and_descriptors_arrive() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let sent = Report::Failed { operation: "mount `/proc`".into(), errno: 1 };
        report(&theirs, &sent, &[theirs.as_fd(), ours.as_fd()]).unwrap();
        let (received, descriptors) = receive_report(&ours).unwrap().unwrap();
        assert_eq!(received, sent);
        assert_eq!(descriptors.len(), 2);
        drop((theirs, descriptors));
        assert!(receive_report(&ours).unwrap().is_none());
    }
}
