//! Ways to a server, and what is said where a way does not lead there: always within the connect deadline.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::open;
use mutext_conformance::asking::{granted, request};
use mutext_contract::{EngineError, LockService, Severity, TroubleKind};
use mutext_testbed::RedisServer;

const LONG: Duration = Duration::from_secs(10);

async fn works(url: &str) {
    let locks = open(url, &Arc::default()).await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
    let grant = granted(&locks, &request("anna", "plan", LONG), LONG).await;
    locks.release(&grant.lease.context, grant.lease.id(), common::soon()).await.unwrap();
}

async fn refused(url: &str) -> EngineError {
    let asked = Instant::now();
    let error = open(url, &Arc::default()).await.map(|_| ()).unwrap_err();
    assert!(asked.elapsed() < Duration::from_secs(6), "{url}: it took {:?}", asked.elapsed());
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_users_databases_and_sockets_are_used() {
    let server = RedisServer::start_with(&[("requirepass", "p@ss:word/1")]).unwrap();
    let port = server.port();
    works(&format!("redis://:p%40ss%3Aword%2F1@127.0.0.1:{port}/3")).await;
    works(&format!("redis+unix://{}?db=2&password=p%40ss%3Aword%2F1", server.socket().display())).await;
    // Exactly what conf/redis.conf gives its user.
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf/redis.conf");
    let conf = std::fs::read_to_string(conf).unwrap();
    let rule = conf.lines().find_map(|line| line.strip_prefix("# user mutext on >PASSWORD ")).unwrap();
    let mut rules = vec!["ACL", "SETUSER", "agents", "on", ">secret"];
    rules.extend(rule.split(' '));
    server.cli(&rules).unwrap();
    works(&format!("redis://agents:secret@127.0.0.1:{port}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_is_wrong_and_never_the_password() {
    let server = RedisServer::start_with(&[("requirepass", "right")]).unwrap();
    let port = server.port();
    for (url, part) in [
        (format!("redis://:wrong-one@127.0.0.1:{port}"), "password"),
        (format!("redis://nobody:wrong-one@127.0.0.1:{port}"), "password"),
        (format!("redis://127.0.0.1:{port}"), "password"),
        (format!("redis://:right@127.0.0.1:{port}/99"), "database"),
    ] {
        let error = refused(&url).await;
        let text = format!("{error} {error:?}");
        assert!(
            matches!(error.kind, TroubleKind::Misconfigured(_)) && error.to_string().contains(part),
            "{url}: {text}"
        );
        assert!(!text.contains("wrong-one") && !text.contains(":right"), "{text}");
    }
    server.cli(&["ACL", "SETUSER", "weak", "on", ">x", "~*", "&*", "+@all", "-@scripting"]).unwrap();
    let locks = open(&format!("redis://weak:x@127.0.0.1:{port}"), &Arc::default()).await.unwrap();
    let error = locks.acquire(&request("anna", "plan", LONG), common::soon()).await.unwrap_err();
    assert!(error.to_string().contains("may not"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_or_not_one_is_told_in_time() {
    let error = refused("redis://127.0.0.1:1").await;
    assert_eq!(error.kind, TroubleKind::Unavailable);
    assert!(error.to_string().contains("redis://127.0.0.1:1/0"), "{error}");
    // It accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = refused(&format!("redis://127.0.0.1:{}", silent.local_addr().unwrap().port())).await;
    assert_eq!(error.kind, TroubleKind::Unavailable);
    let error = refused("redis+unix:///nonexistent/redis.sock").await;
    assert_eq!(error.kind, TroubleKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_refused_and_its_primary_named() {
    let primary = RedisServer::start().unwrap();
    let port = primary.port();
    let replica = RedisServer::start_with(&[("replicaof", &format!("127.0.0.1 {port}"))]).unwrap();
    let error = refused(&replica.url()).await;
    assert_eq!(error.kind, TroubleKind::ReadOnly);
    let source = error.source.as_ref().unwrap().to_string();
    assert!(source.contains(&port.to_string()), "{source}");
}

fn certificate(dir: &Path) {
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args([
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ])
        .current_dir(dir)
        .output()
        .expect("openssl is installed: `apt-get install openssl`");
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_used_and_its_certificate_checked() {
    let dir = tempfile::tempdir().unwrap();
    certificate(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let options = [
        ("tls-port", port.as_str()),
        ("tls-cert-file", &cert),
        ("tls-key-file", &key),
        ("tls-ca-cert-file", &cert),
        ("tls-auth-clients", "no"),
    ];
    let _server = RedisServer::start_with(&options).unwrap();
    works(&format!("rediss://localhost:{port}/0?tls_ca={cert}")).await;
    // The system's roots do not know this certificate.
    let error = refused(&format!("rediss://localhost:{port}/0")).await;
    assert!(format!("{error:?}").to_lowercase().contains("certificate"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_examination_finds_what_endangers_locks() {
    let endangered = RedisServer::start_with(&[("maxmemory", "100mb"), ("maxmemory-policy", "allkeys-lru")]).unwrap();
    let locks = open(&endangered.url(), &Arc::default()).await.unwrap();
    let findings = locks.examine(common::soon()).await.unwrap();
    let of = |subject: &str| findings.iter().find(|finding| finding.subject == subject).unwrap();
    assert_eq!(of("maxmemory-policy").severity, Severity::Danger);
    assert!(of("maxmemory-policy").remedy.contains("noeviction"));
    assert_eq!(of("appendonly").severity, Severity::Warning);
    assert_eq!(of("server").severity, Severity::Fine);

    let safe = [("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", "noeviction")];
    let safe = RedisServer::start_with(&safe).unwrap();
    let locks = open(&safe.url(), &Arc::default()).await.unwrap();
    let findings = locks.examine(common::soon()).await.unwrap();
    let worst = findings.iter().map(|finding| finding.severity).max().unwrap();
    assert_eq!(worst, Severity::Fine, "{findings:#?}");
}
