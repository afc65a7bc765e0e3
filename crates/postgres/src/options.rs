//! What a PostgreSQL address says.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mutext_contract::{Deadline, EngineError, EpochSource};

use crate::{PostgresLocks, PostgresStore};

const DEFAULT_PORT: u16 = 5432;
const DEFAULT_SCHEMA: &str = "mutext";
const DEFAULT_POOL: usize = 4;
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// More connections than that serve nobody: a server has a few hundred for all its clients.
const POOL_MAX: usize = 1000;
/// The schema's name is part of the channel's, which PostgreSQL limits to 63 bytes.
const SCHEMA_BYTES_MAX: usize = 48;
const KNOWN: &str = "host, user, password, schema, sslmode, sslrootcert, pool and connect_timeout";

/// How much of TLS is asked for, in the words of PostgreSQL's own client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SslMode {
    /// None.
    Disable,
    /// Where the server has it; nobody is authenticated by it.
    Prefer,
    /// Always; nobody is authenticated by it, unless there is a root certificate.
    Require,
    /// Always; the server's certificate must be signed by a known authority.
    VerifyCa,
    /// The same, and it must be for the host's name.
    VerifyFull,
}

impl SslMode {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Name(String),
    /// The directory of its Unix socket.
    Socket(PathBuf),
}

/// How a PostgreSQL server is reached.
///
/// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?schema=NAME&sslmode=MODE&sslrootcert=FILE&pool=N&connect_timeout=SECONDS`
///
/// ```
/// use mutext_postgres::PostgresOptions;
/// let options = PostgresOptions::parse("postgres://anna:secret@db.example/board?schema=trial_17")?;
/// assert_eq!(options.to_string(), "postgres://anna@db.example:5432/board?schema=trial_17");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    url: String,
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: Option<String>,
    pub(crate) schema: String,
    pub(crate) ssl_mode: SslMode,
    pub(crate) ssl_root_cert: Option<PathBuf>,
    pub(crate) pool: usize,
    pub(crate) connect_timeout: Duration,
}

impl PostgresOptions {
    /// What `url` says, or which rule it breaks. The rule's text never has the password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        let rest = rest.ok_or("it does not begin with postgres://; write postgres://USER:PASSWORD@HOST/DATABASE")?;
        if rest.contains('#') {
            return Err("it has a `#`; write `%23` where it belongs to a name or a password".to_owned());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(decoded("password", password)?)),
            None => (login, None),
        };
        if database.contains(['/', '@']) {
            return Err(
                "it has a `/` or an `@` after the first `/`; write `%2F` and `%40` in names and passwords".to_owned()
            );
        }
        let (host, port) = address_of(address)?;
        let mut options = Self {
            url: url.to_owned(),
            host,
            port,
            user: some(decoded("user", user)?),
            password,
            database: some(decoded("database", database)?),
            schema: DEFAULT_SCHEMA.to_owned(),
            ssl_mode: SslMode::Prefer,
            ssl_root_cert: None,
            pool: DEFAULT_POOL,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
        };
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            // It would be shown, and may be a piece of a password with a `?`.
            if name.contains('@') {
                return Err(
                    "the name of an option has an `@`; write `%3F` for a `?` in a name or a password".to_owned()
                );
            }
            options.set(name, decoded(name, value)?)?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        if value.is_empty() && matches!(name, "host" | "user" | "sslrootcert") {
            return Err(format!("its option {name} is empty; give it a value, or leave it out"));
        }
        match name {
            "host" => self.host = host(value),
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "schema" => self.schema = schema(value)?,
            "sslmode" => self.ssl_mode = ssl_mode(&value)?,
            "sslrootcert" => self.ssl_root_cert = Some(PathBuf::from(value)),
            "pool" => {
                let size = value.parse().ok().filter(|size| (1..=POOL_MAX).contains(size));
                self.pool = size.ok_or_else(|| {
                    format!("its option pool={value} is no number of connections; give 1 to {POOL_MAX}")
                })?;
            }
            "connect_timeout" => {
                let seconds = value.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                self.connect_timeout = seconds.filter(|timeout| !timeout.is_zero()).ok_or_else(|| {
                    format!("its option connect_timeout={value} is no number of seconds; give one above 0, as in 5")
                })?;
            }
            other => return Err(format!("it has no option {other:?}; it has {KNOWN}")),
        }
        Ok(())
    }

    /// The whole address, with its password: for handing it to another process of the same user, never for show.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether the connection is only made to a server whose certificate is good.
    pub(crate) fn authenticates_server(&self) -> bool {
        match self.ssl_mode {
            SslMode::Disable | SslMode::Prefer => false,
            SslMode::Require => self.ssl_root_cert.is_some(),
            SslMode::VerifyCa | SslMode::VerifyFull => true,
        }
    }

    /// Connects, sets the schema up where there is none, and makes sure that it can be worked with. Gives up after the
    /// address's `connect_timeout` (5 s unless told otherwise) even where the deadline is later.
    pub async fn open(&self, deadline: Deadline) -> Result<Arc<PostgresStore>, EngineError> {
        PostgresStore::open(self, deadline).await.map(Arc::new)
    }

    /// The same for locks, whose epochs come from `epochs`: the store that holds what they protect.
    pub async fn open_locks(
        &self,
        epochs: Arc<dyn EpochSource>,
        deadline: Deadline,
    ) -> Result<Arc<PostgresLocks>, EngineError> {
        PostgresLocks::open(self, epochs, deadline).await.map(Arc::new)
    }
}

impl fmt::Display for PostgresOptions {
    /// Without the password, wherever it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        if let Some(user) = &self.user {
            write!(f, "{}@", encoded(user))?;
        }
        match &self.host {
            Host::Name(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port)?,
            Host::Name(name) => write!(f, "{name}:{}", self.port)?,
            Host::Socket(dir) => write!(f, "{}:{}", encoded(&dir.to_string_lossy()), self.port)?,
        }
        if let Some(database) = &self.database {
            write!(f, "/{}", encoded(database))?;
        }
        let mut separator = '?';
        let mut option = |name: &str, value: &dyn fmt::Display| {
            write!(f, "{separator}{name}={value}")?;
            separator = '&';
            Ok(())
        };
        if self.schema != DEFAULT_SCHEMA {
            option("schema", &self.schema)?;
        }
        if self.ssl_mode != SslMode::Prefer {
            option("sslmode", &self.ssl_mode.as_str())?;
        }
        if let Some(file) = &self.ssl_root_cert {
            option("sslrootcert", &file.display())?;
        }
        if self.pool != DEFAULT_POOL {
            option("pool", &self.pool)?;
        }
        if self.connect_timeout != DEFAULT_CONNECT_TIMEOUT {
            option("connect_timeout", &self.connect_timeout.as_secs_f64())?;
        }
        Ok(())
    }
}

impl fmt::Debug for PostgresOptions {
    /// Without the password: what is shown for debugging ends in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresOptions({self})")
    }
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// `HOST:PORT`, `[IPv6]:PORT`, or the percent-encoded directory of a Unix socket.
fn address_of(address: &str) -> Result<(Host, u16), String> {
    let (name, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']').ok_or("its host has a `[` without a `]`")?;
            (name, port.strip_prefix(':'))
        }
        None => address.rsplit_once(':').map_or((address, None), |(name, port)| (name, Some(port))),
    };
    if name.contains(',') {
        return Err("it names several hosts; name one".to_owned());
    }
    let port = match port {
        None | Some("") => DEFAULT_PORT,
        // Not shown: it is a piece of the password where that has a `/`.
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or(
            "its port is no number from 1 to 65535; a password's `/` is written `%2F`, its `?` is written `%3F`",
        )?,
    };
    let name = decoded("host", name)?;
    Ok((host(if name.is_empty() { "localhost".to_owned() } else { name }), port))
}

fn host(name: String) -> Host {
    if name.starts_with('/') { Host::Socket(PathBuf::from(name)) } else { Host::Name(name) }
}

/// A schema's name goes into SQL text, and people type it: so the plainest names only.
fn schema(name: String) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    let begins_well = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
    let rule = if name.len() > SCHEMA_BYTES_MAX {
        format!("is longer than {SCHEMA_BYTES_MAX} bytes")
    } else if !begins_well || !name.bytes().all(plain) {
        "is not plain; use lower-case letters, digits, `_` and `-`, and begin with a letter".to_owned()
    } else if name.starts_with("pg_") {
        "begins with pg_, which PostgreSQL keeps for itself".to_owned()
    } else {
        return Ok(name);
    };
    Err(format!("its option schema={name} {rule}"))
}

fn ssl_mode(value: &str) -> Result<SslMode, String> {
    let modes = [SslMode::Disable, SslMode::Prefer, SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull];
    modes.into_iter().find(|mode| mode.as_str() == value).ok_or_else(|| {
        format!("its option sslmode={value} is unknown; it is one of disable, prefer, require, verify-ca, verify-full")
    })
}

/// Undoes percent-encoding. The error names the part, not its value: it may be the password.
fn decoded(part: &str, text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let code = tail.get(..2).and_then(|code| std::str::from_utf8(code).ok());
            let code = code.and_then(|code| u8::from_str_radix(code, 16).ok());
            bytes.push(code.ok_or_else(|| {
                format!("its {part} has a `%` that two hexadecimal digits do not follow; write `%25` for a `%`")
            })?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).map_err(|_| format!("its {part} is not UTF-8 once its percent-encoding is undone"))
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> PostgresOptions {
        PostgresOptions::parse(url).unwrap()
    }

    fn broken_rule(url: &str) -> String {
        PostgresOptions::parse(url).unwrap_err()
    }

    #[test]
    fn a_whole_address_is_taken_apart() {
        let options = parse(
            "postgresql://an%40na:se%3Acret@db.example:6543/bo%2Fard?schema=trial-1&sslmode=verify-full&sslrootcert=/etc/ca.pem&pool=7&connect_timeout=2.5",
        );
        assert_eq!(options.user.as_deref(), Some("an@na"));
        assert_eq!(options.password.as_deref(), Some("se:cret"));
        assert_eq!((&options.host, options.port), (&Host::Name("db.example".to_owned()), 6543));
        assert_eq!(options.database.as_deref(), Some("bo/ard"));
        assert_eq!((options.schema.as_str(), options.pool), ("trial-1", 7));
        assert_eq!(options.ssl_mode, SslMode::VerifyFull);
        assert_eq!(options.ssl_root_cert, Some(PathBuf::from("/etc/ca.pem")));
        assert_eq!(options.connect_timeout, Duration::from_millis(2500));
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let options = parse("postgres://localhost");
        assert_eq!((options.port, options.schema.as_str(), options.pool), (5432, "mutext", 4));
        assert_eq!((options.user, options.password, options.database), (None, None, None));
        assert_eq!(parse("postgres://").host, Host::Name("localhost".to_owned()));
        assert_eq!(parse("postgres://[::1]:6000/d").host, Host::Name("::1".to_owned()));
    }

    #[test]
    fn a_unix_socket_is_named_in_either_way() {
        let socket = Host::Socket(PathBuf::from("/run/postgresql"));
        assert_eq!(parse("postgres://anna@%2Frun%2Fpostgresql:5433/board").host, socket);
        let by_option = parse("postgres://anna@/board?host=/run/postgresql");
        assert_eq!((&by_option.host, by_option.database.as_deref()), (&socket, Some("board")));
    }

    #[test]
    fn the_password_is_never_shown() {
        for url in [
            "postgres://anna:hush@db/board",
            "postgres://anna@db/board?password=hush",
            "postgres://anna:h%75sh@db:5432/board",
        ] {
            let options = parse(url);
            assert_eq!(options.password.as_deref(), Some("hush"));
            assert_eq!(options.to_string(), "postgres://anna@db:5432/board");
            assert!(!format!("{options:?}").contains("hush"));
            assert_eq!(options.url(), url);
        }
        for url in [
            "postgres://anna:hush%@db/board",
            "postgres://anna:hush@db:x/board",
            "postgres://anna:hush#@db",
            "postgres://anna:hush/@db",
            "postgres://anna:1/hush@db",
            "postgres://anna:1?hush@db",
        ] {
            assert!(!broken_rule(url).contains("hush"), "{}", broken_rule(url));
        }
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        for url in [
            "postgres://an%20na@%2Frun%2Fpg:5433/b?schema=s&sslmode=require&pool=9&connect_timeout=0.5",
            "postgres://[::1]:5432/board",
        ] {
            assert_eq!(parse(url).to_string(), url);
        }
    }

    #[test]
    fn a_broken_rule_names_the_option_and_what_would_be_right() {
        assert!(broken_rule("postgres://db/b?sslmod=require").contains("no option \"sslmod\"; it has host, user"));
        assert!(broken_rule("postgres://db/b?sslmode=yes").contains("sslmode=yes is unknown; it is one of disable"));
        assert!(broken_rule("postgres://db/b?pool=0").contains("give 1 to 1000"));
        assert!(broken_rule("postgres://db/b?connect_timeout=0").contains("above 0"));
        assert!(broken_rule("postgres://db/b?schema=Board").contains("lower-case"));
        assert!(broken_rule("postgres://db/b?schema=pg_x").contains("keeps for itself"));
        assert!(broken_rule("postgres://db/b?schema=").contains("begin with a letter"));
        assert!(broken_rule("postgres://a,b/d").contains("name one"));
        assert!(broken_rule("redis://db").contains("postgres://USER"));
    }
}
