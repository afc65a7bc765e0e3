//! What answers where an engine does not: another service, or the right one with or without TLS.
//!
//! Whoever names the wrong port often meets silence: a server that is asked in another's words waits for the rest of
//! them. So where opening takes long, or fails, the port is asked a few questions, first in the words that are wanted and
//! then in those of others, each on a connection of its own. None of them says who asks, and none changes anything.

use std::time::Duration;

use mutext_contract::{Deadline, EngineError, TroubleKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// Most engines are open by then, and nothing is asked.
const PROMPT: Duration = Duration::from_millis(500);
/// What is not open by then is asked in others' words. The right server takes them for garbage and may log them: one
/// that is only slow is not asked so.
const SLOW: Duration = Duration::from_secs(2);
/// How long the question in the words that are wanted waits for its answer, and how long the others do after it.
const FIRST: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(1);
/// An answer is known by its first words; so much of it is read.
const ANSWER_BYTES_MAX: usize = 512;
/// How long what follows the first words of an answer is waited for.
const REST: Duration = Duration::from_millis(100);

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    Redis,
    Postgres,
    Http,
    Tls,
    Ssh,
}

impl Speech {
    const fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis",
            Self::Postgres => "PostgreSQL",
            Self::Http => "an HTTP server",
            Self::Tls => "a server that speaks TLS",
            Self::Ssh => "an SSH server",
        }
    }
}

/// A request that HTTP refuses with a line, and Redis with an error.
const LINE: &[u8] = b"OPTIONS * HTTP/1.0\r\n\r\n";
/// Whether PostgreSQL would go on with Kerberos: it answers with one letter. Nothing that it answers makes it complain
/// when the connection then ends; after its yes to TLS it would.
const GSS_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 48];
/// The begin of a handshake with one suite of TLS 1.2 and nothing else: whoever speaks TLS goes on, or says why not.
const CLIENT_HELLO: &[u8] = &[
    22, 3, 1, 0, 47, 1, 0, 0, 43, 3, 3, // a record of 47 bytes, a hello of 43, TLS 1.2
    77, 117, 116, 101, 120, 116, 32, 97, 115, 107, 115, 32, 119, 104, 97, 116, // what should be random: no secret
    32, 97, 110, 115, 119, 101, 114, 115, 32, 104, 101, 114, 101, 32, 46, 46, // is agreed on
    0, 0, 4, 192, 47, 0, 255, 1, 0, // no session, two suites, no compression
];

/// In whose words a port is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    /// Those of the engine that is to be there.
    Wanted,
    /// Where these are not answered, others' as well.
    All,
}

/// What is at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Says(Speech),
    /// Connections are taken, and nothing is said that is known here.
    Silent,
    /// Connections are taken, and ended without a word.
    HangsUp,
    Unreachable,
}

/// Where an engine is to be, and what it is to speak there.
#[derive(Debug)]
struct Wanted {
    address: String,
    engine: &'static str,
    speech: Speech,
    ports: Vec<(String, u16)>,
}

/// Opens what is at `address`. Where something else answers there, that is the error, as soon as it is known; where
/// nothing does, the error says what was waited for. Nobody is asked any longer than until the deadline.
pub(crate) async fn or_stranger<T, E: From<EngineError> + AsTrouble>(
    address: &str,
    deadline: Deadline,
    opening: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let Some(wanted) = Wanted::at(address) else { return opening.await };
    let (mut opening, begun) = (std::pin::pin!(opening), Instant::now());
    let mut seen = Seen::Unreachable;
    for (pause, words) in [(PROMPT, Words::Wanted), (SLOW, Words::All)] {
        let look = async {
            sleep_until(begun + pause).await;
            wanted.look(words).await
        };
        seen = tokio::select! {
            biased;
            outcome = &mut opening => return wanted.told(outcome, seen, deadline).await,
            seen = look => seen,
        };
        match seen {
            Seen::Says(other) if other != wanted.speech => return Err(wanted.refused(other).into()),
            // It is what it should be, and takes its time.
            Seen::Says(_) => break,
            _ => {}
        }
    }
    opening.await.map_err(|error| wanted.explained(error, seen))
}

/// An error that may be trouble with an engine.
pub(crate) trait AsTrouble: std::error::Error + Send + Sync + 'static {
    fn as_trouble(&mut self) -> Option<&mut EngineError>;

    /// Whether it is one of those that the wrong port gives.
    fn may_be_of_a_stranger(&self) -> bool;
}

impl AsTrouble for EngineError {
    fn as_trouble(&mut self) -> Option<&mut EngineError> {
        Some(self)
    }

    fn may_be_of_a_stranger(&self) -> bool {
        matches!(self.kind, TroubleKind::Unavailable | TroubleKind::Misconfigured(_) | TroubleKind::Failed(_))
    }
}

impl AsTrouble for crate::Error {
    fn as_trouble(&mut self) -> Option<&mut EngineError> {
        if let Self::Engine(trouble) = self { Some(trouble) } else { None }
    }

    fn may_be_of_a_stranger(&self) -> bool {
        matches!(self, Self::Engine(trouble) if trouble.may_be_of_a_stranger())
    }
}

impl Wanted {
    /// What an address without its password wants; none where it names no port.
    fn at(address: &str) -> Option<Self> {
        let (scheme, rest) = address.split_once("://")?;
        let (engine, speech) = match scheme {
            "redis" | "redis+sentinel" | "redis+cluster" | "redlock" => ("Redis", Speech::Redis),
            "rediss" | "rediss+sentinel" | "rediss+cluster" | "redlocks" => ("Redis", Speech::Tls),
            "postgres" | "postgresql" => ("PostgreSQL", Speech::Postgres),
            "etcd" => ("etcd", Speech::Http),
            "etcds" => ("etcd", Speech::Tls),
            "consul" => ("Consul", Speech::Http),
            "consuls" => ("Consul", Speech::Tls),
            _ => return None,
        };
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
        let port = |host: &str| {
            let (name, port) = host.rsplit_once(':')?;
            Some((name.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
        };
        let ports = hosts.split(',').map(port).collect::<Option<Vec<_>>>().filter(|ports| !ports.is_empty())?;
        Some(Self { address: address.to_owned(), engine, speech, ports })
    }

    /// How opening ended; where it failed, with what is at the ports, or was seen there so far.
    async fn told<T, E: From<EngineError> + AsTrouble>(
        &self,
        outcome: Result<T, E>,
        seen: Seen,
        deadline: Deadline,
    ) -> Result<T, E> {
        match outcome {
            Err(error) if error.may_be_of_a_stranger() => {
                let look = timeout_at(deadline.instant(), self.look(Words::All));
                let seen = if deadline.has_passed() { seen } else { look.await.unwrap_or(seen) };
                Err(self.explained(error, seen))
            }
            outcome => outcome,
        }
    }

    /// What is at the ports: something else only where all of them say so.
    async fn look(&self, words: Words) -> Seen {
        let mut looks = JoinSet::new();
        for (host, port) in self.ports.clone() {
            looks.spawn(look_at(host, port, self.speech, words));
        }
        let seen = looks.join_all().await;
        let strange = |seen: &Seen| matches!(seen, Seen::Says(other) if *other != self.speech);
        let first = seen.iter().find(|seen| !strange(seen)).or(seen.first());
        let serves = seen.contains(&Seen::Says(self.speech));
        let mute = seen.iter().find(|seen| matches!(seen, Seen::Silent | Seen::HangsUp) && !serves);
        mute.or(first).copied().unwrap_or(Seen::Unreachable)
    }

    /// Something else answers.
    fn refused(&self, other: Speech) -> EngineError {
        let bare = self.speech == Speech::Tls && matches!(other, Speech::Redis | Speech::Http);
        let how = if bare { ", without TLS" } else { "" };
        let kind = TroubleKind::Misconfigured(format!("{} answers there{how}", other.name()));
        let remedy = match (self.engine, self.speech, other) {
            ("Redis", Speech::Tls, Speech::Redis) => {
                "write redis:// instead of rediss://, or name the port on which it speaks TLS"
            }
            ("Redis", Speech::Redis, Speech::Tls) => "if it is Redis, write rediss:// instead of redis://",
            ("etcd", Speech::Tls, Speech::Http) => "if it is etcd, write etcd:// instead of etcds://",
            ("etcd", Speech::Http, Speech::Tls) => "if it is etcd, write etcds:// instead of etcd://",
            ("Consul", Speech::Tls, Speech::Http) => "if it is Consul, write consul:// instead of consuls://",
            ("Consul", Speech::Http, Speech::Tls) => "if it is Consul, write consuls:// instead of consul://",
            ("Redis", ..) => "name the host and the port of a Redis server, as in redis://HOST:6379",
            ("PostgreSQL", ..) => {
                "name the host and the port of a PostgreSQL server, as in postgres://HOST:5432/DATABASE"
            }
            ("etcd", ..) => "name the host and the client port of an etcd member, as in etcd://HOST:2379",
            _ => "name the host and the port of a Consul agent, as in consul://HOST:8500",
        };
        EngineError::new(self.address.as_str(), kind, remedy)
    }

    /// The error, with what was seen.
    fn explained<E: From<EngineError> + AsTrouble>(&self, mut error: E, seen: Seen) -> E {
        match (seen, error.as_trouble()) {
            (Seen::Says(other), _) if other != self.speech => self.refused(other).caused_by(error).into(),
            (Seen::HangsUp, Some(trouble)) if trouble.kind == TroubleKind::Unavailable => {
                trouble.remedy = "the port takes connections and ends them without a word: see that the server behind it \
                                  runs, and that the port is not another service's";
                error
            }
            (Seen::Silent, Some(trouble)) if trouble.kind == TroubleKind::Unavailable => {
                trouble.remedy = match self.speech {
                    Speech::Tls => {
                        "the port takes connections and does not answer, and the TLS handshake was waited for: see that \
                         the server is not stuck, that it speaks TLS there, and that the port is not another service's"
                    }
                    _ => {
                        "the port takes connections and does not answer, and the first answer was waited for: see that \
                         the server is not stuck, that it speaks without TLS there, and that the port is not another \
                         service's"
                    }
                };
                error
            }
            _ => error,
        }
    }
}

/// The question to whoever speaks so.
const fn question(speech: Speech) -> &'static [u8] {
    match speech {
        Speech::Postgres => GSS_REQUEST,
        Speech::Tls => CLIENT_HELLO,
        Speech::Redis | Speech::Http | Speech::Ssh => LINE,
    }
}

/// Asks in the words that are wanted, and in others only where these are not answered: a server that is what it should
/// be is not troubled, and has nothing to write into its log.
async fn look_at(host: String, port: u16, wanted: Speech, words: Words) -> Seen {
    let first = ask(&host, port, question(wanted), FIRST).await;
    if words == Words::Wanted || !matches!(first, Seen::Silent | Seen::HangsUp) {
        return first;
    }
    let others = [LINE, GSS_REQUEST, CLIENT_HELLO].into_iter().filter(|other| *other != question(wanted));
    let mut asked = JoinSet::new();
    for question in others {
        let host = host.clone();
        asked.spawn(async move { ask(&host, port, question, PATIENCE).await });
    }
    while let Some(answer) = asked.join_next().await {
        if let Ok(Seen::Says(speech)) = answer {
            return Seen::Says(speech);
        }
    }
    first
}

async fn ask(host: &str, port: u16, question: &[u8], patience: Duration) -> Seen {
    let Ok(Ok(mut stream)) = timeout(PATIENCE, TcpStream::connect((host, port))).await else {
        return Seen::Unreachable;
    };
    let mut answer = Vec::new();
    let asked = async {
        stream.write_all(question).await?;
        stream.read_buf(&mut answer).await
    };
    match timeout(patience, asked).await {
        Err(_) => return Seen::Silent,
        Ok(Ok(0) | Err(_)) => return Seen::HangsUp,
        Ok(Ok(_)) => {}
    }
    // A server of TLS may say in words of HTTP that it is one.
    while answer.starts_with(b"HTTP") && answer.len() < ANSWER_BYTES_MAX {
        if !matches!(timeout(REST, stream.read_buf(&mut answer)).await, Ok(Ok(1..))) {
            break;
        }
    }
    recognised(question, &answer).map_or(Seen::Silent, Seen::Says)
}

/// Who answers a question so; none where that may be anybody.
fn recognised(question: &[u8], answer: &[u8]) -> Option<Speech> {
    match answer {
        [b'N' | b'G'] if question == GSS_REQUEST => Some(Speech::Postgres),
        // An error of PostgreSQL, with its length.
        [b'E', 0, ..] => Some(Speech::Postgres),
        // A handshake, or the alert that ends it.
        [21 | 22, 3, ..] => Some(Speech::Tls),
        [b'S', b'S', b'H', b'-', ..] => Some(Speech::Ssh),
        [b'-', b'A'..=b'Z', b'A'..=b'Z', ..] => Some(Speech::Redis),
        [b'H', b'T', b'T', b'P', b'/', ..] => {
            let says_tls = answer.windows(5).any(|word| word == b"HTTPS");
            Some(if says_tls { Speech::Tls } else { Speech::Http })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_ports_of_an_address_are_found_behind_its_login() {
        let ports = |address: &str| Wanted::at(address).map(|wanted| wanted.ports);
        let port = |host: &str, port| (host.to_owned(), port);
        assert_eq!(ports("redis://a:***@h:1/0"), Some(vec![port("h", 1)]));
        assert_eq!(ports("rediss+sentinel://h:1,[::1]:2/s?min_replicas=1"), Some(vec![port("h", 1), port("::1", 2)]));
        assert_eq!(ports("postgres://anna@db.example:5432/board?schema=a:b"), Some(vec![port("db.example", 5432)]));
        assert_eq!(ports("redis+unix:///run/redis.sock"), None);
        assert_eq!(ports("embedded:/srv/a:1"), None);
    }

    /// A port that takes connections, says nothing, and tells what it was asked, in the order of the connections.
    struct Silent {
        wanted: Wanted,
        asked: mpsc::Receiver<Vec<u8>>,
    }

    impl Silent {
        fn start() -> Self {
            let (listener, (tell, asked)) = (TcpListener::bind("127.0.0.1:0").unwrap(), mpsc::channel());
            let port = listener.local_addr().unwrap().port();
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let mut question = Vec::new();
                    let _ = stream.read_to_end(&mut question);
                    let _ = tell.send(question);
                }
            });
            Self { wanted: Wanted::at(&format!("postgres://127.0.0.1:{port}/board")).unwrap(), asked }
        }

        /// What it was asked since the last time.
        async fn asked(&self) -> Vec<Vec<u8>> {
            // Questions that were given up end their connections.
            tokio::task::yield_now().await;
            let (host, port) = &self.wanted.ports[0];
            std::net::TcpStream::connect((host.as_str(), *port)).unwrap().write_all(b"end").unwrap();
            self.asked.iter().take_while(|question| question != b"end").collect()
        }
    }

    fn unavailable() -> EngineError {
        EngineError::new("postgres://here", TroubleKind::Unavailable, "")
    }

    #[tokio::test]
    async fn a_server_that_is_only_slow_is_not_asked_in_the_words_of_others() {
        let (silent, deadline) = (Silent::start(), Deadline::after(PATIENCE * 60));
        let slow = async {
            tokio::time::sleep(PROMPT * 3).await;
            Ok::<_, EngineError>(())
        };
        or_stranger(&silent.wanted.address, deadline, slow).await.unwrap();
        assert!(silent.asked().await.iter().all(|question| question == GSS_REQUEST));
        // One that has failed has nothing to lose.
        let failed = async { Err::<(), _>(unavailable()) };
        let error = or_stranger(&silent.wanted.address, deadline, failed).await.unwrap_err();
        assert!(error.remedy.contains("does not answer"), "{error}");
        assert!(silent.asked().await.iter().any(|question| question == LINE));
    }

    #[tokio::test]
    async fn nobody_is_asked_after_the_deadline() {
        let silent = Silent::start();
        let failed = async { Err::<(), _>(unavailable()) };
        // Others' words come after the first have not been answered for so long.
        assert!(or_stranger(&silent.wanted.address, Deadline::after(FIRST / 6), failed).await.is_err());
        assert!(silent.asked().await.iter().all(|question| question == GSS_REQUEST));
    }

    #[test]
    fn what_opening_failed_of_is_the_cause() {
        let wanted = Wanted::at("redis://h:1").unwrap();
        let error = wanted.explained(unavailable(), Seen::Says(Speech::Postgres));
        assert!(error.to_string().contains("PostgreSQL answers there"), "{error}");
        assert_eq!(error.source().unwrap().to_string(), unavailable().to_string());
    }

    #[test]
    fn an_answer_is_known_by_its_first_words() {
        for (question, answer, speech) in [
            (LINE, "-ERR unknown command 'OPTIONS'", Some(Speech::Redis)),
            (LINE, "-NOAUTH Authentication required.", Some(Speech::Redis)),
            (LINE, "HTTP/1.1 404 Not Found", Some(Speech::Http)),
            (
                LINE,
                "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.",
                Some(Speech::Tls),
            ),
            (LINE, "\u{15}\u{3}\u{1}\u{0}\u{2}", Some(Speech::Tls)),
            (LINE, "SSH-2.0-OpenSSH_9.2", Some(Speech::Ssh)),
            (GSS_REQUEST, "N", Some(Speech::Postgres)),
            (GSS_REQUEST, "G", Some(Speech::Postgres)),
            (LINE, "G", None),
            (LINE, "220 mail.example ESMTP", None),
        ] {
            assert_eq!(recognised(question, answer.as_bytes()), speech, "{answer}");
        }
    }
}
