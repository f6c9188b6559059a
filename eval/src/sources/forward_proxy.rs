//! Plain `http` through an `http` proxy, as proxies want it (RFC 9112, 3.2.2): the request line names the whole address.
//!
//! The library tunnels everything with `CONNECT`, which proxies commonly refuse for ports other than 443; yet it is plain
//! `http` that Debian's archives are mostly served by.

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport};

/// An agent whose every connection goes to the proxy; only for addresses of scheme `http`.
pub(super) fn agent(config: Config, proxy: Uri) -> ureq::Agent {
    let connector = ().chain(TcpConnector::default()).chain(AbsoluteForm);
    ureq::Agent::with_parts(config, connector, ProxyAddress { proxy, inner: DefaultResolver::default() })
}

/// Finds the proxy, whatever is asked for.
#[derive(Debug)]
struct ProxyAddress {
    proxy: Uri,
    inner: DefaultResolver,
}

impl Resolver for ProxyAddress {
    fn resolve(&self, _: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        self.inner.resolve(&self.proxy, config, timeout)
    }
}

/// Wraps connections so that requests on them name their host.
#[derive(Debug)]
struct AbsoluteForm;

impl<In: Transport> Connector<In> for AbsoluteForm {
    type Out = Rewriting<In>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        let authority = details.uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let origin = format!("http://{authority}");
        Ok(chained.map(|inner| Rewriting { inner, origin }))
    }
}

#[derive(Debug)]
struct Rewriting<T> {
    inner: T,
    origin: String,
}

impl<T: Transport> Transport for Rewriting<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let amount = name_origin(self.inner.buffers().output(), amount, &self.origin)?;
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}

/// Puts the origin before the path of a request that starts the buffer's first `amount` bytes; returns their new number.
fn name_origin(buffer: &mut [u8], amount: usize, origin: &str) -> Result<usize, Error> {
    const METHOD: &[u8] = b"GET ";
    let starts_request = buffer[..amount].starts_with(METHOD) && buffer.get(METHOD.len()) == Some(&b'/');
    if !starts_request {
        return Ok(amount);
    }
    let (start, longer) = (METHOD.len(), amount + origin.len());
    if longer > buffer.len() {
        return Err(Error::Io(std::io::Error::other("the request is too long for a proxy")));
    }
    buffer.copy_within(start..amount, start + origin.len());
    buffer[start..start + origin.len()].copy_from_slice(origin.as_bytes());
    Ok(longer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_line_names_the_origin() {
        let mut buffer = *b"GET /x HTTP/1.1\r\n........................";
        let amount = name_origin(&mut buffer, 17, "http://a.example:1").unwrap();
        assert_eq!(&buffer[..amount], b"GET http://a.example:1/x HTTP/1.1\r\n");
        // What names its origin already, or is no request's start, stays as it is.
        assert_eq!(name_origin(&mut buffer, amount, "http://a.example:1").unwrap(), amount);
        let mut short = *b"GET /x";
        assert!(name_origin(&mut short, 6, "http://a.example").is_err());
        assert_eq!(name_origin(&mut [], 0, "http://a.example").unwrap(), 0);
    }
}
