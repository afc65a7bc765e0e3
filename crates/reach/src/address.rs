//! The parts of addresses: `SCHEME://[LOGIN@]HOST[:PORT][,HOST[:PORT]…][/PATH][?OPTION=VALUE[&OPTION=VALUE…]]`.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// More of them would be a mistake.
const HOSTS_MAX: usize = 64;
const PREFIX_BYTES_MAX: usize = 64;

/// What else may be meant where hosts or options cannot be read.
const ENCODE: &str = ", and / ? # @ in a user or a password as %2F %3F %23 %40";

/// A password or a token, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    /// A name, or an address without brackets.
    pub name: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An IPv6 address.
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

impl Host {
    /// `HOST`, `HOST:PORT` or `[IPV6]:PORT`; `port` where it says none.
    pub fn parse(text: &str, port: u16) -> Result<Self, String> {
        // What stands before a colon that no port follows may be the user, and the rest a piece of the password.
        let wrong = || {
            if text.contains([':', '@']) {
                format!("one of its hosts has no port behind its colon; write HOST:PORT,HOST:PORT{ENCODE}")
            } else {
                format!("{text:?} is no host with or without a port; write HOST:PORT,HOST:PORT")
            }
        };
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

    /// Whether what is sent to it stays on this machine.
    pub fn is_local(&self) -> bool {
        self.name == "localhost" || self.name == "::1" || self.name.starts_with("127.")
    }
}

/// Hosts between commas, each of them once; `port` for those that say none.
pub fn hosts(text: &str, port: u16) -> Result<Vec<Host>, String> {
    let hosts = text.split(',').map(|host| Host::parse(host, port)).collect::<Result<Vec<_>, _>>()?;
    if hosts.len() > HOSTS_MAX {
        return Err(format!("it names {} hosts; {HOSTS_MAX} are enough", hosts.len()));
    }
    match (1..hosts.len()).find(|place| hosts[..*place].contains(&hosts[*place])) {
        Some(place) => Err(format!("it names {} twice; name each once", hosts[place])),
        None => Ok(hosts),
    }
}

/// Hosts as they stand in an address.
pub fn list(hosts: &[Host]) -> String {
    hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The options of what follows the `?`, decoded; an option without `=` has no value.
pub fn options(query: &str) -> impl Iterator<Item = Result<(&str, String), String>> {
    query.split('&').filter(|option| !option.is_empty()).map(|option| {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        if key.contains('@') {
            // It is shown where there is no such option, and may be a piece of a password with a `?`.
            return Err(format!("the name of an option has an `@`; write OPTION=VALUE{ENCODE}"));
        }
        Ok((key, decoded(value)?))
    })
}

/// A prefix of keys: plain enough for any server, and short.
pub fn prefix(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if text.is_empty() || text.len() > PREFIX_BYTES_MAX || !text.bytes().all(plain) {
        return Err(format!(
            "prefix {text:?} is not 1 to {PREFIX_BYTES_MAX} letters, digits, and - _ . :, as in prefix=team"
        ));
    }
    Ok(text.to_owned())
}

/// A number of seconds, also a fraction, within what the option may be.
pub fn seconds(option: &str, text: &str, range: RangeInclusive<f64>) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| range.contains(seconds));
    let seconds = seconds.ok_or_else(|| {
        format!("{option} {text:?} is not a number of seconds from {} to {}", range.start(), range.end())
    })?;
    Ok(Duration::from_secs_f64(seconds))
}

/// Undoes percent-encoding. The error does not show the text: it may be a password.
pub fn decoded(text: &str) -> Result<String, String> {
    let refuse = || "a part of it is not percent-encoded UTF-8; write %25 for a percent sign".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            let (high, low) = (digit(rest.next()).ok_or_else(refuse)?, digit(rest.next()).ok_or_else(refuse)?);
            bytes.push(u8::try_from(high * 16 + low).map_err(|_| refuse())?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| refuse())
}

/// Percent-encodes all but RFC 3986's unreserved characters.
pub fn encoded(text: &str) -> String {
    let encode = |byte: u8| {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_survive_their_text() {
        let found = hosts("a,b.example:80,[::1],[fe80::1]:6,127.0.0.1", 7).unwrap();
        assert_eq!(list(&found), "a:7,b.example:80,[::1]:7,[fe80::1]:6,127.0.0.1:7");
        assert_eq!(hosts(&list(&found), 1).unwrap(), found);
        assert_eq!(found.iter().map(Host::is_local).collect::<Vec<_>>(), [false, false, true, false, true]);
    }

    #[test]
    fn what_is_no_list_of_hosts_is_refused_with_what_would_be_right() {
        for text in ["", "a,", ",a", "a:b", "a:70000", "a:", "[::1", "[::1]x", "a/b", "a b", "[]", "user@a"] {
            assert!(hosts(text, 7).unwrap_err().contains("HOST:PORT"), "{text}");
        }
        for text in [":hush", "user:hush", "user:hush@a", "[hush:"] {
            let rule = hosts(text, 7).unwrap_err();
            assert!(rule.contains("%2F") && !rule.contains("hush"), "{text}: {rule}");
        }
        assert!(hosts("a,b,a:7", 7).unwrap_err().contains("a:7 twice"));
        let many: Vec<String> = (0..65).map(|number| format!("h{number}")).collect();
        assert!(hosts(&many.join(","), 7).unwrap_err().contains("65 hosts; 64"));
    }

    #[test]
    fn what_is_encoded_can_be_decoded_and_errors_do_not_show_it() {
        for text in ["", "plain-._~", "p@s/s:w?o#r d%+", "ä€"] {
            let code = encoded(text);
            assert!(code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)), "{code}");
            assert_eq!(decoded(&code).unwrap(), text);
        }
        for text in ["hush%", "hush%2", "hush%zz", "hush%ff"] {
            let rule = decoded(text).unwrap_err();
            assert!(rule.contains("%25") && !rule.contains("hush"), "{rule}");
        }
        assert_eq!(format!("{:?}", Secret("hush".to_owned())), "***");
    }

    #[test]
    fn options_are_taken_apart_and_read() {
        let found: Vec<_> = options("a=1&&b&c=x%26y%3Dz").map(Result::unwrap).collect();
        assert_eq!(found, [("a", "1".to_owned()), ("b", String::new()), ("c", "x&y=z".to_owned())]);
        assert!(options("a=%").any(|option| option.is_err()));
        let rule = options("hush@host").next().unwrap().unwrap_err();
        assert!(rule.contains("%3F") && !rule.contains("hush"), "{rule}");
        assert_eq!(prefix("team-1_a.b:c").unwrap(), "team-1_a.b:c");
        for text in ["", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(prefix(text).unwrap_err().contains("prefix=team"), "{text}");
        }
        assert_eq!(seconds("wait", "0.5", 0.1..=2.0).unwrap(), Duration::from_millis(500));
        for text in ["", "soon", "3", "0", "NaN", "-1", "inf"] {
            let rule = seconds("wait", text, 0.1..=2.0).unwrap_err();
            assert!(rule.starts_with("wait ") && rule.contains("from 0.1 to 2"), "{rule}");
        }
    }
}
