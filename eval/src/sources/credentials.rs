//! Passwords that the users' other clients keep for hosts: `~/.netrc` for pip, `auth.conf` for apt (apt_auth.conf(5)).

use url::Url;

use super::machine::{Machine, ReadError};

/// A user's name and password, and for which addresses they are.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    scheme: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
    user: String,
    password: String,
}

/// Never shows the password.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "credentials for {}{}", self.host, self.path)
    }
}

impl Credentials {
    /// The address with this user and password in it, if they are for it. Addresses that name a user keep theirs.
    pub(super) fn apply(&self, url: &Url) -> Option<Url> {
        let fits = url.host_str().is_some_and(|host| host.eq_ignore_ascii_case(&self.host))
            && self.scheme.as_deref().is_none_or(|scheme| scheme == url.scheme())
            && self.port.is_none_or(|port| Some(port) == url.port_or_known_default())
            && url.path().starts_with(&self.path)
            && url.username().is_empty();
        let mut named = fits.then(|| url.clone())?;
        named.set_username(&self.user).ok()?;
        named.set_password(Some(&self.password)).ok()?;
        Some(named)
    }
}

/// What pip would use: the file that `NETRC` names, else `~/.netrc`.
pub(super) fn of_pip(machine: &Machine) -> Result<Vec<Credentials>, ReadError> {
    let named = machine.variable("NETRC").map(std::path::PathBuf::from);
    let Some(path) = named.or_else(|| Some(machine.home()?.join(".netrc"))) else { return Ok(Vec::new()) };
    Ok(parse(&machine.read(&path)?.unwrap_or_default()))
}

/// What apt would use. Unless an entry says otherwise, it is for encrypted connections only.
pub(super) fn of_apt(machine: &Machine) -> Result<Vec<Credentials>, ReadError> {
    let mut files = vec![machine.path("/etc/apt/auth.conf")];
    files.extend(machine.files_in(&machine.path("/etc/apt/auth.conf.d"), &["conf"]));
    let mut all = Vec::new();
    for path in files {
        all.extend(parse(&machine.read(&path)?.unwrap_or_default()));
    }
    for credentials in &mut all {
        credentials.scheme.get_or_insert_with(|| "https".to_owned());
    }
    Ok(all)
}

/// Reads `machine HOST login USER password PASSWORD` in any layout; entries without a host or a user are passed over.
fn parse(text: &str) -> Vec<Credentials> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut words = lines.flat_map(str::split_whitespace);
    let mut found: Vec<Credentials> = Vec::new();
    // Words after `default` belong to no host; a default password would go to anybody.
    let mut named = false;
    while let Some(word) = words.next() {
        match (word, found.last_mut().filter(|_| named)) {
            ("machine", _) => {
                found.extend(words.next().and_then(for_host));
                named = true;
            }
            ("default", _) => named = false,
            ("login", Some(entry)) => entry.user = words.next().unwrap_or_default().to_owned(),
            ("password", Some(entry)) => entry.password = words.next().unwrap_or_default().to_owned(),
            ("login" | "password" | "account" | "macdef", _) => drop(words.next()),
            _ => {}
        }
    }
    found.retain(|entry| !entry.user.is_empty());
    found
}

/// Reads `[scheme://]host[:port][/path]`.
fn for_host(text: &str) -> Option<Credentials> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme.to_owned()), rest),
        None => (None, text),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (authority, None),
    };
    let (host, path) = (host.to_owned(), path.to_owned());
    Some(Credentials { scheme, host, port, path, user: String::new(), password: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(text: &str, url: &str) -> Option<String> {
        let url = Url::parse(url).unwrap();
        parse(text).iter().find_map(|credentials| credentials.apply(&url)).map(String::from)
    }

    #[test]
    fn entries_for_hosts_ports_and_paths() {
        let text = "# x\nmachine a.example login u password p@ss\nmachine b.example:8080/private\n  login v\n  password w\n\
            machine c.example\ndefault login d password d\nmachine https://e.example login x";
        assert_eq!(apply(text, "https://A.example/x").unwrap(), "https://u:p%40ss@a.example/x");
        assert_eq!(apply(text, "http://b.example:8080/private/x").unwrap(), "http://v:w@b.example:8080/private/x");
        assert_eq!(apply(text, "https://e.example/").unwrap(), "https://x@e.example/");
        for other in [
            "http://b.example:8080/public",
            "http://b.example/private",
            "http://c.example/",
            "http://z.example/",
            "http://e.example/",
        ] {
            assert_eq!(apply(text, other), None, "{other}");
        }
        assert_eq!(apply(text, "https://own@a.example/"), None);
        assert!(!format!("{:?}", parse(text)).contains("p@ss"));
    }

    #[test]
    fn any_text_ends() {
        for text in
            ["", "machine", "login", "machine a login", "machine a:b login c", "machine :// password", "default"]
        {
            let _ = parse(text);
        }
    }
}
