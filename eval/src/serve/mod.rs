//! A binary cache over the local store, for stock Nix and for us: `ampoule serve`.
//!
//! A small blocking server: a bounded number of threads, bounded requests, every read and write with a time limit. Only `GET`
//! and `HEAD`, and nothing that changes the store.
//!
//! **Effects**: the network; reads the store.

mod answer;
mod http;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ampoule_store::cache::Compression;
use ampoule_store::local::LocalStore;
use ampoule_store::signature::SecretKey;

/// Longest wait for the whole head of the next request on a connection.
const IDLE: Duration = Duration::from_secs(10);
/// Connections that wait for a thread.
const BACKLOG: usize = 128;

/// What is served, and how.
#[derive(Debug)]
pub struct Service {
    /// The store.
    pub store: LocalStore,
    /// Signs what is served.
    pub key: Option<SecretKey>,
    /// Lower ones are asked first.
    pub priority: u64,
    /// How archives are compressed for clients that do not say what they want.
    pub compression: Compression,
    /// Connections at a time.
    pub threads: NonZeroUsize,
}

/// A server that has its address.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

/// The path that a request asks for, if it is one that is served: for tests that send anything.
#[must_use]
pub fn requested_path(mut bytes: &[u8]) -> Option<String> {
    match http::read_request(&mut bytes) {
        Ok(http::Read::Request(request)) => Some(request.path),
        _ => None,
    }
}

impl Server {
    /// Takes an address; port zero lets the kernel choose one.
    ///
    /// # Errors
    /// When the address is none or taken.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    /// When no connection can be accepted any more.
    pub fn run(self, service: Service) -> io::Result<()> {
        let (sender, receiver) = sync_channel::<TcpStream>(BACKLOG);
        let (service, receiver) = (Arc::new(service), Arc::new(Mutex::new(receiver)));
        for number in 0..service.threads.get() {
            let (service, receiver) = (Arc::clone(&service), Arc::clone(&receiver));
            std::thread::Builder::new().name(format!("serve-{number}")).spawn(move || work(&service, &receiver))?;
        }
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    // The threads outlive this loop, so somebody receives.
                    let _ = sender.send(stream);
                }
                // Whoever gave up before we came, or too many open files: neither is the end.
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

fn work(service: &Service, connections: &Mutex<Receiver<TcpStream>>) {
    loop {
        let next = connections.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(stream) = next else { return };
        // A client that goes away or talks nonsense is nobody's trouble but its own.
        let _ = converse(service, &stream);
    }
}

/// Answers requests on one connection until either side has enough.
fn converse(service: &Service, stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(http::STALL))?;
    let mut reader = io::BufReader::new(http::Patient::new(stream));
    loop {
        reader.get_mut().wait(IDLE);
        let request = match http::read_request(&mut reader)? {
            http::Read::Request(request) => request,
            http::Read::End => return Ok(()),
            http::Read::Bad(status) => return http::refuse(stream, status),
        };
        let keep = request.keep_alive;
        let answer = answer::answer(service, &request.path, &request.query);
        http::write_answer(stream, &request, answer)?;
        if !keep {
            return Ok(());
        }
    }
}
