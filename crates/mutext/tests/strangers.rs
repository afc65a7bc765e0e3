//! What is said where something else answers at an engine's port, or nothing does.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mutext::{Address, Error, Mutext, TroubleKind};
use mutext_testbed::{EtcdServer, PostgresServer, RedisServer};

/// The trouble of whoever opens locks, or documents, at an address.
async fn trouble(url: &str) -> mutext::EngineError {
    let dir = tempfile::tempdir().unwrap();
    let (address, embedded): (Address, _) = (url.parse().unwrap(), Address::embedded(dir.path()));
    let opened = if url.starts_with("postgres") {
        Mutext::open(&address, None).await
    } else {
        Mutext::open(&embedded, Some(&address)).await
    };
    match opened.map(drop) {
        Err(Error::Engine(trouble)) => trouble,
        other => panic!("{url}: {other:?}"),
    }
}

/// It is told that something else answers, and what to do.
async fn is_told(url: &str, parts: &[&str]) {
    let trouble = trouble(url).await;
    let text = trouble.to_string();
    assert!(matches!(trouble.kind, TroubleKind::Misconfigured(_)), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

fn make_certificate(dir: &Path, key: &str, certificate: &str) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-keyout", key, "-out", certificate])
        .current_dir(dir)
        .output()
        .expect("openssl is installed: `apt-get install openssl`");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn tls_server(dir: &Path) -> (RedisServer, u16) {
    make_certificate(dir, "key.pem", "cert.pem");
    let file = |name: &str| dir.join(name).display().to_string();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (cert, key, text) = (file("cert.pem"), file("key.pem"), port.to_string());
    let options =
        [("tls-port", text.as_str()), ("tls-cert-file", &cert), ("tls-key-file", &key), ("tls-ca-cert-file", &cert)];
    (RedisServer::start_with(&options).unwrap(), port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_tls_or_does_not_is_told_by_what_it_answers() {
    let dir = tempfile::tempdir().unwrap();
    let (redis, tls_port) = tls_server(dir.path());
    let port = redis.port();
    // Without TLS, Redis waits for the rest of what it takes for a line.
    is_told(&format!("rediss://127.0.0.1:{port}"), &["Redis answers there, without TLS", "write redis://"]).await;
    is_told(&format!("redis://127.0.0.1:{tls_port}"), &["speaks TLS", "write rediss://"]).await;
    let locked = RedisServer::start_with(&[("requirepass", "hush")]).unwrap();
    is_told(&format!("rediss://:hush@127.0.0.1:{}", locked.port()), &["without TLS"]).await;
    let etcd = EtcdServer::start().unwrap();
    is_told(&format!("etcds://127.0.0.1:{}", etcd.port(0)), &["an HTTP server answers there, without TLS"]).await;
    is_told(&format!("etcd://127.0.0.1:{tls_port}"), &["speaks TLS", "etcds://"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_service_is_named() {
    let (redis, postgres) = (RedisServer::start().unwrap(), PostgresServer::start().unwrap());
    let etcd = EtcdServer::start().unwrap();
    let port_of = |url: String| url.rsplit_once("127.0.0.1:").unwrap().1.split('/').next().unwrap().to_owned();
    let (redis, postgres, etcd) = (redis.port(), port_of(postgres.url()), etcd.port(0));
    for scheme in ["redis", "rediss"] {
        is_told(&format!("{scheme}://127.0.0.1:{postgres}"), &["PostgreSQL answers there", "Redis server"]).await;
        is_told(&format!("{scheme}://127.0.0.1:{etcd}"), &["HTTP server answers there", "Redis server"]).await;
    }
    for mode in ["prefer", "disable", "require"] {
        let url = |port: &str| format!("postgres://anna@127.0.0.1:{port}/board?sslmode={mode}");
        is_told(&url(&redis.to_string()), &["Redis answers there", "PostgreSQL server"]).await;
        is_told(&url(&etcd.to_string()), &["HTTP server answers there", "PostgreSQL server"]).await;
    }
    is_told(&format!("etcd://127.0.0.1:{redis}"), &["Redis answers there", "etcd member"]).await;
    is_told(&format!("consul://127.0.0.1:{redis}"), &["Redis answers there", "Consul agent"]).await;
    // One of several that is another service does not speak for the others.
    let quiet = TcpListener::bind("127.0.0.1:0").unwrap();
    let quiet = quiet.local_addr().unwrap().port();
    let error = trouble(&format!("redis+cluster://127.0.0.1:{quiet},127.0.0.1:{postgres}")).await;
    assert!(!error.to_string().contains("PostgreSQL answers"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_says_what_was_waited_for() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    for (url, part) in [
        (format!("redis://127.0.0.1:{port}?connect_timeout=1"), "the first answer was waited for"),
        (format!("rediss://127.0.0.1:{port}?connect_timeout=1"), "the TLS handshake was waited for"),
        (format!("postgres://anna@127.0.0.1:{port}/board?connect_timeout=1"), "the first answer was waited for"),
    ] {
        let error = trouble(&url).await;
        assert_eq!(error.kind, TroubleKind::Unavailable);
        assert!(error.to_string().contains(part) && error.to_string().contains("another service's"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_hangs_up_is_not_said_to_be_silent() {
    let closing = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closing.local_addr().unwrap().port();
    std::thread::spawn(move || closing.incoming().for_each(drop));
    for url in [format!("redis://127.0.0.1:{port}"), format!("postgres://anna@127.0.0.1:{port}/board")] {
        let error = trouble(&url).await;
        assert_eq!(error.kind, TroubleKind::Unavailable);
        assert!(error.to_string().contains("ends them without a word"), "{error}");
    }
}

/// What the right server refuses is told as it was.
#[tokio::test(flavor = "multi_thread")]
async fn the_right_server_speaks_for_itself() {
    let redis = RedisServer::start_with(&[("requirepass", "hush")]).unwrap();
    is_told(&format!("redis://:wrong@127.0.0.1:{}", redis.port()), &["the user or the password is refused"]).await;
    let postgres = PostgresServer::start().unwrap();
    let nowhere = postgres.url().rsplit_once('/').map(|(server, _)| format!("{server}/nowhere")).unwrap();
    is_told(&nowhere, &["does not exist", "createdb"]).await;
    let gone = trouble("redis://127.0.0.1:1").await;
    assert_eq!(gone.kind, TroubleKind::Unavailable);
    assert!(!gone.to_string().contains("takes connections"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_server_has_nothing_to_write_into_its_log() {
    let postgres = PostgresServer::start().unwrap();
    let data = postgres.data();
    make_certificate(&data, "server.key", "server.crt");
    let owner = std::fs::metadata(&data).unwrap();
    for name in ["server.key", "server.crt"] {
        let file = data.join(name);
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    postgres.sql("ALTER SYSTEM SET ssl = on").unwrap();
    postgres.reload().unwrap();
    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let until = Instant::now() + Duration::from_secs(30);
    while postgres.sql(encrypted).unwrap().trim() != "t" {
        assert!(Instant::now() < until, "expected the server to speak TLS");
    }
    let nowhere = postgres.url().rsplit_once('/').map(|(server, _)| format!("{server}/nowhere")).unwrap();
    is_told(&nowhere, &["does not exist"]).await;
    postgres.sql("DO $$ BEGIN RAISE LOG 'that is all'; END $$").unwrap();
    let log = std::fs::read_to_string(postgres.socket_dir().join("log")).unwrap();
    assert!(log.contains("that is all") && log.contains("nowhere"), "{log}");
    assert!(!log.contains("could not accept") && !log.contains("startup packet"), "{log}");
}
