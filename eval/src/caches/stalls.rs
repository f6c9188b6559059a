//! Servers that never come to an end without ever stopping: each is given up.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

use ampoule_store::path::{StoreDir, StorePath};

use super::Caches;
use crate::sources::http::Settings;

/// A server that is honest about being a cache, and sends all else byte by byte, or not at all.
fn dripping(between: Duration, promised: Option<u64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut request, mut line) = (String::new(), String::new());
                let _ = reader.read_line(&mut request);
                while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                    line.clear();
                }
                let info = "StoreDir: /nix/store\n";
                if request.contains("nix-cache-info") {
                    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{info}", info.len());
                    return;
                }
                if let Some(length) = promised {
                    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                }
                while stream.write_all(b"H").is_ok() {
                    std::thread::sleep(between);
                }
            });
        }
    });
    address
}

fn check(between: Duration, promised: Option<u64>) {
    let settings = Settings {
        stall_timeout: Duration::from_millis(200),
        // A narinfo of the greatest length has a moment.
        least_rate: 10 << 20,
        attempts: 2,
        back_off: Duration::ZERO,
        ..Settings::default()
    };
    let caches = Caches::with_settings(settings, StoreDir::default());
    let cache = caches.open(&dripping(between, promised)).unwrap();
    let path = StorePath::new(&[1; 20], "x").unwrap();
    let error = cache.narinfo(&path).unwrap_err();
    assert!(error.to_string().contains(&format!("{}.narinfo", path.hash_part())), "{error}");
}

#[test]
fn silence_is_not_waited_out() {
    check(Duration::from_secs(3600), None);
    check(Duration::from_secs(3600), Some(1000));
}

#[test]
fn neither_heads_nor_bodies_may_drip() {
    // Never a long wait, and no end in sight.
    check(Duration::from_millis(20), None);
    check(Duration::from_millis(20), Some(1_000_000));
}
