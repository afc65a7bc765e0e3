//! Addresses that name several servers: `SCHEME://[USER][:PASSWORD@]HOST[:PORT],HOST[:PORT],…[/PATH][?OPTIONS]`.

use mutext_reach::{Host, hosts};

/// That a password has not torn the address: without an error, a piece of it would be taken for the host, and shown.
pub(crate) fn check_whole(text: &str) -> Result<(), String> {
    let place = text.split('?').next().unwrap_or_default();
    let place = place.split_once("://").map_or("", |(_, place)| place);
    let path = place.split_once('/').map_or("", |(_, path)| path);
    if text.contains('#') || (path.contains('@') && !text.starts_with("redis+unix:")) {
        return Err(
            "it has a `#`, or an `@` behind its hosts; write / ? # @ in users and passwords as %2F %3F %23 %40"
                .to_owned(),
        );
    }
    Ok(())
}

/// What is between two nodes in `MOVED` and the like: `HOST:PORT`, also of an IPv6 address without brackets.
pub(crate) fn host_told(text: &str) -> Option<Host> {
    let (name, port) = text.rsplit_once(':')?;
    Some(Host { name: name.to_owned(), port: port.parse().ok()? })
}

/// An address of several servers, taken apart.
pub(crate) struct Several<'a> {
    pub(crate) hosts: Vec<Host>,
    /// Between the hosts and the options, without its slashes.
    pub(crate) path: &'a str,
    /// The same address as one of a single server, with the login and the options.
    pub(crate) single: String,
}

impl<'a> Several<'a> {
    /// Takes `rest`, which follows `SCHEME://`, apart.
    pub(crate) fn parse(rest: &'a str, tls: bool, port: u16) -> Result<Self, String> {
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A password may not have a slash or an at sign that is not encoded.
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        let (login, list) = authority.rsplit_once('@').map_or(("", authority), |(login, list)| (login, list));
        let hosts = hosts(list, port)?;
        let scheme = if tls { "rediss" } else { "redis" };
        let login = if login.is_empty() { String::new() } else { format!("{login}@") };
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        let first = hosts.first().ok_or("it names no host; write HOST:PORT,HOST:PORT")?;
        let single = format!("{scheme}://{login}{first}/{query}");
        Ok(Self { hosts, path: path.trim_matches('/'), single })
    }
}
