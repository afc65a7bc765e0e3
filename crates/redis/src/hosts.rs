//! Addresses that name several servers: `SCHEME://[USER][:PASSWORD@]HOST[:PORT],HOST[:PORT],…[/PATH][?OPTIONS]`.

/// One of several servers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) port: u16,
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An IPv6 address.
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

impl Host {
    /// `HOST`, `HOST:PORT` or `[IPV6]:PORT`.
    pub(crate) fn parse(text: &str, port: u16) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a host; write HOST:PORT,HOST:PORT");
        let (name, rest) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(wrong)?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| wrong())?,
            None if rest.is_empty() => port,
            None => return Err(wrong()),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), port })
    }

    /// What is between two nodes in `MOVED` and the like: `HOST:PORT`, also of an IPv6 address without brackets.
    pub(crate) fn told(text: &str) -> Option<Self> {
        let (name, port) = text.rsplit_once(':')?;
        Some(Self { name: name.to_owned(), port: port.parse().ok()? })
    }
}

/// An address of several servers, taken apart.
pub(crate) struct Several<'a> {
    pub(crate) hosts: Vec<Host>,
    /// Between the hosts and the options, without its slashes.
    pub(crate) path: &'a str,
    /// The same address as one of a single server, with the login and the options.
    pub(crate) single: String,
}

/// More of them would be a mistake.
const HOSTS_MAX: usize = 64;

impl<'a> Several<'a> {
    /// Takes `rest`, which follows `SCHEME://`, apart.
    pub(crate) fn parse(rest: &'a str, tls: bool, port: u16) -> Result<Self, String> {
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A password may not have a slash or an at sign that is not encoded.
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        let (login, list) = authority.rsplit_once('@').map_or(("", authority), |(login, list)| (login, list));
        let hosts = list.split(',').map(|host| Host::parse(host, port)).collect::<Result<Vec<_>, _>>()?;
        if hosts.len() > HOSTS_MAX {
            return Err(format!("it names {} hosts; {HOSTS_MAX} are enough", hosts.len()));
        }
        for (index, host) in hosts.iter().enumerate() {
            if hosts[..index].contains(host) {
                return Err(format!("it names {host} twice; name each once"));
            }
        }
        let scheme = if tls { "rediss" } else { "redis" };
        let login = if login.is_empty() { String::new() } else { format!("{login}@") };
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        let first = hosts.first().ok_or("it names no host; write HOST:PORT,HOST:PORT")?;
        let single = format!("{scheme}://{login}{first}/{query}");
        Ok(Self { hosts, path: path.trim_matches('/'), single })
    }
}

/// As they stand in an address.
pub(crate) fn list(hosts: &[Host]) -> String {
    hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
