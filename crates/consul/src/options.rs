//! What a Consul address says.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mutext_contract::{Deadline, EngineError, EpochSource, TroubleKind};
use mutext_reach::{Host, Secret, TlsFiles, decoded, encoded, hosts, list, prefix, seconds};

use crate::ConsulLocks;

/// How long connecting to one agent may take, whatever the deadline of whoever waits for it.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// As long as Consul's own client lets a session last. Consul gives it twice that before it ends one.
const SESSION_TTL: Duration = Duration::from_secs(15);
/// How long after the end of a session its leases stay: its holder hears of it long before.
const LOCK_DELAY: Duration = Duration::from_secs(1);
/// An agent's port for HTTP, and the one that is customary for HTTPS.
const PORT: u16 = 8500;
const PORT_TLS: u16 = 8501;

const KNOWN: &str =
    "it has token_file, prefix, dc, session_ttl, lock_delay, connect_timeout, tls_ca, tls_cert and tls_key";

/// How Consul is reached.
///
/// ```
/// use mutext_consul::ConsulOptions;
/// let options = ConsulOptions::parse("consul://:secret@one.example,two.example:8600?prefix=team")?;
/// assert_eq!(options.to_string(), "consul://:***@one.example:8500,two.example:8600?prefix=team");
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulOptions {
    is_encrypted: bool,
    agents: Vec<Host>,
    token: Option<Secret>,
    token_file: Option<PathBuf>,
    prefix: String,
    dc: Option<String>,
    session_ttl: Duration,
    lock_delay: Duration,
    connect_timeout: Duration,
    pub(crate) tls: TlsFiles,
}

impl ConsulOptions {
    /// What an address says: `consul://[:TOKEN@]HOST[:PORT][,HOST[:PORT]]`, `consuls://` for TLS, with options after
    /// `?`. The error says which rule it breaks and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("write consul://HOST:PORT")?;
        let (is_encrypted, port) = match scheme {
            "consul" => (false, PORT),
            "consuls" => (true, PORT_TLS),
            other => return Err(format!("{other}: is neither consul: nor consuls:")),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, agents) = place.rsplit_once('@').unwrap_or(("", place));
        let agents = agents.trim_end_matches('/');
        if agents.contains('/') {
            return Err("nothing but options stands after the hosts; write consul://HOST:PORT?prefix=NAME".to_owned());
        }
        let mut options = Self {
            is_encrypted,
            agents: hosts(agents, port)?,
            token: token(login)?,
            token_file: None,
            prefix: "mutext".to_owned(),
            dc: None,
            session_ttl: SESSION_TTL,
            lock_delay: LOCK_DELAY,
            connect_timeout: CONNECT_PATIENCE,
            tls: TlsFiles::default(),
        };
        for option in mutext_reach::options(query) {
            let (key, value) = option?;
            options.set(key, value)?;
        }
        options.tls.check(is_encrypted, "consuls://")?;
        if options.token.is_some() && options.token_file.is_some() {
            return Err("it has a token before the host and a token_file; give one".to_owned());
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), String> {
        match key {
            "token_file" => self.token_file = Some(PathBuf::from(value)),
            "token" => return Err("the token stands before the host; write consul://:TOKEN@HOST".to_owned()),
            "prefix" => self.prefix = prefix(&value)?,
            "dc" => self.dc = Some(value).filter(|dc| !dc.is_empty()),
            "session_ttl" => self.session_ttl = seconds(key, &value, 1.0..=86400.0)?,
            "lock_delay" => self.lock_delay = seconds(key, &value, 0.0..=60.0)?,
            "connect_timeout" => self.connect_timeout = seconds(key, &value, 0.001..=3600.0)?,
            other if self.tls.set(other, &value) => {}
            other => return Err(format!("it has no option {other:?}; {KNOWN}")),
        }
        Ok(())
    }

    /// The whole address, with its token: for handing it to another process of the same user, never for show.
    pub fn url(&self) -> String {
        self.text(self.token.as_ref().map(|Secret(token)| encoded(token)).as_deref())
    }

    fn text(&self, token: Option<&str>) -> String {
        let scheme = if self.is_encrypted { "consuls" } else { "consul" };
        let login = token.map(|token| format!(":{token}@")).unwrap_or_default();
        let mut options = Vec::new();
        if self.prefix != "mutext" {
            options.push(format!("prefix={}", encoded(&self.prefix)));
        }
        options.extend(self.dc.as_ref().map(|dc| format!("dc={}", encoded(dc))));
        let durations = [
            ("session_ttl", self.session_ttl, SESSION_TTL),
            ("lock_delay", self.lock_delay, LOCK_DELAY),
            ("connect_timeout", self.connect_timeout, CONNECT_PATIENCE),
        ];
        for (key, value, usual) in durations {
            options.extend((value != usual).then(|| format!("{key}={}", value.as_secs_f64())));
        }
        let token_file =
            self.token_file.as_ref().map(|file| format!("token_file={}", encoded(&file.display().to_string())));
        options.extend(token_file.into_iter().chain(self.tls.options()));
        let query = if options.is_empty() { String::new() } else { format!("?{}", options.join("&")) };
        format!("{scheme}://{login}{}{query}", list(&self.agents))
    }

    pub(crate) const fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    pub(crate) fn agents(&self) -> &[Host] {
        &self.agents
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn dc(&self) -> Option<&str> {
        self.dc.as_deref()
    }

    pub(crate) const fn session_ttl(&self) -> Duration {
        self.session_ttl
    }

    pub(crate) const fn lock_delay(&self) -> Duration {
        self.lock_delay
    }

    pub(crate) const fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// The ACL token; a file is read each time that the locks are opened.
    pub(crate) fn token(&self) -> Result<Option<String>, EngineError> {
        let Some(file) = &self.token_file else { return Ok(self.token.as_ref().map(|Secret(token)| token.clone())) };
        let read = std::fs::read_to_string(file);
        let token = read.map_err(|error| {
            let kind = TroubleKind::Misconfigured(format!("token_file {} cannot be read", file.display()));
            EngineError::new(self.to_string(), kind, "name a file that has the token and nothing else").caused_by(error)
        })?;
        Ok(Some(token.trim().to_owned()))
    }

    /// Whether what is sent can be read on the way.
    pub(crate) fn is_exposed(&self) -> bool {
        !self.is_encrypted && !self.agents.iter().all(Host::is_local)
    }

    /// Connects, and makes sure that it can be worked with. `epochs` is the store of the documents that the locks
    /// guard.
    pub async fn open(
        &self,
        epochs: Arc<dyn EpochSource>,
        deadline: Deadline,
    ) -> Result<Arc<ConsulLocks>, EngineError> {
        ConsulLocks::open(self.clone(), epochs, deadline).await.map(Arc::new)
    }
}

impl fmt::Display for ConsulOptions {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(self.token.as_ref().map(|_| "***")))
    }
}

fn token(login: &str) -> Result<Option<Secret>, String> {
    let (user, token) = login.split_once(':').unwrap_or((login, ""));
    if !user.is_empty() {
        return Err("Consul knows tokens, not users; write consul://:TOKEN@HOST".to_owned());
    }
    let token = decoded(token)?;
    if token.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err("the token has characters that no token has".to_owned());
    }
    Ok(Some(token).filter(|token| !token.is_empty()).map(Secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_its_text() {
        for text in [
            "consul://localhost:8500",
            "consul://:p%40ss@localhost:8600,other:8500",
            "consuls://:secret@[::1]:8501?prefix=team&dc=west&session_ttl=30&lock_delay=0&tls_ca=%2Fetc%2Fca.pem",
            "consul://h:1?token_file=%2Frun%2Ftoken",
        ] {
            assert_eq!(ConsulOptions::parse(text).unwrap().url(), text);
        }
        assert_eq!(ConsulOptions::parse("consul://h").unwrap().url(), "consul://h:8500");
        assert_eq!(ConsulOptions::parse("consuls://h/").unwrap().url(), "consuls://h:8501");
    }

    #[test]
    fn a_token_is_never_shown() {
        let options = ConsulOptions::parse("consul://:hush@localhost").unwrap();
        assert!(!format!("{options} {options:?}").contains("hush"));
        assert!(options.url().contains("hush"));
    }

    #[test]
    fn a_wrong_address_says_what_would_be_right() {
        for (text, part) in [
            ("consul://", "host"),
            ("consul:h", "consul://HOST"),
            ("consul://h:x", "port"),
            ("consul://h/kv", "after the hosts"),
            ("consul://h?nonsense=1", "session_ttl"),
            ("consul://h?token=1", "before the host"),
            ("consul://user:x@h", "not users"),
            ("consul://:x@h?token_file=y", "give one"),
            ("consul://h?prefix=a%20b", "prefix"),
            ("consul://h?tls_ca=x", "consuls://"),
            ("consuls://h?tls_cert=x", "tls_key"),
            ("consul://h?session_ttl=soon", "seconds"),
        ] {
            let rule = ConsulOptions::parse(text).unwrap_err();
            assert!(rule.contains(part), "{text}: {rule}");
        }
    }
}
