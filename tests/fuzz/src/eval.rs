//! The decoders of what servers of sources and clients of our own server send.

use ampoule_eval::{serve, sources};

use super::Target;

pub(super) const TARGETS: &[Target] = &[
    Target { name: "debian_packages", run: debian_packages, cost: 3 },
    Target { name: "debian_release", run: debian_release, cost: 1 },
    Target { name: "index_json", run: index_json, cost: 3 },
    Target { name: "index_html", run: index_html, cost: 3 },
    Target { name: "http_request", run: http_request, cost: 1 },
];

/// An index of packages.
pub(super) fn debian_packages(bytes: &[u8]) {
    let _ = sources::foreign::packages(&String::from_utf8_lossy(bytes));
}

/// A suite's release file.
pub(super) fn debian_release(bytes: &[u8]) {
    let _ = sources::foreign::release(&String::from_utf8_lossy(bytes));
}

/// A project's page as JSON.
pub(super) fn index_json(bytes: &[u8]) {
    index("application/vnd.pypi.simple.v1+json", bytes);
}

/// A project's page as HTML.
pub(super) fn index_html(bytes: &[u8]) {
    index("text/html", bytes);
}

fn index(media_type: &str, bytes: &[u8]) {
    for name in sources::foreign::index_page(media_type, bytes).unwrap_or_default() {
        assert!(!name.is_empty() && !name.contains('/') && name != "." && name != "..", "{name:?}");
    }
}

/// A request to our server.
pub(super) fn http_request(bytes: &[u8]) {
    if let Some(path) = serve::requested_path(bytes) {
        assert!(path.starts_with('/') && !path.contains('?'), "{path:?}");
    }
}
