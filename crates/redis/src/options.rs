//! What a Redis address says.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mutext_contract::{Deadline, EngineError, EpochSource};
use mutext_reach::{Host, Secret, TlsFiles, decoded, encoded, list, pem, prefix, seconds};
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};
use redis::{ClientTlsConfig, TlsCertificates};
use url::Url;

use crate::RedisLocks;
use crate::hosts::{Several, check_whole};

/// How long connecting may take, whatever the deadline of whoever waits for it.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Where one of several servers does not answer, the next is asked after so long.
const ONE_OF_SEVERAL: Duration = Duration::from_millis(1_500);

const KNOWN: &str = "it has db, prefix, tls_ca, tls_cert, tls_key and connect_timeout, for a socket user and password, \
                     for a Cluster min_replicas, and for Sentinels min_replicas, sentinel_user and sentinel_password";

/// How a Redis or Valkey server is reached.
///
/// ```
/// use mutext_redis::RedisOptions;
/// let options = RedisOptions::parse("redis://agents:secret@db.example:6380/2?prefix=team")?;
/// assert_eq!(options.to_string(), "redis://agents:***@db.example:6380/2?prefix=team");
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisOptions {
    scheme: Scheme,
    place: Place,
    set: Set,
    user: Option<String>,
    password: Option<Secret>,
    db: i64,
    prefix: String,
    tls: TlsFiles,
    connect_timeout: Duration,
    min_replicas: u32,
}

/// One server, or several that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Set {
    One,
    Sentinel(Sentinels),
    Cluster(Vec<Host>),
    /// They know nothing of each other.
    Nodes(Vec<Host>),
}

/// Those who know which server is the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sentinels {
    pub(crate) hosts: Vec<Host>,
    pub(crate) service: String,
    user: Option<String>,
    password: Option<Secret>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Plain,
    Tls,
    Unix,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Host(Host),
    Socket(PathBuf),
}

impl RedisOptions {
    /// What an address says: `redis://[USER][:PASSWORD@]HOST[:PORT][/DB]`, `rediss://` for TLS, or
    /// `redis+unix:///PATH`, with options after `?`; `redis+sentinel://HOST[:PORT],…/SERVICE[/DB]` for the primary
    /// that Sentinels name, `redis+cluster://HOST[:PORT],…` for a Redis Cluster, and the same with `rediss+`. The error
    /// says which rule it breaks and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        check_whole(text)?;
        match text.split_once("://") {
            Some(("redis+sentinel", rest)) => Self::sentinel(rest, false),
            Some(("rediss+sentinel", rest)) => Self::sentinel(rest, true),
            Some(("redis+cluster", rest)) => Self::cluster(rest, false),
            Some(("rediss+cluster", rest)) => Self::cluster(rest, true),
            _ => Self::one(text, Set::One),
        }
    }

    fn sentinel(rest: &str, tls: bool) -> Result<Self, String> {
        let several = Several::parse(rest, tls, 26379)?;
        let (service, db) = several.path.split_once('/').unwrap_or((several.path, ""));
        let service = decoded(service)?;
        if service.is_empty() {
            return Err("it names no service; write redis+sentinel://HOST:26379,HOST:26379/SERVICE".to_owned());
        }
        let sentinels = Sentinels { hosts: several.hosts, service, user: None, password: None };
        let options = Self::one(&several.single, Set::Sentinel(sentinels))?;
        Ok(if db.is_empty() { options } else { Self { db: database(db)?, ..options } })
    }

    fn cluster(rest: &str, tls: bool) -> Result<Self, String> {
        let several = Several::parse(rest, tls, 6379)?;
        let options = Self::one(&several.single, Set::Cluster(several.hosts))?;
        if options.db != 0 || !several.path.is_empty() {
            return Err("a Redis Cluster has no databases; write redis+cluster://HOST:PORT,HOST:PORT".to_owned());
        }
        Ok(options)
    }

    /// What an address of servers says that know nothing of each other.
    pub(crate) fn nodes(text: &str) -> Result<Self, String> {
        check_whole(text)?;
        let (rest, tls) = match text.split_once("://") {
            Some(("redlock", rest)) => (rest, false),
            Some(("redlocks", rest)) => (rest, true),
            _ => return Err("write redlock://HOST:PORT,HOST:PORT,HOST:PORT".to_owned()),
        };
        let several = Several::parse(rest, tls, 6379)?;
        if several.hosts.len() < 3 {
            let few = several.hosts.len();
            return Err(format!("it names {few} nodes; a majority needs three or more, or write redis:// for one"));
        }
        let db = database(several.path)?;
        let options = Self::one(&several.single, Set::Nodes(several.hosts))?;
        Ok(if db == 0 { options } else { Self { db, ..options } })
    }

    fn one(text: &str, set: Set) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("{error}; write redis://HOST:PORT/DB"))?;
        let scheme = match url.scheme() {
            "redis" => Scheme::Plain,
            "rediss" => Scheme::Tls,
            "redis+unix" => Scheme::Unix,
            other => return Err(format!("{other}: is not one of redis:, rediss: and redis+unix:")),
        };
        let mut options = Self {
            scheme,
            place: Self::place(scheme, &url)?,
            set,
            user: Some(decoded(url.username())?).filter(|user| !user.is_empty()),
            password: url.password().map(decoded).transpose()?.map(Secret),
            db: 0,
            prefix: "mutext".to_owned(),
            tls: TlsFiles::default(),
            connect_timeout: CONNECT_PATIENCE,
            min_replicas: 0,
        };
        if scheme != Scheme::Unix {
            options.db = database(url.path().trim_matches('/'))?;
        }
        for (key, value) in url.query_pairs() {
            match &*key {
                "db" => options.db = database(&value)?,
                "prefix" => options.prefix = prefix(&value)?,
                // A URL without a host has no place for them before it.
                "user" if scheme == Scheme::Unix => options.user = Some(value.into_owned()),
                "password" if scheme == Scheme::Unix => options.password = Some(Secret(value.into_owned())),
                "user" | "password" => {
                    return Err(format!("{key} stands before the host; write redis://USER:PASSWORD@HOST"));
                }
                "connect_timeout" => options.connect_timeout = seconds(&key, &value, 0.001..=3600.0)?,
                "min_replicas" if matches!(options.set, Set::Sentinel(_) | Set::Cluster(_)) => {
                    options.min_replicas = replicas(&value)?;
                }
                "sentinel_user" | "sentinel_password" => {
                    let Set::Sentinel(sentinels) = &mut options.set else {
                        return Err(format!("{key} is for redis+sentinel://"));
                    };
                    match &*key {
                        "sentinel_user" => sentinels.user = Some(value.into_owned()),
                        _ => sentinels.password = Some(Secret(value.into_owned())),
                    }
                }
                other if options.tls.set(other, &value) => {}
                // It may be a piece of a password.
                other if other.contains('@') => {
                    return Err("the name of an option has an `@`; write %3F for a `?` in a password".to_owned());
                }
                other => return Err(format!("it has no option {other:?}; {KNOWN}")),
            }
        }
        options.tls.check(scheme == Scheme::Tls, "rediss://")?;
        Ok(options)
    }

    fn place(scheme: Scheme, url: &Url) -> Result<Place, String> {
        if scheme == Scheme::Unix {
            let path = decoded(url.path())?;
            if url.host_str().is_some_and(|host| !host.is_empty()) || path.len() < 2 {
                return Err("it names no socket; write redis+unix:///run/redis/redis.sock".to_owned());
            }
            return Ok(Place::Socket(PathBuf::from(path)));
        }
        match url.host_str() {
            Some(host) if !host.is_empty() => {
                let name = decoded(host.trim_start_matches('[').trim_end_matches(']'))?;
                Ok(Place::Host(Host { name, port: url.port().unwrap_or(6379) }))
            }
            _ => Err("it names no host; write redis://HOST:PORT/DB".to_owned()),
        }
    }

    /// The whole address, with its password: for handing it to another process of the same user, never for show.
    pub fn url(&self) -> String {
        self.text(true)
    }

    fn text(&self, with_passwords: bool) -> String {
        let secret = |Secret(word): &Secret| if with_passwords { encoded(word) } else { "***".to_owned() };
        let password = self.password.as_ref().map(secret);
        let mut text = match (&self.set, self.scheme) {
            (Set::Nodes(_), Scheme::Tls) => "redlocks",
            (Set::Nodes(_), _) => "redlock",
            (_, Scheme::Plain) => "redis",
            (_, Scheme::Tls) => "rediss",
            (_, Scheme::Unix) => "redis+unix",
        }
        .to_owned();
        text.push_str(match self.set {
            Set::One | Set::Nodes(_) => "://",
            Set::Sentinel(_) => "+sentinel://",
            Set::Cluster(_) => "+cluster://",
        });
        let user = self.user.as_deref().map(encoded);
        let mut options = Vec::new();
        if self.scheme == Scheme::Unix {
            options.extend(user.map(|user| format!("user={user}")));
            options.extend(password.map(|password| format!("password={password}")));
        } else if user.is_some() || password.is_some() {
            text.push_str(&user.unwrap_or_default());
            text.push_str(&password.map(|password| format!(":{password}")).unwrap_or_default());
            text.push('@');
        }
        let place = match &self.place {
            _ if self.set != Set::One => self.set_text(),
            Place::Host(host) => format!("{host}/{}", self.db),
            Place::Socket(path) => {
                options.extend((self.db != 0).then(|| format!("db={}", self.db)));
                path.display().to_string()
            }
        };
        text.push_str(&place);
        if let Set::Sentinel(sentinels) = &self.set {
            options.extend(sentinels.user.as_deref().map(|user| format!("sentinel_user={}", encoded(user))));
            options.extend(sentinels.password.as_ref().map(|word| format!("sentinel_password={}", secret(word))));
        }
        options.extend((self.min_replicas != 0).then(|| format!("min_replicas={}", self.min_replicas)));
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

    /// How long one server may take to be connected to: where another may have taken its place, not long.
    pub(crate) fn connect_timeout(&self) -> Duration {
        if self.set == Set::One { self.connect_timeout } else { self.connect_timeout.min(ONE_OF_SEVERAL) }
    }

    /// How many replicas must have a grant before it is reported.
    pub(crate) const fn min_replicas(&self) -> u32 {
        self.min_replicas
    }

    /// The Sentinels to be asked for the primary.
    pub(crate) const fn sentinels(&self) -> Option<&Sentinels> {
        match &self.set {
            Set::Sentinel(sentinels) => Some(sentinels),
            _ => None,
        }
    }

    /// Nodes of the cluster to begin with.
    pub(crate) fn cluster_hosts(&self) -> Option<&[Host]> {
        match &self.set {
            Set::Cluster(hosts) => Some(hosts),
            _ => None,
        }
    }

    /// The engine's name, as in its address.
    pub const fn engine(&self) -> &'static str {
        match self.set {
            Set::One => "redis",
            Set::Sentinel(_) => "redis+sentinel",
            Set::Cluster(_) => "redis+cluster",
            Set::Nodes(_) => "redlock",
        }
    }

    /// Where tokens come from, as the engine declares it.
    pub(crate) const fn token_source(&self) -> &'static str {
        match self.set {
            Set::Sentinel(_) => {
                "a counter for each context, under an epoch that the document store mints for each run of the primary \
                 and for each failover"
            }
            Set::Cluster(_) => {
                "a counter for each context, under an epoch that the document store mints for each run of the node that \
                 serves it, and for each failover or move to another node"
            }
            Set::One | Set::Nodes(_) => {
                "a counter for each context, under an epoch that the document store mints for each run of the server"
            }
        }
    }

    /// What grants survive, as the engine declares it.
    pub(crate) const fn survives(&self) -> &'static str {
        match (&self.set, self.min_replicas) {
            (Set::Sentinel(_), 0) => {
                "the death of any client; a failover too, but for grants that the promoted replica had not seen, since \
                 replication is asynchronous and min_replicas is not set; after a restart of the primary, leases stand \
                 as far as its own persistence kept them; a new epoch begins in both cases"
            }
            (Set::Sentinel(_), _) => {
                "the death of any client; a failover too, if the promoted replica is one of those that min_replicas has \
                 confirm each grant; after a restart of the primary, leases stand as far as its own persistence kept \
                 them; a new epoch begins in both cases"
            }
            (Set::Cluster(_), 0) => {
                "the death of any client, and a slot's move to another node; a failover too, but for grants that the \
                 promoted replica had not seen, since replication is asynchronous and min_replicas is not set; after a \
                 restart of a master, leases stand as far as its own persistence kept them; a new epoch begins in each case"
            }
            (Set::Cluster(_), _) => {
                "the death of any client, and a slot's move to another node; a failover too, if the promoted replica is \
                 one of those that min_replicas has confirm each grant; after a restart of a master, leases stand as far \
                 as its own persistence kept them; a new epoch begins in each case"
            }
            (Set::One | Set::Nodes(_), _) => {
                "the death of any client; after a restart of the server, leases stand as far as its own persistence kept \
                 them, and a new epoch begins"
            }
        }
    }

    /// The servers that know nothing of each other.
    pub(crate) fn node_hosts(&self) -> &[Host] {
        match &self.set {
            Set::Nodes(hosts) => hosts,
            _ => &[],
        }
    }

    /// Whether servers are spoken to by the names in their certificates.
    pub(crate) fn uses_names(&self) -> bool {
        self.scheme == Scheme::Tls
    }

    /// Whether another server may take the place of the one that is spoken to.
    pub(crate) fn fails_over(&self) -> bool {
        self.set != Set::One
    }

    /// The same for one server of several.
    pub(crate) fn at(&self, host: &Host) -> Self {
        Self { place: Place::Host(host.clone()), ..self.clone() }
    }

    /// What a Sentinel is reached with: its own login, and no database.
    pub(crate) fn sentinel_at(&self, host: &Host, sentinels: &Sentinels) -> Self {
        let (user, password) = (sentinels.user.clone(), sentinels.password.clone());
        Self { user, password, db: 0, ..self.at(host) }
    }

    fn set_text(&self) -> String {
        match &self.set {
            Set::Sentinel(Sentinels { hosts, service, .. }) if self.db == 0 => {
                format!("{}/{}", list(hosts), encoded(service))
            }
            Set::Sentinel(Sentinels { hosts, service, .. }) => {
                format!("{}/{}/{}", list(hosts), encoded(service), self.db)
            }
            Set::Cluster(hosts) => list(hosts),
            Set::Nodes(hosts) => format!("{}/{}", list(hosts), self.db),
            Set::One => String::new(),
        }
    }

    /// Whether what is sent can be read on the way.
    pub(crate) fn is_exposed(&self) -> bool {
        self.scheme == Scheme::Plain && matches!(&self.place, Place::Host(host) if !host.is_local())
    }

    pub(crate) fn client(&self) -> Result<Client, EngineError> {
        let trouble = |error: redis::RedisError| crate::trouble::explain(&self.to_string(), error);
        let addr = match (&self.place, self.scheme) {
            (Place::Socket(path), _) => ConnectionAddr::Unix(path.clone()),
            (Place::Host(Host { name, port }), Scheme::Tls) => {
                ConnectionAddr::TcpTls { host: name.clone(), port: *port, insecure: false, tls_params: None }
            }
            (Place::Host(Host { name, port }), _) => ConnectionAddr::Tcp(name.clone(), *port),
        };
        let mut login = RedisConnectionInfo::default().set_db(self.db).set_protocol(ProtocolVersion::RESP3);
        if let Some(user) = &self.user {
            login = login.set_username(user);
        }
        if let Some(Secret(password)) = &self.password {
            login = login.set_password(password);
        }
        let info: ConnectionInfo = addr.into_connection_info().map_err(trouble)?;
        let info = info.set_redis_settings(login);
        if self.scheme != Scheme::Tls {
            return Client::open(info).map_err(trouble);
        }
        // The first of the process stays; another one serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let read = |file: &Option<PathBuf>| file.as_deref().map(|file| pem(&self.to_string(), file)).transpose();
        let client_tls = match (read(&self.tls.cert)?, read(&self.tls.key)?) {
            (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
            _ => None,
        };
        let certificates = TlsCertificates { client_tls, root_cert: read(&self.tls.ca)? };
        Client::build_with_tls(info, certificates).map_err(trouble)
    }

    /// Connects, and makes sure that it can be worked with. `epochs` is the store of the documents that the locks
    /// guard.
    pub async fn open(&self, epochs: Arc<dyn EpochSource>, deadline: Deadline) -> Result<Arc<RedisLocks>, EngineError> {
        RedisLocks::open(self.clone(), epochs, deadline).await.map(Arc::new)
    }
}

impl fmt::Display for RedisOptions {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(false))
    }
}

fn database(text: &str) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let number = text.parse::<u32>().map(i64::from);
    number.map_err(|_| format!("{text:?} is not the number of a database; write redis://HOST:PORT/0"))
}

fn replicas(text: &str) -> Result<u32, String> {
    let number = text.parse::<u32>().ok().filter(|number| *number <= 64);
    number.ok_or_else(|| format!("min_replicas {text:?} is not a number of replicas; write min_replicas=1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_its_text() {
        for text in [
            "redis://localhost:6379/0",
            "redis://:p%40ss%3A@localhost:6380/3",
            "rediss://agent:secret@[::1]:6380/0?prefix=team&tls_ca=%2Fetc%2Fca.pem",
            "redis+unix:///run/redis.sock?user=a&password=b%26c&db=2",
            "redis://h:1/0?connect_timeout=0.5",
            "redis+sentinel://:p%40ss@s1:26379,s2:26380/orders?min_replicas=1",
            "rediss+sentinel://[::1]:26379/orders/3?sentinel_user=a&sentinel_password=b%26c&tls_ca=%2Fca.pem",
            "redis+cluster://agent:secret@n1:7000,n2:7001?min_replicas=1&prefix=team",
        ] {
            assert_eq!(RedisOptions::parse(text).unwrap().url(), text);
        }
        assert_eq!(RedisOptions::parse("redis://h").unwrap().url(), "redis://h:6379/0");
    }

    #[test]
    fn each_way_to_servers_says_what_a_failover_loses() {
        let said = |text: &str| {
            let options = RedisOptions::parse(text).unwrap();
            (options.token_source(), options.survives())
        };
        let (source, alone) = said("redis://h");
        assert!(!source.contains("failover") && !alone.contains("failover"), "{source}; {alone}");
        for text in ["redis+sentinel://h/s", "redis+cluster://h"] {
            let (source, unconfirmed) = said(text);
            assert!(source.contains("each failover"), "{text}: {source}");
            assert!(
                unconfirmed.contains("had not seen") && unconfirmed.contains("asynchronous"),
                "{text}: {unconfirmed}"
            );
            let (_, confirmed) = said(&format!("{text}?min_replicas=1"));
            assert!(confirmed.contains("confirm each grant") && !confirmed.contains("asynchronous"), "{confirmed}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for text in [
            "redis://agent:hush@localhost",
            "redis+unix:///x?password=hush",
            "redis+sentinel://h/s?sentinel_password=hush",
            "redis+cluster://:hush@h,g",
        ] {
            let options = RedisOptions::parse(text).unwrap();
            assert!(!format!("{options} {options:?}").contains("hush"));
            assert!(options.url().contains("hush"));
        }
        for (text, part) in [
            ("redis://:1/hush@h", "%2F"),
            ("redis://a:1?hush@h", "%3F"),
            ("redis://a:1#hush@h", "%23"),
            ("redis+sentinel://a:1/hush@h/s", "%2F"),
            ("redis+cluster://a:hush@h:port", "HOST:PORT"),
        ] {
            let rule = RedisOptions::parse(text).unwrap_err();
            assert!(rule.contains(part) && !rule.contains("hush"), "{text}: {rule}");
        }
    }

    #[test]
    fn a_wrong_address_says_what_would_be_right() {
        for (text, part) in [
            ("redis://", "host"),
            ("redis://h/x", "database"),
            ("redis://h?nonsense=1", "connect_timeout"),
            ("redis://h?password=1", "before the host"),
            ("redis://h?prefix=a%20b", "prefix"),
            ("redis://h?tls_ca=x", "rediss://"),
            ("rediss://h?tls_cert=x", "tls_key"),
            ("redis+unix://host/x", "redis+unix:///"),
            ("redis://h?connect_timeout=soon", "seconds"),
            ("redis+sentinel://h:26379", "SERVICE"),
            ("redis+sentinel://h,/s", "HOST:PORT"),
            ("redis+cluster://h/3", "no databases"),
            ("redis+cluster://h:1,h:1", "twice"),
            ("redis://h?min_replicas=1", "min_replicas"),
            ("redis+cluster://h?sentinel_user=x", "redis+sentinel://"),
        ] {
            let rule = RedisOptions::parse(text).unwrap_err();
            assert!(rule.contains(part), "{text}: {rule}");
        }
    }
}
