//! A careful HTTP client: every wait, size, redirect and retry has a bound.
//!
//! Redirects are followed here rather than by the library, so that one from `https` to `http` is refused and so that
//! credentials of one host never travel to another.

#![expect(clippy::disallowed_methods, reason = "certificate bundles are files")]

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use data_encoding::BASE64;
use ureq::Agent;
use ureq::http::{Response, StatusCode, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use url::Url;

use super::credentials::Credentials;
use super::forward_proxy;

/// How the client behaves. [`Settings::default`] suits the open internet.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long to wait for a connection, and for each read.
    pub stall_timeout: Duration,
    /// Slowest average rate, in bytes per second, at which a body may arrive.
    pub least_rate: u64,
    /// How often to try in all when a failure may be transient.
    pub attempts: u32,
    /// How long to wait before the second attempt; doubles each time.
    pub back_off: Duration,
    /// How many redirects to follow.
    pub redirects: u32,
    /// Proxies by scheme (`http`, `https`) of the wanted address.
    pub proxies: BTreeMap<String, String>,
    /// Hosts reached without a proxy: `host`, `.suffix`, `suffix`, `*`, each perhaps with a port.
    pub no_proxy: Vec<String>,
    /// PEM files whose certificates are trusted beside the platform's.
    pub certificate_bundles: Vec<PathBuf>,
    /// Hosts, perhaps with a port, whose certificates are not checked, because the user's client says so.
    pub trusted_hosts: Vec<String>,
    /// Users and passwords for hosts whose addresses name none.
    pub credentials: Vec<Credentials>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stall_timeout: Duration::from_secs(60),
            least_rate: 2048,
            attempts: 4,
            back_off: Duration::from_millis(400),
            redirects: 8,
            proxies: BTreeMap::new(),
            no_proxy: Vec::new(),
            certificate_bundles: Vec::new(),
            trusted_hosts: Vec::new(),
            credentials: Vec::new(),
        }
    }
}

/// Why a request failed. Addresses in messages never carry credentials.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The server answered with a status other than success.
    #[error("{url} answered {status}")]
    Status {
        /// The address that answered.
        url: String,
        /// Its status code.
        status: u16,
    },
    /// Redirects went round in circles or on for too long.
    #[error("{url} redirects more than {limit} times")]
    TooManyRedirects {
        /// The address first asked.
        url: String,
        /// How many were followed.
        limit: u32,
    },
    /// A redirect names no address, an invalid one, or one without encryption.
    #[error("{url} redirects to {}, which is not followed", location.as_deref().unwrap_or("no address"))]
    BadRedirect {
        /// The address that redirects.
        url: String,
        /// Where to.
        location: Option<String>,
    },
    /// The body is longer than what it may be.
    #[error("{url} sends more than {limit} bytes")]
    TooLong {
        /// The address.
        url: String,
        /// The bound that was passed, in bytes.
        limit: u64,
    },
    /// The body ended early, or reading it failed or stalled.
    #[error("{url} broke off: {source}")]
    Broken {
        /// The address.
        url: String,
        /// What reading said.
        source: io::Error,
    },
    /// There was no answer at all.
    #[error("{url} could not be reached: {source}")]
    Unreachable {
        /// The address.
        url: String,
        /// What the connection said.
        source: Box<ureq::Error>,
    },
    /// A certificate bundle or a proxy of the configuration is not usable.
    #[error("{what} cannot be used: {reason}")]
    Setting {
        /// The bundle's path, or the proxy.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl HttpError {
    /// Whether the server says that it does not have the file, as opposed to failing to deliver it.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Status { status: 403 | 404 | 410 | 451, .. })
    }

    /// Whether the same request may well succeed a moment later.
    fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::Broken { .. } => true,
            Self::Unreachable { source, .. } => {
                matches!(
                    **source,
                    ureq::Error::Io(_)
                        | ureq::Error::Timeout(_)
                        | ureq::Error::HostNotFound
                        | ureq::Error::ConnectionFailed
                        | ureq::Error::Protocol(_)
                ) && !is_certificate_error(source)
            }
            _ => false,
        }
    }
}

/// Certificate trouble arrives wrapped as an I/O error; trying again does not mend it.
fn is_certificate_error(error: &ureq::Error) -> bool {
    let ureq::Error::Io(error) = error else { return false };
    error.to_string().contains("certificate")
}

/// A whole small document.
#[derive(Debug)]
pub struct Page {
    /// Where it came from in the end, after redirects.
    pub url: Url,
    /// Its media type, lower case, without parameters; empty if the server named none.
    pub media_type: String,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// A part of a file that is already here, and how to ask for the rest of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// How many bytes are here.
    pub from: u64,
    /// The validator under which they came: the rest is only sent if it still holds. Who has none must notice in another way
    /// when the rest belongs to another file.
    pub validator: Option<String>,
}

/// An answer whose body has not been read yet.
pub struct Stream {
    /// Where it comes from in the end, after redirects.
    pub url: Url,
    /// The offset of the body's first byte in the whole file: zero unless the server resumes.
    pub offset: u64,
    /// The whole file's length, if the server says it.
    pub total: Option<u64>,
    /// A strong validator of this version of the file, if the server gives one.
    pub validator: Option<String>,
    body: ureq::BodyReader<'static>,
}

impl Stream {
    /// Reads on; an error says which address broke off.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, HttpError> {
        self.body.read(buffer).map_err(|source| HttpError::Broken { url: display(&self.url), source })
    }
}

/// What is asked of a file.
#[derive(Clone, Copy)]
enum Verb {
    Get,
    Head,
}

/// Talks HTTP. Cheap to make: connections and certificates are set up when first needed.
pub struct Client {
    settings: Settings,
    agents: Mutex<BTreeMap<AgentKey, Agent>>,
}

/// What requests must have in common to share connections.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct AgentKey {
    proxy: Option<String>,
    encrypted: bool,
    verified: bool,
}

impl Client {
    /// A client that behaves as told.
    pub fn new(mut settings: Settings) -> Self {
        // People leave out the scheme of a proxy.
        for proxy in settings.proxies.values_mut().filter(|proxy| !proxy.contains("://")) {
            *proxy = format!("http://{proxy}");
        }
        Self { settings, agents: Mutex::default() }
    }

    /// How this client behaves.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Fetches a document of at most `limit` bytes into memory, trying again on transient failures.
    pub fn page(&self, url: &Url, accept: &str, limit: u64) -> Result<Page, HttpError> {
        self.retrying(|| self.page_once(url, accept, limit))
    }

    /// Runs `attempt` until it succeeds, fails for good, or has failed as often as the settings allow.
    pub fn retrying<T>(&self, mut attempt: impl FnMut() -> Result<T, HttpError>) -> Result<T, HttpError> {
        let mut wait = self.settings.back_off;
        let mut tried = 1;
        loop {
            match attempt() {
                Err(error) if error.is_transient() && tried < self.settings.attempts => {
                    std::thread::sleep(wait);
                    wait *= 2;
                    tried += 1;
                }
                outcome => return outcome,
            }
        }
    }

    fn page_once(&self, url: &Url, accept: &str, limit: u64) -> Result<Page, HttpError> {
        let (url, response) = self.request(Verb::Get, url, accept, None, Some(limit))?;
        let media_type = header_text(&response, header::CONTENT_TYPE).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let too_long = || HttpError::TooLong { url: display(&url), limit };
        if response.body().content_length().is_some_and(|length| length > limit) {
            return Err(too_long());
        }
        let mut body = Vec::new();
        let reader = response.into_body().into_reader();
        reader
            .take(limit.saturating_add(1))
            .read_to_end(&mut body)
            .map_err(|source| HttpError::Broken { url: display(&url), source })?;
        if body.len() as u64 > limit {
            return Err(too_long());
        }
        Ok(Page { url, media_type, body })
    }

    /// Asks once for a file, or for the rest of it. `expected` is its length where known: it bounds the time.
    ///
    /// The server decides whether it resumes: see [`Stream::offset`].
    pub fn open(&self, url: &Url, resume: Option<&Resume>, expected: Option<u64>) -> Result<Stream, HttpError> {
        let (url, response) = self.request(Verb::Get, url, "*/*", resume, expected)?;
        let length = response.body().content_length();
        let range = (response.status() == StatusCode::PARTIAL_CONTENT)
            .then(|| header_text(&response, header::CONTENT_RANGE).as_deref().and_then(parse_content_range));
        let (offset, total) = match range {
            None => (0, length),
            Some(Some((first, total))) => (first, total),
            Some(None) => return Err(HttpError::Status { url: display(&url), status: 206 }),
        };
        Ok(Stream { offset, total, validator: validator(&response), url, body: response.into_body().into_reader() })
    }

    /// Whether there is a file, without fetching it.
    pub fn exists(&self, url: &Url) -> Result<bool, HttpError> {
        match self.retrying(|| self.request(Verb::Head, url, "*/*", None, Some(0))) {
            Ok(_) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Uploads a file of `length` bytes. Nothing is tried twice, and redirects are not followed.
    pub fn put(&self, url: &Url, body: &mut dyn Read, length: u64) -> Result<(), HttpError> {
        let agent = self.agent_for(url)?;
        let time = self.time_for(Some(length));
        let request = agent.put(bare(url).as_str()).config().timeout_global(Some(time)).build();
        let request = self.identify(url, request.header(header::CONTENT_LENGTH, length));
        let response = request
            .send(ureq::SendBody::from_reader(body))
            .map_err(|source| HttpError::Unreachable { url: display(url), source: Box::new(source) })?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(HttpError::Status { url: display(url), status: status.as_u16() }),
        }
    }

    /// One exchange including its redirects; any status but success is an error.
    fn request(
        &self,
        verb: Verb,
        first: &Url,
        accept: &str,
        resume: Option<&Resume>,
        expected: Option<u64>,
    ) -> Result<(Url, Response<ureq::Body>), HttpError> {
        let mut url = first.clone();
        for _ in 0..=self.settings.redirects {
            let response = self.exchange(verb, &url, accept, resume, expected)?;
            let status = response.status();
            if status.is_success() {
                return Ok((url, response));
            }
            if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Err(HttpError::Status { url: display(&url), status: status.as_u16() });
            }
            url = redirect_target(&url, header_text(&response, header::LOCATION))?;
        }
        Err(HttpError::TooManyRedirects { url: display(first), limit: self.settings.redirects })
    }

    fn exchange(
        &self,
        verb: Verb,
        url: &Url,
        accept: &str,
        resume: Option<&Resume>,
        expected: Option<u64>,
    ) -> Result<Response<ureq::Body>, HttpError> {
        let agent = self.agent_for(url)?;
        let bare = bare(url);
        let request = match verb {
            Verb::Get => agent.get(bare.as_str()),
            Verb::Head => agent.head(bare.as_str()),
        };
        let request = request.config().timeout_global(Some(self.time_for(expected))).build();
        let request = request.header(header::ACCEPT, accept).header(header::ACCEPT_ENCODING, "identity");
        let mut request = self.identify(url, request);
        if let Some(Resume { from, validator }) = resume {
            request = request.header(header::RANGE, format!("bytes={from}-"));
            if let Some(validator) = validator {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        request.call().map_err(|source| HttpError::Unreachable { url: display(url), source: Box::new(source) })
    }

    /// How long a transfer of so many bytes may take.
    fn time_for(&self, expected: Option<u64>) -> Duration {
        self.settings.stall_timeout + Duration::from_secs(expected.unwrap_or(1 << 30) / self.settings.least_rate.max(1))
    }

    /// Adds what the server and the proxy want to know of the user.
    fn identify<B>(&self, url: &Url, mut request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        let named = self.settings.credentials.iter().find_map(|credentials| credentials.apply(url));
        if let Some(url) = named.as_ref().or(Some(url)).filter(|url| !url.username().is_empty()) {
            request = request.header(header::AUTHORIZATION, basic_credentials(url));
        }
        if let Some(credentials) = self.proxy_credentials(url) {
            request = request.header(header::PROXY_AUTHORIZATION, credentials);
        }
        request
    }

    fn agent_for(&self, url: &Url) -> Result<Agent, HttpError> {
        let key = AgentKey {
            proxy: self.proxy_for(url).map(str::to_owned),
            encrypted: url.scheme() == "https",
            verified: !matches_host(&self.settings.trusted_hosts, url),
        };
        let mut agents = self.agents.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let agent = self.make_agent(&key)?;
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    fn make_agent(&self, key: &AgentKey) -> Result<Agent, HttpError> {
        let proxy = key.proxy.as_deref().map(ureq::Proxy::new).transpose().map_err(|error| HttpError::Setting {
            what: "the configured proxy".to_owned(),
            reason: error.to_string(),
        })?;
        // Plain requests are forwarded, not tunnelled.
        let forwarding = proxy.clone().filter(|p| !key.encrypted && p.protocol() == ureq::ProxyProtocol::Http);
        let proxy = if forwarding.is_some() { None } else { proxy };
        let tls = TlsConfig::builder().disable_verification(!key.verified);
        let proxy_encrypted = proxy.as_ref().is_some_and(|p| p.protocol() == ureq::ProxyProtocol::Https);
        let tls = if key.verified && (key.encrypted || proxy_encrypted) {
            tls.root_certs(self.root_certificates()?)
        } else {
            tls
        };
        let config = Agent::config_builder()
            .proxy(proxy)
            .tls_config(tls.build())
            .max_redirects(0)
            .http_status_as_error(false)
            .max_response_header_size(64 * 1024)
            .timeout_connect(Some(self.settings.stall_timeout))
            .timeout_recv_response(Some(self.settings.stall_timeout))
            .timeout_per_read(Some(self.settings.stall_timeout))
            .user_agent(concat!("ampoule/", env!("CARGO_PKG_VERSION")));
        Ok(match forwarding {
            Some(proxy) => forward_proxy::agent(config.build(), proxy.uri().clone()),
            None => config.build().new_agent(),
        })
    }

    /// What a proxy that forwards plain requests wants to know of the user, if its address says it.
    fn proxy_credentials(&self, url: &Url) -> Option<String> {
        let proxy = Url::parse(self.proxy_for(url).filter(|_| url.scheme() == "http")?).ok()?;
        (proxy.scheme() == "http" && !proxy.username().is_empty()).then(|| basic_credentials(&proxy))
    }

    fn proxy_for(&self, url: &Url) -> Option<&str> {
        let proxy = self.settings.proxies.get(url.scheme())?;
        (!matches_host(&self.settings.no_proxy, url)).then_some(proxy)
    }

    /// The platform's certificates (which `SSL_CERT_FILE` and `SSL_CERT_DIR` replace) and those of the bundles.
    fn root_certificates(&self) -> Result<RootCerts, HttpError> {
        let platform = rustls_native_certs::load_native_certs().certs;
        let mut certificates: Vec<_> = platform.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        for bundle in &self.settings.certificate_bundles {
            let unusable = |reason: String| HttpError::Setting { what: bundle.display().to_string(), reason };
            let pem = std::fs::read(bundle).map_err(|error| unusable(error.to_string()))?;
            let before = certificates.len();
            certificates.extend(parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            }));
            if certificates.len() == before {
                return Err(unusable("it holds no certificate".to_owned()));
            }
        }
        Ok(RootCerts::from(certificates))
    }
}

/// The address as messages show it: without user, password and fragment.
pub fn display(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    url.into()
}

/// The address as it is asked for: credentials travel in a header, and fragments not at all.
fn bare(url: &Url) -> Url {
    let mut bare = url.clone();
    // These fail only for addresses that cannot have credentials at all.
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    bare.set_fragment(None);
    bare
}

fn header_text(response: &Response<ureq::Body>, name: header::HeaderName) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

/// A validator that `If-Range` accepts: a strong entity tag, else a date (RFC 9110, 13.1.5).
fn validator(response: &Response<ureq::Body>) -> Option<String> {
    header_text(response, header::ETAG)
        .filter(|tag| tag.starts_with('"'))
        .or_else(|| header_text(response, header::LAST_MODIFIED))
}

/// Reads `bytes 5-9/10`; the total may be `*`.
fn parse_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = if total.trim() == "*" { None } else { Some(total.trim().parse::<u64>().ok()?) };
    let consistent = first <= last && total.is_none_or(|total| total.checked_sub(1) == Some(last));
    consistent.then_some((first, total))
}

fn redirect_target(url: &Url, location: Option<String>) -> Result<Url, HttpError> {
    let target = location.as_deref().and_then(|location| url.join(location).ok());
    match target {
        Some(target) if target.scheme() == "https" || (target.scheme() == "http" && url.scheme() == "http") => {
            Ok(target)
        }
        _ => Err(HttpError::BadRedirect { url: display(url), location }),
    }
}

fn basic_credentials(url: &Url) -> String {
    let decode = |text: &str| super::percent::decode(text);
    let user = [decode(url.username()), decode(url.password().unwrap_or_default())].join(&b':');
    format!("Basic {}", BASE64.encode(&user))
}

/// Whether one of the patterns (`host`, `host:port`, `.suffix`, `*.suffix`, `*`) is about this address's host.
fn matches_host(patterns: &[String], url: &Url) -> bool {
    let (Some(host), port) = (url.host_str(), url.port_or_known_default()) else { return false };
    patterns.iter().any(|pattern| {
        let (name, wanted_port) = match pattern.rsplit_once(':') {
            Some((name, digits)) if digits.parse::<u16>().is_ok() => (name, digits.parse::<u16>().ok()),
            _ => (pattern.as_str(), None),
        };
        let suffix = name.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase();
        let host_matches = name == "*" || host == suffix || host.ends_with(&format!(".{suffix}"));
        host_matches && !name.is_empty() && (wanted_port.is_none() || wanted_port == port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes", "bytes 9-5/10", "bytes 5-8/10", "bytes 5-9/0", "items 5-9/10", "bytes -9/10"] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn host_patterns() {
        let url = Url::parse("https://files.index.example/x").unwrap();
        for (pattern, expected) in [
            ("files.index.example", true),
            ("index.example", true),
            (".index.example", true),
            ("*.index.example", true),
            ("*", true),
            ("index.example:443", true),
            ("index.example:80", false),
            ("x.example", false),
            ("dex.example", false),
            ("", false),
        ] {
            assert_eq!(matches_host(&[pattern.to_owned()], &url), expected, "{pattern}");
        }
    }

    #[test]
    fn redirects_never_lose_encryption() {
        let url = Url::parse("https://a.example/x/y").unwrap();
        let target = |location: &str| redirect_target(&url, Some(location.to_owned()));
        assert_eq!(target("../z").unwrap().as_str(), "https://a.example/z");
        assert!(target("http://a.example/").is_err());
        assert!(target("file:///etc/passwd").is_err());
        assert!(redirect_target(&url, None).is_err());
    }

    #[test]
    fn messages_hide_credentials() {
        let url = Url::parse("https://user:secret@a.example/x#f").unwrap();
        assert_eq!(display(&url), "https://a.example/x");
        assert_eq!(basic_credentials(&url), "Basic dXNlcjpzZWNyZXQ=");
    }
}
