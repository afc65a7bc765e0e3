//! Ways to a cluster, and what is said where a way does not lead there: always within the connect deadline.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::open;
use mutext_conformance::asking::{granted, request};
use mutext_contract::{AgentName, Deadline, EngineError, LockService, Loss, Renewal, Severity, TroubleKind};
use mutext_etcd::EtcdOptions;
use mutext_testbed::EtcdServer;

const LONG: Duration = Duration::from_secs(10);

async fn works(url: &str) {
    let locks = open(url, &Arc::default()).await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
    let grant = granted(&locks, &request("anna", "plan", LONG), LONG).await;
    locks.release(&grant.lease.context, grant.lease.id(), common::soon()).await.unwrap();
}

async fn refused(url: &str) -> EngineError {
    let asked = Instant::now();
    let error = open(url, &Arc::default()).await.map(|_| ()).unwrap_err();
    assert!(asked.elapsed() < Duration::from_secs(7), "{url}: it took {:?}", asked.elapsed());
    error
}

/// Users `root` and `agents`; the role of the second is exactly what docs/engines/etcd.md gives it.
fn with_users(server: &EtcdServer) {
    let doc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/engines/etcd.md");
    let doc = std::fs::read_to_string(doc).unwrap();
    let commands: Vec<&str> = doc.lines().filter_map(|line| line.strip_prefix("etcdctl ")).collect();
    assert!(commands.iter().any(|command| command.starts_with("role grant-permission")), "{commands:?}");
    for command in commands {
        let command = command.replace("ROOT-PASSWORD", "r00t").replace("PASSWORD", "p@ss:word/1");
        let words: Vec<&str> = command.split_whitespace().collect();
        server.ctl(&words).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_their_roles_are_used() {
    let server = EtcdServer::start_with(1, &[("auth-token-ttl", "2")]).unwrap();
    with_users(&server);
    let port = server.port(0);
    let own = format!("etcd://agents:p%40ss%3Aword%2F1@127.0.0.1:{port}");
    works(&own).await;
    works(&format!("etcd://root:r00t@127.0.0.1:{port}")).await;
    // A login is forgotten after a while: whoever works on logs in again, and waiters are told all the same.
    let epochs = Arc::default();
    let (anna, bert) = (open(&own, &epochs).await.unwrap(), open(&own, &epochs).await.unwrap());
    let held = granted(&anna, &request("anna", "plan", LONG), LONG).await.lease;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let waiter = {
        let bert = Arc::clone(&bert);
        tokio::spawn(async move { granted(&bert, &request("bert", "plan", LONG), LONG).await })
    };
    mutext_conformance::asking::queued(&anna, 1).await;
    assert!(matches!(anna.renew(&held, common::soon()).await.unwrap(), Renewal::Renewed { .. }));
    let mut news = anna.losses().unwrap();
    let op = AgentName::new("op").unwrap();
    bert.revoke(&mutext_conformance::asking::context(), held.id(), &op, "enough", common::soon()).await.unwrap();
    waiter.await.unwrap();
    assert_eq!(tokio::time::timeout(LONG, news.recv()).await.unwrap().unwrap(), held.id());
    let lost = Renewal::Lost(Loss::Revoked { by: op, reason: "enough".to_owned() });
    assert_eq!(anna.renew(&held, common::soon()).await.unwrap(), lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_is_wrong_and_never_the_password() {
    let server = EtcdServer::start().unwrap();
    // Whoever gives a password to a cluster that asks for none is let in.
    works(&format!("etcd://anybody:wrong-one@127.0.0.1:{}", server.port(0))).await;
    with_users(&server);
    let port = server.port(0);
    for (url, part) in [
        (format!("etcd://root:wrong-one@127.0.0.1:{port}"), "password"),
        (format!("etcd://nobody:wrong-one@127.0.0.1:{port}"), "password"),
        (format!("etcd://127.0.0.1:{port}"), "password"),
        (format!("etcd://agents:p%40ss%3Aword%2F1@127.0.0.1:{port}?prefix=elsewhere"), "readwrite"),
    ] {
        let error = refused(&url).await;
        let text = format!("{error} {error:?}");
        let is_clear = matches!(error.kind, TroubleKind::Misconfigured(_)) && error.to_string().contains(part);
        assert!(is_clear, "{url}: {text}");
        assert!(!text.contains("wrong-one") && !text.contains("p@ss") && !text.contains("p%40ss"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_all_refuse_are_not_waited_for() {
    let until = Deadline::after(Duration::from_secs(300));
    let options = EtcdOptions::parse("etcd://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3?connect_timeout=300").unwrap();
    let error = options.open(Arc::new(mutext_conformance::Epochs::default()), until).await.unwrap_err();
    assert_eq!(error.kind, TroubleKind::Unavailable);
    assert!(until.remaining() > Duration::from_secs(60), "it was waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_or_not_one_is_told_in_time() {
    let error = refused("etcd://127.0.0.1:1,127.0.0.1:2").await;
    assert_eq!(error.kind, TroubleKind::Unavailable);
    assert!(error.to_string().contains("etcd://127.0.0.1:1,127.0.0.1:2"), "{error}");
    // Neither the client's layers nor its inner words.
    assert!(error.source.unwrap().to_string().starts_with("Connection refused"));
    // It accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = refused(&format!("etcd://127.0.0.1:{}", silent.local_addr().unwrap().port())).await;
    assert_eq!(error.kind, TroubleKind::Unavailable);
    let asked = Instant::now();
    refused("etcd://127.0.0.1:1?connect_timeout=0.2").await;
    assert!(asked.elapsed() < Duration::from_secs(2), "it took {:?}", asked.elapsed());
    // It speaks, but not this.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in other.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let error = refused(&format!("etcd://127.0.0.1:{port}")).await;
    assert_eq!(error.kind, TroubleKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_gone_is_passed_over() {
    let server = EtcdServer::start().unwrap();
    works(&format!("etcd://127.0.0.1:1,127.0.0.1:{}", server.port(0))).await;
}

fn openssl(dir: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(dir).output();
    let output = output.expect("openssl is installed: `apt-get install openssl`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and a certificate that it signed for this machine's loopback address.
fn certificates(dir: &Path) {
    let request = ["req", "-newkey", "rsa:2048", "-nodes", "-subj"];
    let own = [&request[..], &["/CN=authority", "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"]].concat();
    openssl(dir, &own);
    let asked = [&request[..], &["/CN=localhost", "-keyout", "key.pem", "-out", "asked.pem"]].concat();
    openssl(dir, &asked);
    let extensions = "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n";
    std::fs::write(dir.join("extensions"), extensions).unwrap();
    let sign = ["x509", "-req", "-in", "asked.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
    let signed = ["-days", "2", "-extfile", "extensions", "-out", "cert.pem"];
    openssl(dir, &[&sign[..], &signed[..]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_used_and_certificates_are_checked_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (authority, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    let options = [("cert-file", cert.as_str()), ("key-file", &key)];
    let server = EtcdServer::start_with(1, &options).unwrap();
    let port = server.port(0);
    works(&format!("{}?tls_ca={authority}", server.url())).await;
    works(&format!("etcds://localhost:{port}?tls_ca={authority}")).await;
    // The system's roots do not know this authority.
    let error = refused(&server.url()).await;
    let is_clear = matches!(error.kind, TroubleKind::Misconfigured(_)) && error.to_string().contains("tls_ca");
    assert!(is_clear, "{error:?}");
    let error = refused(&format!("{}?tls_ca={}", server.url(), file("nothing.pem"))).await;
    assert!(error.to_string().contains("nothing.pem"), "{error}");
    // Without TLS it does not speak.
    let error = refused(&format!("etcd://127.0.0.1:{port}")).await;
    assert_eq!(error.kind, TroubleKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("etcds://"), "{error}");

    let strict = [&options[..], &[("trusted-ca-file", authority.as_str()), ("client-cert-auth", "true")]].concat();
    let server = EtcdServer::start_with(1, &strict).unwrap();
    works(&format!("{}?tls_ca={authority}&tls_cert={cert}&tls_key={key}", server.url())).await;
    let error = refused(&format!("{}?tls_ca={authority}", server.url())).await;
    assert!(error.to_string().contains("tls_cert"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_examination_finds_what_endangers_locks() {
    let server = EtcdServer::start_with(1, &[("quota-backend-bytes", "2097152")]).unwrap();
    let locks = open(&server.url(), &Arc::default()).await.unwrap();
    let of = |findings: &[mutext_contract::Finding], subject: &str| {
        findings
            .iter()
            .find(|finding| finding.subject == subject)
            .map(|finding| (finding.severity, finding.found.clone()))
    };
    let findings = locks.examine(common::soon()).await.unwrap();
    let (severity, found) = of(&findings, "server").unwrap();
    assert!(severity == Severity::Fine && found.contains("leader"), "{found}");
    assert_eq!(of(&findings, "members").unwrap().0, Severity::Note);
    assert_eq!(of(&findings, "alarms").unwrap().0, Severity::Fine);
    // Full: it says so, and so does whoever is refused by it.
    let big = "x".repeat(100_000);
    for number in 0..40 {
        let _ = server.ctl(&["put", &format!("big/{number}"), &big]);
    }
    let findings = locks.examine(common::soon()).await.unwrap();
    assert_eq!(of(&findings, "alarms").unwrap().0, Severity::Danger, "{findings:?}");
    let error = locks.acquire(&request("anna", "plan", LONG), common::soon()).await.unwrap_err();
    assert_eq!(error.kind, TroubleKind::Full, "{error}");
}
