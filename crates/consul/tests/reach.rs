//! Tokens, TLS, and what the doctor says.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use common::{Epochs, open, soon, two};
use mutext_conformance::asking::{context, granted, request};
use mutext_contract::{LockService, Severity, TroubleKind};
use mutext_testbed::ConsulServer;

const TTL: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(20);
const ROOT: &str = "00000000-0000-4000-8000-000000000001";

/// A server on which nobody may do anything without a token.
fn guarded() -> &'static ConsulServer {
    static SERVER: OnceLock<ConsulServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        let acl = r#"{"acl": {"enabled": true, "default_policy": "deny", "tokens": {"master": "TOKEN"}}}"#;
        let mut server = ConsulServer::start_with(&acl.replace("TOKEN", ROOT)).unwrap();
        server.use_token(ROOT);
        // Tokens are known a little later than the leader is.
        let until = std::time::Instant::now() + LONG;
        while server.cli(&["acl", "token", "list"]).is_err() {
            assert!(std::time::Instant::now() < until, "expected the root token to be known");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    })
}

/// A token with these rules.
fn token(server: &ConsulServer, name: &str, rules: &str) -> String {
    server.cli(&["acl", "policy", "create", "-name", name, "-rules", rules]).unwrap();
    let made = server.cli(&["acl", "token", "create", "-policy-name", name, "-format", "json"]).unwrap();
    made.split("\"SecretID\":").nth(1).and_then(|rest| rest.split('"').nth(1)).unwrap().to_owned()
}

fn with_token(server: &ConsulServer, token: &str) -> String {
    server.url().replace("consul://", &format!("consul://:{token}@"))
}

const RULES: &str = r#"key_prefix "mutext/" { policy = "write" } session_prefix "" { policy = "write" }"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_the_rules_that_the_guide_names_is_enough() {
    let server = guarded();
    let token = token(server, "enough", RULES);
    let (anna, bert) = two(&with_token(server, &token)).await;
    let lease = granted(&anna, &request("anna", "plan", TTL), LONG).await.lease;
    let waiter = common::waiting(&bert, "bert", "plan");
    mutext_conformance::asking::queued(&anna, 1).await;
    anna.release(&context(), lease.id(), soon()).await.unwrap();
    common::served(waiter, LONG).await;
    let findings = anna.examine(soon()).await.unwrap();
    assert!(findings.iter().all(|finding| finding.severity < Severity::Danger), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_file_is_read() {
    let server = guarded();
    let token = token(server, "from-a-file", RULES);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), format!("{token}\n")).unwrap();
    let url = format!("{}?token_file={}", server.url(), dir.path().join("token").display());
    let locks = open(&url, &Arc::<Epochs>::default()).await.unwrap();
    granted(&locks, &request("anna", "from/a/file", TTL), LONG).await;
    let missing = open(&format!("{}?token_file=/no/such/file", server.url()), &Arc::<Epochs>::default()).await;
    let error = missing.unwrap_err().to_string();
    assert!(error.contains("/no/such/file"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_refused_and_never_shown() {
    let server = guarded();
    let wrong = "11111111-1111-4111-8111-111111111111";
    let error = open(&with_token(server, wrong), &Arc::<Epochs>::default()).await.unwrap_err();
    let said = error.to_string();
    assert!(matches!(error.kind, TroubleKind::Misconfigured(_)), "{said}");
    assert!(said.contains("does not know the token") && !said.contains(wrong), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_may_too_little_says_what_it_needs() {
    let server = guarded();
    let read_only = token(server, "reader", r#"key_prefix "mutext/" { policy = "read" }"#);
    let locks = open(&with_token(server, &read_only), &Arc::<Epochs>::default()).await.unwrap();
    locks.inspect(&context(), soon()).await.expect("it may look");
    let error = locks.acquire(&request("anna", "plan", TTL), soon()).await.unwrap_err();
    assert!(matches!(error.kind, TroubleKind::Misconfigured(_)), "{error}");
    assert!(error.to_string().contains("session_prefix"), "{error}");
}

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output();
    let output = output.expect("openssl is installed: `apt-get install openssl`");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_agreed_on_with_whom_the_authority_vouches_for_and_with_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    for name in ["root", "stranger"] {
        openssl(
            at,
            &format!("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem"),
        );
    }
    openssl(
        at,
        "req -newkey rsa:2048 -nodes -subj /CN=server -addext subjectAltName=DNS:localhost -keyout server.key -out server.csr",
    );
    openssl(
        at,
        "x509 -req -in server.csr -CA root.pem -CAkey root.key -CAcreateserial -copy_extensions copy -days 2 -out server.crt",
    );
    let file = |name: &str| at.join(name).display().to_string();
    let settings = format!(r#"{{"cert_file": "{}", "key_file": "{}"}}"#, file("server.crt"), file("server.key"));
    let server = ConsulServer::start_with(&settings).unwrap();
    let url = |host: &str, ca: &str| format!("consuls://{host}:{}?tls_ca={}", server.tls_port(), file(ca));

    let locks = open(&url("localhost", "root.pem"), &Arc::<Epochs>::default()).await.unwrap();
    let lease = granted(&locks, &request("anna", "plan", TTL), LONG).await.lease;
    locks.release(&context(), lease.id(), soon()).await.unwrap();

    for (host, ca) in [("localhost", "stranger.pem"), ("127.0.0.1", "root.pem")] {
        let error = open(&url(host, ca), &Arc::<Epochs>::default()).await.unwrap_err();
        assert!(matches!(error.kind, TroubleKind::Misconfigured(_)), "{host}, {ca}: {error}");
    }
    let plain = format!("consul://localhost:{}", server.tls_port());
    let error = open(&plain, &Arc::<Epochs>::default()).await.unwrap_err();
    assert!(error.to_string().contains("consuls://"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_said_with_where_it_was_looked() {
    let error = open("consul://127.0.0.1:1", &Arc::<Epochs>::default()).await.unwrap_err();
    assert_eq!(error.kind, TroubleKind::Unavailable);
    assert!(error.to_string().contains("consul://127.0.0.1:1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_names_version_servers_and_what_a_dev_agent_forgets() {
    let server = ConsulServer::start().unwrap();
    let (anna, _) = two(&server.url()).await;
    let findings = anna.examine(soon()).await.unwrap();
    let found = |subject: &str| findings.iter().find(|finding| finding.subject == subject).unwrap();
    assert!(found("agent").found.starts_with("Consul 1."), "{findings:?}");
    assert_eq!(found("data").severity, Severity::Warning);
    assert_eq!(found("servers").found, "one");
    assert!(findings.iter().all(|finding| finding.severity < Severity::Danger), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_shorter_than_the_servers_allow_says_what_to_change() {
    let server = ConsulServer::start().unwrap();
    let locks = open(&format!("{}?session_ttl=2", server.url()), &Arc::<Epochs>::default()).await.unwrap();
    let error = locks.acquire(&request("anna", "plan", TTL), soon()).await.unwrap_err();
    assert!(matches!(error.kind, TroubleKind::Misconfigured(_)), "{error}");
    assert!(error.to_string().contains("session_ttl"), "{error}");
}
