//! TLS by rustls: the authority that the address names, or those that the system trusts.

use std::path::Path;
use std::sync::Arc;

use mutext_contract::{EngineError, TroubleKind};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::options::ConsulOptions;

const SEE_CA: &str = "name a file of PEM certificates with ?tls_ca=FILE";
const SEE_CERT: &str = "name PEM files with ?tls_cert=FILE&tls_key=FILE";

/// Makes connections encrypted, to whom the certificate names.
pub(crate) struct Tls(TlsConnector);

impl Tls {
    pub(crate) fn new(options: &ConsulOptions) -> Result<Self, EngineError> {
        let misconfigured =
            |what: String, remedy| EngineError::new(options.to_string(), TroubleKind::Misconfigured(what), remedy);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| misconfigured(error.to_string(), ""))?;
        let unreadable = |what: &str, file: &Path, error: rustls::pki_types::pem::Error, remedy| {
            misconfigured(format!("{what} {} cannot be read: {error}", file.display()), remedy)
        };
        let certificates = |file: &Path| {
            CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<CertificateDer<'static>>, _>>)
        };
        let found = match &options.tls.ca {
            Some(file) => certificates(file).map_err(|error| unreadable("tls_ca", file, error, SEE_CA))?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found);
        if added == 0 {
            let place = options.tls.ca.as_ref().map_or("the system's store".into(), |file| file.to_string_lossy());
            return Err(misconfigured(format!("{place} has no root certificate"), SEE_CA));
        }
        let builder = builder.with_root_certificates(roots);
        let config = match (&options.tls.cert, &options.tls.key) {
            (Some(cert), Some(key)) => {
                let chain = certificates(cert).map_err(|error| unreadable("tls_cert", cert, error, SEE_CERT))?;
                let own = PrivateKeyDer::from_pem_file(key);
                let own = own.map_err(|error| unreadable("tls_key", key, error, SEE_CERT))?;
                let config = builder.with_client_auth_cert(chain, own);
                config.map_err(|error| misconfigured(error.to_string(), SEE_CERT))?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub(crate) async fn connect(&self, host: &str, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        self.0.connect(name, stream).await
    }
}
