//! Settings, resolved: a flag overrides the environment, which overrides the config file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use mutext::{Address, AgentName, Context, ContextName, InvalidName, LeaseId, Mutext, Retention, Settings, Ttl, Wait};

use crate::config_file::{ConfigFile, DOCUMENT_BYTES_LIMIT, RETENTION_REVISIONS_LIMIT, parse_duration, retention_age};
use crate::error::CliError;
use crate::output::Output;

/// Flags that every command has. The environment is read by [`Common::resolve`] and not by clap, whose help would
/// show the values, passwords among them.
#[derive(Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Where documents lie, as in embedded:DIR [env: MUTEXT_STORE] [default: embedded:.mutext]
    #[arg(long, global = true, value_name = "URL")]
    store: Option<String>,
    /// Where locks lie [env: MUTEXT_LOCKS] [default: where the documents lie]
    #[arg(long, global = true, value_name = "URL")]
    locks: Option<String>,
    /// The shared space that documents and locks belong to [env: MUTEXT_CONTEXT] [default: default]
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// Who writes and who holds [env: MUTEXT_AGENT] [default: $USER, or agent]
    #[arg(long, global = true, value_name = "NAME")]
    agent: Option<String>,
    /// A YAML file with settings [env: MUTEXT_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Answer in JSON, one line
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag(&'static str),
    Environment(&'static str),
    File(PathBuf),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Environment(name) => f.write_str(name),
            Self::File(path) => write!(f, "config file {}", path.display()),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// An address as it was given. Its text may hold a password: it is never shown as it is.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) url: String,
    pub(crate) origin: Origin,
}

impl Given {
    /// The address, or what is wrong with it and where it came from.
    pub(crate) fn address(&self) -> Result<Address, CliError> {
        let parsed: Result<Address, mutext::Error> = self.url.parse();
        parsed.map_err(|source| CliError::Setting { origin: self.origin.to_string(), source: Box::new(source) })
    }

    /// The same place for a process with another working directory.
    pub(crate) fn absolute(&self) -> String {
        anchored(&self.url, &std::env::current_dir().unwrap_or_default())
    }

    /// What tells one place from another: symbolic links followed, no user and no password.
    pub(crate) fn identity(&self) -> String {
        let url = self.absolute();
        if let Some((dir, _)) = embedded_dir(&url) {
            return format!("embedded:{}", dir.canonicalize().unwrap_or(dir).display());
        }
        // An address hides its password wherever that stands; one that cannot be read opens nothing.
        let Ok(shown) = self.address().map(|address| address.to_string()) else { return String::new() };
        let (place, options) = shown.split_once('?').unwrap_or((&shown, ""));
        let place = match (place.find("//"), place.rfind('@')) {
            (Some(start), Some(at)) if start < at => format!("{}//{}", &place[..start], &place[at + 1..]),
            _ => place.to_owned(),
        };
        let is_login = |option: &str| option.starts_with("user=") || option.starts_with("password=");
        let options: Vec<&str> = options.split('&').filter(|option| !option.is_empty() && !is_login(option)).collect();
        if options.is_empty() { place } else { format!("{place}?{}", options.join("&")) }
    }
}

/// The directory of an embedded address, and its options with their question mark.
fn embedded_dir(url: &str) -> Option<(PathBuf, &str)> {
    let rest = url.strip_prefix("embedded:")?;
    let (dir, options) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    let dir = dir.strip_prefix("//").unwrap_or(dir);
    (!dir.is_empty()).then(|| (PathBuf::from(dir), options))
}

/// An embedded address whose directory is relative, counted from `base`.
fn anchored(url: &str, base: &Path) -> String {
    match embedded_dir(url) {
        // An address cannot hold a question mark or anything but text; such a base stays out of it.
        Some((dir, options)) if base.to_str().is_some_and(|base| !base.contains('?')) => {
            format!("embedded:{}{options}", base.join(dir).display())
        }
        _ => url.to_owned(),
    }
}

/// Every setting that the commands share.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) store: Given,
    /// `None`: where the documents lie.
    pub(crate) locks: Option<Given>,
    pub(crate) context: ContextName,
    pub(crate) agent: AgentName,
    pub(crate) wait: Wait,
    pub(crate) ttl: Ttl,
    pub(crate) document_bytes_max: usize,
    pub(crate) retention: Retention,
    pub(crate) config: Option<PathBuf>,
    /// Where the settings other than addresses came from, by their keys; one that is missing is the default.
    pub(crate) origins: BTreeMap<&'static str, Origin>,
    pub(crate) out: Output,
    /// Leases of the surrounding `mutext lock`, for a command that takes another.
    pub(crate) keeps: Vec<LeaseId>,
}

impl Common {
    /// From flags, this process's environment, and the config file that one of the two names.
    pub(crate) fn resolve(global: &Global) -> Result<Self, CliError> {
        let config = match (&global.config, variable("MUTEXT_CONFIG")?) {
            (Some(path), _) => Some(path.clone()),
            (None, variable) => variable.map(PathBuf::from),
        };
        let file = config.as_deref().map(ConfigFile::read).transpose()?.unwrap_or_default();
        let pick = |flag: (&'static str, &Option<String>), name: &'static str, in_file: Option<String>| {
            let from_file = || in_file.zip(config.clone()).map(|(text, path)| (text, Origin::File(path)));
            let given = match (flag.1, variable(name)?) {
                (Some(text), _) => Some((text.clone(), Origin::Flag(flag.0))),
                (None, Some(text)) => Some((text, Origin::Environment(name))),
                (None, None) => from_file(),
            };
            Ok::<_, CliError>(given)
        };
        let store = pick(("--store", &global.store), "MUTEXT_STORE", file.store)?
            .map_or_else(|| Given { url: "embedded:.mutext".to_owned(), origin: Origin::Default }, given);
        let locks = pick(("--locks", &global.locks), "MUTEXT_LOCKS", file.locks)?.map(given);
        let context = pick(("--context", &global.context), "MUTEXT_CONTEXT", file.context)?;
        let agent = pick(("--agent", &global.agent), "MUTEXT_AGENT", file.agent)?;
        let wait = amount("MUTEXT_WAIT", |text| {
            parse_duration(text).and_then(|wait| Wait::new(wait).map_err(|error| error.to_string()))
        })?;
        let ttl = amount("MUTEXT_TTL", |text| {
            parse_duration(text).and_then(|ttl| Ttl::new(ttl).map_err(|error| error.to_string()))
        })?;
        let bytes = amount("MUTEXT_DOCUMENT_BYTES_MAX", document_bytes)?;
        let revisions = amount("MUTEXT_RETENTION_REVISIONS", retention_revisions)?;
        let age = amount("MUTEXT_RETENTION_AGE", |text| {
            parse_duration(text).and_then(|age| retention_age(age).map_err(str::to_owned))
        })?;
        let user = || std::env::var("USER").ok().and_then(|user| AgentName::new(user).ok());
        let file_origin = || config.clone().map_or(Origin::Default, Origin::File);
        let of = |given: &Option<(String, Origin)>| given.as_ref().map(|(_, origin)| origin.clone());
        let of_amount = |variable: &'static str, in_env: bool, in_file: bool| match (in_env, in_file) {
            (true, _) => Some(Origin::Environment(variable)),
            (false, true) => Some(file_origin()),
            (false, false) => None,
        };
        let origins = [
            ("context", of(&context)),
            ("agent", of(&agent).or_else(|| user().map(|_| Origin::Environment("USER")))),
            ("wait", of_amount("MUTEXT_WAIT", wait.is_some(), file.wait.is_some())),
            ("ttl", of_amount("MUTEXT_TTL", ttl.is_some(), file.ttl.is_some())),
            (
                "document_bytes_max",
                of_amount("MUTEXT_DOCUMENT_BYTES_MAX", bytes.is_some(), file.document_bytes_max.is_some()),
            ),
            (
                "retention_revisions",
                of_amount("MUTEXT_RETENTION_REVISIONS", revisions.is_some(), file.retention_revisions.is_some()),
            ),
            ("retention_age", of_amount("MUTEXT_RETENTION_AGE", age.is_some(), file.retention_age.is_some())),
        ];
        let origins = origins.into_iter().filter_map(|(key, origin)| Some((key, origin?))).collect();
        Ok(Self {
            store,
            locks,
            context: named(context, ContextName::new)?.map_or_else(|| ContextName::new("default"), Ok)?,
            agent: named(agent, AgentName::new)?.or_else(user).map_or_else(|| AgentName::new("agent"), Ok)?,
            wait: wait.or(file.wait).unwrap_or_default(),
            ttl: ttl.or(file.ttl).unwrap_or_default(),
            document_bytes_max: bytes.or(file.document_bytes_max).unwrap_or(1024 * 1024),
            retention: Retention { revisions: revisions.or(file.retention_revisions), age: age.or(file.retention_age) },
            config,
            origins,
            out: Output::new(global.json),
            keeps: Vec::new(),
        })
    }

    /// How the library is to be used.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            ttl: self.ttl,
            wait: self.wait,
            document_bytes_max: self.document_bytes_max,
            keeps: self.keeps.clone(),
            retention: self.retention,
            ..Settings::new(self.agent.clone())
        }
    }

    /// Opens the documents; the locks are opened by whoever needs one, so that the rest works without them.
    pub(crate) async fn open(&self) -> Result<(Mutext, Context), CliError> {
        let store = self.store.address()?;
        let locks = self.locks.as_ref().map(Given::address).transpose()?;
        let opened = Mutext::open_late(&store, locks.as_ref()).await;
        let mutext = opened.map_err(|error| self.with_origin(error, &store))?;
        let context = mutext.context(self.context.clone(), self.settings())?;
        crate::metrics::watch_queue(&context);
        Ok((mutext, context))
    }

    /// An address that names the wrong kind of engine: where it came from belongs to the error.
    fn with_origin(&self, error: mutext::Error, store: &Address) -> CliError {
        let mutext::Error::InvalidAddress { address, .. } = &error else { return error.into() };
        let of_locks = self.locks.as_ref().filter(|_| *address != store.to_string());
        let origin = of_locks.unwrap_or(&self.store).origin.to_string();
        CliError::Setting { origin, source: Box::new(error) }
    }

    /// Opens both engines for `work`, and lets everything that it gave back arrive before it returns.
    pub(crate) async fn with_context<T>(
        &self,
        work: impl AsyncFnOnce(Context) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let (mutext, context) = self.open().await?;
        let outcome = work(context).await;
        mutext.finish().await;
        outcome
    }
}

/// A relative directory in a config file lies beside the file, wherever the command is run.
fn given((url, origin): (String, Origin)) -> Given {
    let url = match &origin {
        Origin::File(path) => anchored(&url, path.parent().unwrap_or(Path::new(""))),
        _ => url,
    };
    Given { url, origin }
}

fn named<T>(
    given: Option<(String, Origin)>,
    check: impl FnOnce(String) -> Result<T, InvalidName>,
) -> Result<Option<T>, CliError> {
    let Some((text, origin)) = given else { return Ok(None) };
    let refuse = |error: InvalidName| CliError::Setting { origin: origin.to_string(), source: Box::new(error.into()) };
    check(text).map(Some).map_err(refuse)
}

/// A setting that is a number or a duration, from the environment.
fn amount<T>(name: &'static str, check: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, CliError> {
    let Some(text) = variable(name)? else { return Ok(None) };
    check(&text).map(Some).map_err(|error| CliError::input(format!("{name} is {text:?}: {error}")))
}

fn document_bytes(text: &str) -> Result<usize, String> {
    let number = text.trim().parse::<u64>().ok().filter(|number| (1..=DOCUMENT_BYTES_LIMIT).contains(number));
    let number = number.and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| format!("it must be a number from 1 to {DOCUMENT_BYTES_LIMIT}"))
}

fn retention_revisions(text: &str) -> Result<u64, String> {
    let number = text.trim().parse().ok().filter(|number| (1..=RETENTION_REVISIONS_LIMIT).contains(number));
    number.ok_or_else(|| format!("it must be a number from 1 to {RETENTION_REVISIONS_LIMIT}"))
}

/// A variable of the environment; one that is empty counts as missing.
pub(crate) fn variable(name: &'static str) -> Result<Option<String>, CliError> {
    match std::env::var(name) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => Ok(Some(text)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(CliError::input(format!("{name} is not UTF-8 text; set it anew, or unset it")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_directory_is_counted_from_its_base() {
        let base = Path::new("/home/me");
        assert_eq!(anchored("embedded:.mutext", base), "embedded:/home/me/.mutext");
        assert_eq!(anchored("embedded://x?sync=normal", base), "embedded:/home/me/x?sync=normal");
        assert_eq!(anchored("embedded:///srv/x", base), "embedded:/srv/x");
        assert_eq!(anchored("redis://h/0", base), "redis://h/0");
        assert_eq!(anchored("embedded:x", Path::new("/what?")), "embedded:x");
    }

    #[test]
    fn an_identity_holds_no_password() {
        for (url, identity) in [
            ("postgres://me:secret@host/db", "postgres://host:5432/db"),
            ("postgres://host/db?schema=x&user=me&password=secret", "postgres://host:5432/db?schema=x"),
            ("redis+unix:///run/r.sock?user=me&password=secret&db=2", "redis+unix:///run/r.sock?db=2"),
        ] {
            let given = Given { url: url.to_owned(), origin: Origin::Default };
            assert_eq!(given.identity(), identity);
        }
    }
}
