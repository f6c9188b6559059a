//! A person's terminal, handed over to programs that have one of their own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::{JoinHandle, spawn};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use signal_hook::consts::SIGWINCH;

/// A terminal whose keys go to whoever reads it as they are, until this is dropped.
#[derive(Debug)]
pub struct Raw(Termios);

impl Raw {
    /// Switches the terminal on standard input.
    ///
    /// # Errors
    /// When standard input is no terminal.
    pub fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self(before))
    }

    /// Puts the terminal back to what it was.
    pub fn leave(&self) {
        // It may be gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Carries what is typed to a terminal and what is written there back, until its last program is gone.
#[derive(Debug)]
pub struct Relay(JoinHandle<()>);

impl Relay {
    /// Begins with standard input and standard output; `terminal` is the side of whoever types.
    ///
    /// # Errors
    /// When the system refuses to say when the window changes.
    pub fn start(terminal: OwnedFd) -> io::Result<Self> {
        let (resized, told) = UnixStream::pair()?;
        resized.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(SIGWINCH, told)?;
        Ok(Self(spawn(move || carry(&terminal, &resized))))
    }

    /// Waits until all that was written has been carried.
    pub fn finish(self) {
        let _ = self.0.join();
    }
}

fn carry(terminal: &OwnedFd, resized: &UnixStream) {
    let mut typing = true;
    resize(terminal);
    loop {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let mut watched = vec![PollFd::new(terminal, PollFlags::IN), PollFd::new(resized, PollFlags::IN)];
        watched.extend(typing.then(|| PollFd::new(&stdin, PollFlags::IN)));
        match poll(&mut watched, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        let happened: Vec<bool> = watched.iter().map(|one| !one.revents().is_empty()).collect();
        drop(watched);
        if happened[1] {
            let _ = rustix::io::read(resized, &mut [0_u8; 64]);
            resize(terminal);
        }
        // The last program's end is an error here.
        if happened[0] && !matches!(pass(terminal, &stdout), Ok(count) if count > 0) {
            return;
        }
        if happened.get(2) == Some(&true) {
            typing = matches!(pass(&stdin, terminal), Ok(count) if count > 0);
        }
    }
}

fn pass(from: impl AsFd, to: impl AsFd) -> rustix::io::Result<usize> {
    let mut buffer = [0_u8; 16 << 10];
    let count = rustix::io::retry_on_intr(|| rustix::io::read(&from, &mut buffer))?;
    let mut left = &buffer[..count];
    while !left.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&to, left))?;
        left = &left[written..];
    }
    Ok(count)
}

/// Tells the terminal how large the person's is.
fn resize(terminal: &OwnedFd) {
    if let Ok(size) = tcgetwinsize(io::stdin()) {
        let _ = tcsetwinsize(terminal, size);
    }
}
