//! The config file: our own keys, and the two sections of the published experiment as they are.
//!
//! Each value is read as whatever it is and judged here, so that an error can name the file, the line, the key, the
//! value and the remedy. A password's value is never named.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use mutext::{Ttl, Wait};
use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::{Error as YamlError, Spanned};

use crate::error::CliError;

/// What a config file says; every key may be missing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ConfigFile {
    pub(crate) store: Option<String>,
    pub(crate) locks: Option<String>,
    pub(crate) context: Option<String>,
    pub(crate) agent: Option<String>,
    pub(crate) wait: Option<Wait>,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) document_bytes_max: Option<usize>,
    pub(crate) retention_revisions: Option<u64>,
    pub(crate) retention_age: Option<Duration>,
}

type Field = Option<Spanned<Value>>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    store: Field,
    locks: Field,
    context: Field,
    agent: Field,
    wait: Field,
    ttl: Field,
    document_bytes_max: Field,
    retention_revisions: Field,
    retention_age: Field,
    redis: Option<Redis>,
    postgres: Option<Postgres>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Redis {
    host: Field,
    port: Field,
    db: Field,
    username: Field,
    password: Field,
    socket: Field,
    tls: Field,
    tls_ca: Field,
    tls_cert: Field,
    tls_key: Field,
    prefix: Field,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Postgres {
    host: Field,
    port: Field,
    database: Field,
    user: Field,
    password: Field,
    schema: Field,
    sslmode: Field,
    sslrootcert: Field,
    pool: Field,
}

/// The largest limit that can be set: SQLite holds no larger text than a gigabyte, and an agent reads none.
pub(crate) const DOCUMENT_BYTES_LIMIT: u64 = 256 * 1024 * 1024;

/// More revisions than this are all of them.
pub(crate) const RETENTION_REVISIONS_LIMIT: u64 = 1_000_000_000;

/// For how long a revision that was replaced is kept. Less than a second would forget what a merge needs while it is
/// made; what is older than ten years is kept by keeping all.
pub(crate) fn retention_age(age: Duration) -> Result<Duration, &'static str> {
    let bounds = Duration::from_secs(1)..=Duration::from_secs(10 * 365 * 24 * 60 * 60);
    if bounds.contains(&age) { Ok(age) } else { Err("it must be 1s to ten years; without it, any age is kept") }
}

impl ConfigFile {
    /// Reads the file at `path`.
    pub(crate) fn read(path: &Path) -> Result<Self, CliError> {
        let text = fs::read_to_string(path).map_err(|source| CliError::Io {
            what: format!("config file {} cannot be read", path.display()),
            remedy: "name a YAML file that can be read, with --config or MUTEXT_CONFIG",
            source,
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, name: &str) -> Result<Self, CliError> {
        // A file of comments alone sets nothing.
        let keys: Option<Keys> = serde_saphyr::from_str(text).map_err(|error| explain(&error, text, name))?;
        let keys = keys.unwrap_or_default();
        let look = |section: &'static str| Reader { name, section };
        let own = look("");
        let mut config = Self {
            store: own.text("store", &keys.store, "an address, as in embedded:.mutext")?,
            locks: own.text("locks", &keys.locks, "an address, as in embedded:.mutext")?,
            context: own.text("context", &keys.context, "a name, as in research-42")?,
            agent: own.text("agent", &keys.agent, "a name, as in planner")?,
            wait: own.duration("wait", &keys.wait, Wait::new)?,
            ttl: own.duration("ttl", &keys.ttl, Ttl::new)?,
            document_bytes_max: own
                .number("document_bytes_max", &keys.document_bytes_max, 1..=DOCUMENT_BYTES_LIMIT)?
                .and_then(|bytes| usize::try_from(bytes).ok()),
            retention_revisions: own.number(
                "retention_revisions",
                &keys.retention_revisions,
                1..=RETENTION_REVISIONS_LIMIT,
            )?,
            retention_age: own.duration("retention_age", &keys.retention_age, retention_age)?,
        };
        if let Some(postgres) = &keys.postgres {
            own.once("store", &keys.store, "postgres")?;
            config.store = Some(postgres.url(&look("postgres."))?);
        }
        if let Some(redis) = &keys.redis {
            own.once("locks", &keys.locks, "redis")?;
            config.locks = Some(redis.url(&look("redis."))?);
        }
        Ok(config)
    }
}

impl Redis {
    fn url(&self, reader: &Reader<'_>) -> Result<String, CliError> {
        let host = reader.text("host", &self.host, "a host name")?;
        let port = reader.number("port", &self.port, 1..=65_535)?.unwrap_or(6379);
        let db = reader.number("db", &self.db, 0..=1_000_000)?.unwrap_or(0);
        let username = reader.text("username", &self.username, "a user's name")?;
        let password = reader.secret("password", &self.password)?;
        let tls = reader.truth("tls", &self.tls)?.unwrap_or(false);
        let prefix = reader.text("prefix", &self.prefix, "a word")?;
        let tls_ca = reader.file("tls_ca", &self.tls_ca)?;
        let tls_cert = reader.file("tls_cert", &self.tls_cert)?;
        let tls_key = reader.file("tls_key", &self.tls_key)?;
        if let Some((socket, field)) = reader.text("socket", &self.socket, "a path")?.zip(self.socket.as_ref()) {
            let elsewhere = [
                ("host", &self.host),
                ("port", &self.port),
                ("tls", &self.tls),
                ("tls_ca", &self.tls_ca),
                ("tls_cert", &self.tls_cert),
                ("tls_key", &self.tls_key),
            ];
            if let Some((other, _)) = elsewhere.iter().find(|(_, field)| field.is_some()) {
                return reader.refuse("socket", field, &format!("and {other} are two ways to the server; keep one"));
            }
            let db = Some(db.to_string());
            let options = [("db", db), ("user", username), ("password", password), ("prefix", prefix)];
            let path = socket.split('/').map(encoded).collect::<Vec<_>>().join("/");
            return Ok(format!("redis+unix://{path}{}", query(options)));
        }
        let scheme = if tls { "rediss" } else { "redis" };
        let options = query([("prefix", prefix), ("tls_ca", tls_ca), ("tls_cert", tls_cert), ("tls_key", tls_key)]);
        Ok(format!("{scheme}://{}{}:{port}/{db}{options}", login(username, password), authority(host)))
    }
}

impl Postgres {
    fn url(&self, reader: &Reader<'_>) -> Result<String, CliError> {
        let host = reader.text("host", &self.host, "a host name")?;
        let port = reader.number("port", &self.port, 1..=65_535)?.unwrap_or(5432);
        let database = reader.text("database", &self.database, "a database's name")?;
        let user = reader.text("user", &self.user, "a user's name")?;
        let password = reader.secret("password", &self.password)?;
        let database = database.map(|database| format!("/{}", encoded(&database))).unwrap_or_default();
        let options = query([
            ("schema", reader.text("schema", &self.schema, "a schema's name")?),
            (
                "sslmode",
                reader.text("sslmode", &self.sslmode, "one of disable, prefer, require, verify-ca, verify-full")?,
            ),
            ("sslrootcert", reader.file("sslrootcert", &self.sslrootcert)?),
            ("pool", reader.number("pool", &self.pool, 1..=1000)?.map(|pool| pool.to_string())),
        ]);
        // A directory is where the server's socket lies; it does not fit where a host name stands.
        let host = host.map(|host| if host.starts_with('/') { encoded(&host) } else { authority(Some(host)) });
        let host = host.unwrap_or_else(|| authority(None));
        Ok(format!("postgres://{}{host}:{port}{database}{options}", login(user, password)))
    }
}

/// What stands before the host.
fn login(user: Option<String>, password: Option<String>) -> String {
    match (user, password) {
        (None, None) => String::new(),
        (user, None) => format!("{}@", encoded(&user.unwrap_or_default())),
        (user, Some(password)) => format!("{}:{}@", encoded(&user.unwrap_or_default()), encoded(&password)),
    }
}

/// What stands behind an address: those options that are given.
fn query<const N: usize>(options: [(&str, Option<String>); N]) -> String {
    let given = options.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(&value?))));
    let given: Vec<String> = given.collect();
    if given.is_empty() { String::new() } else { format!("?{}", given.join("&")) }
}

/// A host as it stands in a URL: an IPv6 address needs brackets.
fn authority(host: Option<String>) -> String {
    let host = host.unwrap_or_else(|| "localhost".to_owned());
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host }
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn encoded(text: &str) -> String {
    let encode = |byte: u8| {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(encode).collect()
}

/// Judges the values of one section.
struct Reader<'a> {
    name: &'a str,
    section: &'static str,
}

impl Reader<'_> {
    fn refuse<T>(&self, key: &str, field: &Spanned<Value>, what: &str) -> Result<T, CliError> {
        let (name, section, line) = (self.name, self.section, field.referenced.line());
        Err(CliError::input(format!("config file {name}, line {line}: {section}{key} {what}")))
    }

    fn text(&self, key: &str, field: &Field, wanted: &str) -> Result<Option<String>, CliError> {
        let Some(field) = field else { return Ok(None) };
        match &field.value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            other => {
                self.refuse(key, field, &format!("is {}, and must be text: {wanted}{}", shown(other), quotes(other)))
            }
        }
    }

    /// A file's name, which is counted from the config file's own directory.
    fn file(&self, key: &str, field: &Field) -> Result<Option<String>, CliError> {
        let Some(file) = self.text(key, field, "a file's name")? else { return Ok(None) };
        // What is not text cannot be part of an address; such a directory stays out of it.
        let beside = Path::new(self.name).parent().and_then(|dir| dir.join(&file).to_str().map(str::to_owned));
        Ok(Some(beside.unwrap_or(file)))
    }

    fn secret(&self, key: &str, field: &Field) -> Result<Option<String>, CliError> {
        let Some(field) = field else { return Ok(None) };
        match &field.value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            _ => self.refuse(key, field, "is not text; write it in quotes"),
        }
    }

    fn truth(&self, key: &str, field: &Field) -> Result<Option<bool>, CliError> {
        let Some(field) = field else { return Ok(None) };
        match &field.value {
            Value::Null => Ok(None),
            Value::Bool(value) => Ok(Some(*value)),
            other => self.refuse(key, field, &format!("is {}, and must be true or false", shown(other))),
        }
    }

    fn number(&self, key: &str, field: &Field, bounds: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, CliError> {
        let Some(field) = field else { return Ok(None) };
        match (&field.value, field.value.as_u64()) {
            (Value::Null, _) => Ok(None),
            (_, Some(number)) if bounds.contains(&number) => Ok(Some(number)),
            (other, _) => {
                let (low, high) = bounds.into_inner();
                self.refuse(key, field, &format!("is {}, and must be a number from {low} to {high}", shown(other)))
            }
        }
    }

    fn duration<T, E: fmt::Display>(
        &self,
        key: &str,
        field: &Field,
        check: impl FnOnce(Duration) -> Result<T, E>,
    ) -> Result<Option<T>, CliError> {
        let wanted = "a duration with its unit, as in 500ms or 10s";
        let Some((field, text)) = field.as_ref().zip(self.text(key, field, wanted)?) else { return Ok(None) };
        let duration = match parse_duration(&text) {
            Ok(duration) => duration,
            Err(error) => return self.refuse(key, field, &format!("is {text:?}: {error}")),
        };
        match check(duration) {
            Ok(value) => Ok(Some(value)),
            Err(error) => self.refuse(key, field, &format!("is {text:?}: {error}")),
        }
    }

    /// That an engine is named by its key or by its published section, not by both.
    fn once(&self, key: &str, field: &Field, section: &str) -> Result<(), CliError> {
        match field {
            None => Ok(()),
            Some(field) => self.refuse(key, field, &format!("and the section {section} say the same thing; keep one")),
        }
    }
}

/// A duration with its unit, as flags and the config file write it.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim())
        .map_err(|error| format!("{error}; write a number and its unit, as in 500ms, 10s, 2m or 1h"))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Bool(value) => format!("the truth value {value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {text:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a section".to_owned(),
    }
}

const fn quotes(value: &Value) -> &'static str {
    if matches!(value, Value::Bool(_) | Value::Number(_)) { "; write it in quotes if it is one" } else { "" }
}

/// What the parser met: the line, and never a value, which may be a password.
fn explain(error: &YamlError, text: &str, name: &str) -> CliError {
    let plain = error.without_snippet();
    let line = plain.location().map_or(1, |location| location.line());
    let written = usize::try_from(line).ok().and_then(|line| text.lines().nth(line.saturating_sub(1)));
    let key = written.and_then(|line| line.split_once(':')).map(|(key, _)| key.trim());
    let what = match (plain, key) {
        (YamlError::SerdeUnknownField { field, expected, .. }, _) => {
            format!("there is no key {field:?} here; the keys are {}", expected.join(", "))
        }
        (YamlError::DuplicateMappingKey { .. }, Some(key)) => format!("{key} is there twice; keep one"),
        (YamlError::Unexpected { expected, .. }, Some(key)) => {
            format!("{key} is not what it must be: expected {expected}, as in the README")
        }
        (other, _) => format!("not valid YAML for this command: {}", first_line(other)),
    };
    CliError::input(format!("config file {name}, line {line}: {what}"))
}

fn first_line(error: &YamlError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: &str = "redis:\n  host: localhost\n  port: 6379\n  db: 0\npostgres:\n  host: localhost\n  \
                             port: 5432\n  database: external_context_test\n  user: test_user\n  \
                             password: test_password\n";

    fn refusal(text: &str) -> String {
        ConfigFile::parse(text, "x.yaml").unwrap_err().to_string()
    }

    #[test]
    fn the_published_file_is_read_as_it_is() {
        let config = ConfigFile::parse(PUBLISHED, "x.yaml").unwrap();
        let store = "postgres://test_user:test_password@localhost:5432/external_context_test";
        assert_eq!(config.store.as_deref(), Some(store));
        assert_eq!(config.locks.as_deref(), Some("redis://localhost:6379/0"));
    }

    #[test]
    fn sections_say_more_than_the_published_ones_where_they_must() {
        let text = "redis:\n  username: anna\n  password: a b\n  tls: true\n  tls_ca: /etc/ca.pem\n  prefix: team\n\
                    postgres:\n  host: /run/postgresql\n  user: anna\n  database: board\n  schema: trial\n  \
                    sslmode: disable\n  pool: 2\n";
        let config = ConfigFile::parse(text, "x.yaml").unwrap();
        let locks = "rediss://anna:a%20b@localhost:6379/0?prefix=team&tls_ca=%2Fetc%2Fca.pem";
        assert_eq!(config.locks.as_deref(), Some(locks));
        let store = "postgres://anna@%2Frun%2Fpostgresql:5432/board?schema=trial&sslmode=disable&pool=2";
        assert_eq!(config.store.as_deref(), Some(store));
        let text = "redis:\n  socket: /run/redis.sock\n  db: 3\n  password: hush\n";
        let config = ConfigFile::parse(text, "x.yaml").unwrap();
        assert_eq!(config.locks.as_deref(), Some("redis+unix:///run/redis.sock?db=3&password=hush"));
        for address in [locks, store, "redis+unix:///run/redis.sock?db=3&password=hush"] {
            let parsed: Result<mutext::Address, _> = address.parse();
            assert!(parsed.is_ok(), "{address}: {parsed:?}");
        }
    }

    #[test]
    fn our_own_keys_are_read() {
        let text = "store: embedded:x\nlocks: embedded:y\ncontext: c\nagent: a\nwait: 2s\nttl: 1m\ndocument_bytes_max: 10\n\
             retention_revisions: 50\nretention_age: 30d\n";
        let config = ConfigFile::parse(text, "x.yaml").unwrap();
        assert_eq!(config.wait, Some(Wait::new(Duration::from_secs(2)).unwrap()));
        assert_eq!(config.ttl, Some(Ttl::new(Duration::from_secs(60)).unwrap()));
        let month = Duration::from_secs(30 * 24 * 60 * 60);
        assert_eq!((config.retention_revisions, config.retention_age), (Some(50), Some(month)));
        assert_eq!((config.document_bytes_max, config.agent.as_deref()), (Some(10), Some("a")));
    }

    #[test]
    fn a_file_of_comments_sets_nothing() {
        assert_eq!(ConfigFile::parse("# nothing\n", "x.yaml").unwrap(), ConfigFile::default());
        assert_eq!(ConfigFile::parse("", "x.yaml").unwrap(), ConfigFile::default());
        assert_eq!(ConfigFile::parse("agent:\n", "x.yaml").unwrap(), ConfigFile::default());
    }

    #[test]
    fn a_mistake_names_file_line_key_value_and_remedy() {
        for (text, parts) in [
            ("context: a\nstroe: b\n", &["x.yaml, line 2", "\"stroe\"", "store, locks"][..]),
            ("redis:\n  hots: b\n", &["x.yaml, line 2", "\"hots\"", "host, port"]),
            ("context: 42\n", &["line 1", "context", "the number 42", "quotes"]),
            ("store: [a]\n", &["line 1", "store", "a list", "embedded:.mutext"]),
            ("wait: 5\n", &["line 1", "wait", "number 5", "500ms"]),
            ("\nwait: 5 parsecs\n", &["line 2", "wait", "5 parsecs", "500ms"]),
            ("wait: 0s\n", &["line 1", "wait", "1ms or more"]),
            ("ttl: 20ms\n", &["line 1", "ttl", "20ms", "100ms or more"]),
            ("retention_revisions: 0\n", &["line 1", "retention_revisions", "number from 1"]),
            ("retention_age: 5\n", &["line 1", "retention_age", "number 5"]),
            ("retention_age: 1ms\n", &["line 1", "retention_age", "1s to ten years"]),
            ("document_bytes_max: lots\n", &["line 1", "document_bytes_max", "lots", "number from 1"]),
            ("redis:\n  tls: maybe\n", &["line 2", "redis.tls", "maybe", "true or false"]),
            ("redis:\n  socket: /x\n  host: h\n", &["line 2", "redis.socket", "host", "keep one"]),
            ("redis:\n  port: 70000\n", &["line 2", "redis.port", "70000", "65535"]),
            ("redis: localhost\n", &["line 1", "redis"]),
            ("context: a\ncontext: b\n", &["line 2", "context", "twice"]),
            ("store: embedded:x\npostgres:\n  host: a\n", &["line 1", "store", "postgres", "keep one"]),
            ("- a\n", &["line 1"]),
            ("store: \"x\n", &["x.yaml"]),
        ] {
            let refusal = refusal(text);
            assert!(parts.iter().all(|part| refusal.contains(part)), "{text:?}: {refusal}");
        }
    }

    #[test]
    fn a_password_is_never_named() {
        for text in [
            "postgres:\n  password: 1234567\n",
            "postgres:\n  password: [hunter2]\n",
            "postgres: {password: hunter2, passwort: hunter2}\n",
            "postgres:\n  password: hunter2: x\n",
            "postgres:\n  password: \"hunter2\n",
            "postgres:\n  password: !!int hunter2\n",
            "postgres: hunter2\n",
        ] {
            let refusal = refusal(text);
            assert!(!refusal.contains("hunter2") && !refusal.contains("1234567"), "{refusal}");
        }
    }

    #[test]
    fn what_a_url_cannot_hold_is_encoded() {
        let config = ConfigFile::parse("redis:\n  host: ::1\n  password: 'p@s:s/w?rd'\n", "x.yaml").unwrap();
        assert_eq!(config.locks.as_deref(), Some("redis://:p%40s%3As%2Fw%3Frd@[::1]:6379/0"));
    }
}
