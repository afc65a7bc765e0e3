//! TLS, as each `sslmode` asks for it.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use mutext_contract::{DocumentStore, EngineError, Precondition, TroubleKind};
use mutext_testbed::PostgresServer;

use crate::support::{committed, context, fresh_schema, options, put, soon, started};

struct Encrypted {
    server: PostgresServer,
    root: PathBuf,
    stranger: PathBuf,
}

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output();
    let output = output.expect("openssl is installed: `apt-get install openssl`");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes `name.pem` and `name.key`: an authority.
fn authority(dir: &Path, name: &str) {
    let subject = format!("-subj /CN={name} -keyout {name}.key -out {name}.pem");
    openssl(dir, &format!("req -x509 -newkey rsa:2048 -nodes -days 2 {subject}"));
}

/// A server with a certificate for `localhost`, the authority that signed it, and one that did not.
fn encrypted() -> &'static Encrypted {
    static SERVER: OnceLock<Encrypted> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = started();
        let data = server.data();
        for name in ["root", "stranger"] {
            authority(&data, name);
        }
        let request = "-subj /CN=server -addext subjectAltName=DNS:localhost -keyout server.key -out server.csr";
        openssl(&data, &format!("req -newkey rsa:2048 -nodes {request}"));
        let signed = "-CA root.pem -CAkey root.key -CAcreateserial -copy_extensions copy -days 2 -out server.crt";
        openssl(&data, &format!("x509 -req -in server.csr {signed}"));
        let owner = fs::metadata(&data).unwrap();
        for name in ["server.crt", "server.key"] {
            let file = data.join(name);
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        server.sql("ALTER SYSTEM SET ssl = on").unwrap();
        server.reload().unwrap();
        let (root, stranger) = (data.join("root.pem"), data.join("stranger.pem"));
        Encrypted { server, root, stranger }
    })
}

impl Encrypted {
    /// Opens a store at `host` and asks the server whether the session is encrypted.
    async fn open(&self, host: &str, how: &str) -> Result<bool, EngineError> {
        let schema = fresh_schema();
        let url = format!("postgres://postgres@{host}:{}/postgres?schema={schema}&{how}", self.server.port());
        let store = options(&url).open(soon()).await?;
        committed(&*store, &context("board"), &put("plan.md", "x", Precondition::Absent)).await;
        let findings = store.examine(soon()).await?;
        let encryption = findings.into_iter().find(|finding| finding.subject == "encryption").unwrap();
        Ok(encryption.found.starts_with("TLS"))
    }

    async fn refusal(&self, host: &str, how: &str) -> String {
        let error = self.open(host, how).await.expect_err("the connection to be refused");
        assert!(matches!(error.kind, TroubleKind::Misconfigured(_)), "{error}");
        assert!(!error.remedy.is_empty(), "{error}");
        error.to_string()
    }
}

fn verified_by(mode: &str, root: &Path) -> String {
    format!("sslmode={mode}&sslrootcert={}", root.display())
}

#[tokio::test]
async fn each_mode_encrypts_as_it_says() {
    let server = encrypted();
    assert!(!server.open("127.0.0.1", "sslmode=disable").await.unwrap());
    assert!(server.open("127.0.0.1", "sslmode=prefer").await.unwrap());
    assert!(server.open("127.0.0.1", "sslmode=require").await.unwrap());
    let authority = verified_by("verify-ca", &server.root);
    assert!(server.open("127.0.0.1", &authority).await.unwrap(), "verify-ca does not look at the name");
    assert!(server.open("localhost", &verified_by("verify-full", &server.root)).await.unwrap());
}

#[tokio::test]
async fn a_certificate_that_is_not_good_is_refused() {
    let server = encrypted();
    for mode in ["require", "verify-ca", "verify-full"] {
        let said = server.refusal("localhost", &verified_by(mode, &server.stranger)).await;
        assert!(said.contains("certificate") && said.contains("sslrootcert"), "{mode}: {said}");
    }
    let said = server.refusal("127.0.0.1", &verified_by("verify-full", &server.root)).await;
    assert!(said.contains("not valid for name"), "{said}");
    let said = server.refusal("localhost", "sslmode=verify-full").await;
    assert!(said.contains("certificate"), "without sslrootcert the system's authorities count: {said}");
    let said = server.refusal("localhost", "sslmode=verify-full&sslrootcert=/nowhere.pem").await;
    assert!(said.contains("/nowhere.pem"), "{said}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_it_is_required() {
    let plain = started();
    let url = format!("{}?sslmode=require", plain.url());
    let error = options(&url).open(soon()).await.unwrap_err();
    assert!(matches!(&error.kind, TroubleKind::Misconfigured(what) if what.contains("TLS")), "{error}");
    options(&format!("{}?sslmode=prefer", plain.url())).open(soon()).await.unwrap();
}
