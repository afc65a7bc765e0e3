//! TLS by rustls, as `sslmode` asks for it.
//!
//! The two modes that authenticate nobody need a verifier that accepts every certificate, and `verify-ca` one that
//! does not look at the name: rustls has neither by default, with good reason.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mutext_contract::{EngineError, TroubleKind};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as RustlsStream;

use crate::options::{Host, PostgresOptions, SslMode};

/// A handshake that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsTrouble {
    /// The host's name cannot stand in a certificate.
    #[error("{0:?} is no host name that a certificate could be for")]
    Name(String),
    /// The two sides did not agree, or the certificate is not good.
    #[error("TLS could not be agreed on: {0}")]
    Handshake(io::Error),
}

/// Makes connections encrypted.
#[derive(Clone)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
}

impl Tls {
    /// What the options ask for; reads the root certificates.
    pub(crate) fn new(options: &PostgresOptions) -> Result<Self, EngineError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| misconfigured(options, &error.to_string(), ""))?;
        // As PostgreSQL's own client: where there is a root certificate, `require` looks at it.
        let mode = match (options.ssl_mode, &options.ssl_root_cert, &options.host) {
            (_, _, Host::Socket(_)) => SslMode::Disable,
            (SslMode::Require, Some(_), _) => SslMode::VerifyCa,
            (mode, _, _) => mode,
        };
        let verifier: Arc<dyn ServerCertVerifier> = match mode {
            SslMode::Disable | SslMode::Prefer | SslMode::Require => Arc::new(Unverified(provider)),
            SslMode::VerifyCa | SslMode::VerifyFull => {
                let roots = Arc::new(roots(options)?);
                let checked = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
                let checked = checked.map_err(|error| misconfigured(options, &error.to_string(), SEE_ROOT))?;
                if mode == SslMode::VerifyFull { checked } else { Arc::new(AnyName(checked)) }
            }
        };
        let config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        Ok(Self { config: Arc::new(config) })
    }
}

const SEE_ROOT: &str = "name a file of PEM certificates with ?sslrootcert=FILE";

fn misconfigured(options: &PostgresOptions, what: &str, remedy: &'static str) -> EngineError {
    EngineError::new(options.to_string(), TroubleKind::Misconfigured(what.to_owned()), remedy)
}

/// The authorities that may sign: those in the file, or the system's.
fn roots(options: &PostgresOptions) -> Result<RootCertStore, EngineError> {
    let mut store = RootCertStore::empty();
    let found = match &options.ssl_root_cert {
        Some(file) => {
            let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let unreadable = |error| format!("sslrootcert {} cannot be read: {error}", file.display());
            read.map_err(|error| misconfigured(options, &unreadable(error), SEE_ROOT))?
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    let (added, _) = store.add_parsable_certificates(found);
    if added == 0 {
        let place = options.ssl_root_cert.as_ref().map_or("the system's store".into(), |file| file.to_string_lossy());
        return Err(misconfigured(options, &format!("{place} has no root certificate"), SEE_ROOT));
    }
    Ok(store)
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = Encrypted<S>;
    type TlsConnect = Handshake;
    type Error = TlsTrouble;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Handshake, TlsTrouble> {
        // Where TLS is not used, the name is none of a certificate's: it only matters once there is a handshake.
        Ok(Handshake { config: Arc::clone(&self.config), domain: domain.to_owned() })
    }
}

/// One handshake to be made.
pub(crate) struct Handshake {
    config: Arc<ClientConfig>,
    domain: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Handshake {
    type Stream = Encrypted<S>;
    type Error = TlsTrouble;
    type Future = Pin<Box<dyn Future<Output = Result<Encrypted<S>, TlsTrouble>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let name = ServerName::try_from(self.domain.clone()).map_err(|_| TlsTrouble::Name(self.domain))?;
            let connected = TlsConnector::from(self.config).connect(name, stream).await;
            connected.map(|stream| Encrypted(Box::new(stream))).map_err(TlsTrouble::Handshake)
        })
    }
}

/// An encrypted connection.
pub(crate) struct Encrypted<S>(Box<RustlsStream<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}

type Verified<T> = Result<T, rustls::Error>;

/// Accepts every certificate: encryption against listeners, none against impostors.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Verified<ServerCertVerified> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Verified<HandshakeSignatureValid> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Verified<HandshakeSignatureValid> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks everything but the name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Verified<ServerCertVerified> {
        let checked = self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match checked {
            // The name is looked at last: all else was good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Verified<HandshakeSignatureValid> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Verified<HandshakeSignatureValid> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
