//! What an etcd address says.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mutext_contract::{Deadline, EngineError, EpochSource, TroubleKind};
use mutext_reach::{Host, Secret, TlsFiles, decoded, encoded, hosts, list, pem, seconds};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::EtcdLocks;

/// How long connecting may take, whatever the deadline of whoever waits for it.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// What most clusters let clients ping them with no more often than twice: more is answered by a good-bye.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_PATIENCE: Duration = Duration::from_secs(3);
const PORT: u16 = 2379;

const KNOWN: &str = "it has prefix, tls_ca, tls_cert, tls_key and connect_timeout";

/// How an etcd cluster is reached.
///
/// ```
/// use mutext_etcd::EtcdOptions;
/// let options = EtcdOptions::parse("etcd://agents:secret@one.example,two.example:2380?prefix=team")?;
/// assert_eq!(options.to_string(), "etcd://agents:***@one.example:2379,two.example:2380?prefix=team");
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdOptions {
    is_encrypted: bool,
    /// In the order in which they are tried.
    members: Vec<Host>,
    user: Option<(String, Secret)>,
    prefix: String,
    tls: TlsFiles,
    connect_timeout: Duration,
}

impl EtcdOptions {
    /// What an address says: `etcd://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]`, or `etcds://` for TLS, with options
    /// after `?`. The error says which rule it breaks and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("write etcd://HOST:PORT,HOST:PORT")?;
        let is_encrypted = match scheme {
            "etcd" => false,
            "etcds" => true,
            other => return Err(format!("{other}: is not one of etcd: and etcds:")),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, members) = match place.rsplit_once('@') {
            Some((login, members)) => (Some(login), members),
            None => (None, place),
        };
        let mut options = Self {
            is_encrypted,
            members: hosts(members.strip_suffix('/').unwrap_or(members), PORT)?,
            user: login.map(user).transpose()?,
            prefix: "mutext".to_owned(),
            tls: TlsFiles::default(),
            connect_timeout: CONNECT_PATIENCE,
        };
        for option in mutext_reach::options(query) {
            let (key, value) = option?;
            match key {
                "prefix" => options.prefix = prefix(&value)?,
                "user" | "password" => {
                    return Err(format!("{key} stands before the hosts; write etcd://USER:PASSWORD@HOST"));
                }
                "connect_timeout" => options.connect_timeout = seconds(key, &value, 0.01..=300.0)?,
                other if options.tls.set(other, &value) => {}
                other => return Err(format!("it has no option {other:?}; {KNOWN}")),
            }
        }
        options.tls.check(is_encrypted, "etcds://")?;
        Ok(options)
    }

    /// The whole address, with its password: for handing it to another process of the same user, never for show.
    pub fn url(&self) -> String {
        self.text(self.user.as_ref().map(|(_, Secret(password))| encoded(password)).as_deref())
    }

    fn text(&self, password: Option<&str>) -> String {
        let mut text = if self.is_encrypted { "etcds://" } else { "etcd://" }.to_owned();
        if let (Some((user, _)), Some(password)) = (&self.user, password) {
            text.extend([&encoded(user), ":", password, "@"]);
        }
        text.push_str(&list(&self.members));
        let mut options = Vec::new();
        if self.prefix != "mutext" {
            options.push(format!("prefix={}", encoded(&self.prefix)));
        }
        options.extend(self.tls.options());
        if self.connect_timeout != CONNECT_PATIENCE {
            options.push(format!("connect_timeout={}", self.connect_timeout.as_secs_f64()));
        }
        if !options.is_empty() {
            text.push('?');
            text.push_str(&options.join("&"));
        }
        text
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) const fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(crate) const fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// What may be wrong where no member answers as it should: a server that wants TLS, or a certificate, says nothing.
    pub(crate) const fn hint(&self) -> &'static str {
        match (self.is_encrypted, &self.tls.cert) {
            (false, _) => {
                "see that a majority of its members runs and can be reached from here; members that speak TLS want etcds://"
            }
            (true, None) => {
                "see that a majority of its members runs and can be reached from here; members that want a certificate \
                 of ours are given it with ?tls_cert=FILE&tls_key=FILE"
            }
            (true, Some(_)) => {
                "see that a majority of its members runs, speaks TLS, and can be reached from here; they may not trust \
                 the certificate of ?tls_cert"
            }
        }
    }

    /// The user and the password, where the address has them.
    pub(crate) fn login(&self) -> Option<(&str, &str)> {
        self.user.as_ref().map(|(user, Secret(password))| (user.as_str(), password.as_str()))
    }

    /// Whether what is sent can be read on the way.
    pub(crate) fn is_exposed(&self) -> bool {
        !self.is_encrypted && !self.members.iter().all(Host::is_local)
    }

    /// Ways to the members, in their order.
    pub(crate) fn endpoints(&self) -> Result<Vec<Endpoint>, EngineError> {
        let tls = if self.is_encrypted { Some(self.tls()?) } else { None };
        self.members.iter().map(|host| self.endpoint(host, tls.as_ref())).collect()
    }

    fn endpoint(&self, host: &Host, tls: Option<&ClientTlsConfig>) -> Result<Endpoint, EngineError> {
        let wrong = |error: tonic::transport::Error| {
            let kind = TroubleKind::Misconfigured(format!("{host} cannot be reached as the address says"));
            EngineError::new(self.to_string(), kind, "mend the address, or the files that it names").caused_by(error)
        };
        let scheme = if self.is_encrypted { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{host}")).map_err(wrong)?;
        let endpoint = endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_PATIENCE)
            .keep_alive_while_idle(true);
        match tls {
            Some(tls) => endpoint.tls_config(tls.clone()).map_err(wrong),
            None => Ok(endpoint),
        }
    }

    fn tls(&self) -> Result<ClientTlsConfig, EngineError> {
        let read = |file: &Option<_>| file.as_deref().map(|file| pem(&self.to_string(), file)).transpose();
        let mut tls = ClientTlsConfig::new();
        tls = match read(&self.tls.ca)? {
            Some(authority) => tls.ca_certificate(Certificate::from_pem(authority)),
            None => tls.with_native_roots(),
        };
        if let (Some(certificate), Some(key)) = (read(&self.tls.cert)?, read(&self.tls.key)?) {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        Ok(tls)
    }

    /// Connects, and makes sure that it can be worked with. `epochs` is the store of the documents that the locks
    /// guard.
    pub async fn open(&self, epochs: Arc<dyn EpochSource>, deadline: Deadline) -> Result<Arc<EtcdLocks>, EngineError> {
        EtcdLocks::open(self.clone(), epochs, deadline).await.map(Arc::new)
    }
}

impl fmt::Display for EtcdOptions {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(self.user.as_ref().map(|_| "***")))
    }
}

fn user(login: &str) -> Result<(String, Secret), String> {
    match login.split_once(':') {
        Some((user, password)) if !user.is_empty() => Ok((decoded(user)?, Secret(decoded(password)?))),
        _ => Err("a user comes with a password; write etcd://USER:PASSWORD@HOST".to_owned()),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(plain) || text.ends_with('/') {
        return Err(format!("{text:?} is not a prefix: write 1 to 64 letters, digits and -_.:/, as in prefix=team"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_its_text() {
        for text in [
            "etcd://h:1",
            "etcd://one:2379,two:2379,three:2379",
            "etcds://agent:pa%40s%2Fs%2B@db:80,[::1]:2379?prefix=a%2Fb&tls_ca=%2Fca.pem&connect_timeout=0.5",
        ] {
            assert_eq!(EtcdOptions::parse(text).unwrap().url(), text);
        }
        assert_eq!(EtcdOptions::parse("etcd://h,g/").unwrap().url(), "etcd://h:2379,g:2379");
    }

    #[test]
    fn a_password_is_never_shown() {
        let options = EtcdOptions::parse("etcd://agent:hush@localhost").unwrap();
        assert!(!format!("{options} {options:?}").contains("hush"));
        assert!(options.url().contains("hush"));
    }

    #[test]
    fn a_wrong_address_says_what_would_be_right() {
        for (text, part) in [
            ("etcd:h", "etcd://HOST"),
            ("etcd://", "HOST:PORT"),
            ("etcd://h,,g", "HOST:PORT"),
            ("etcd://h:port", "HOST:PORT"),
            ("etcd://h/x", "HOST:PORT"),
            ("etcd://agent@h", "USER:PASSWORD"),
            ("etcd://h?nonsense=1", "connect_timeout"),
            ("etcd://h?password=1", "before the hosts"),
            ("etcd://h?prefix=a%20b", "prefix"),
            ("etcd://h?tls_ca=x", "etcds://"),
            ("etcds://h?tls_cert=x", "tls_key"),
            ("etcd://h?connect_timeout=soon", "seconds"),
        ] {
            let rule = EtcdOptions::parse(text).unwrap_err();
            assert!(rule.contains(part), "{text}: {rule}");
        }
    }
}
