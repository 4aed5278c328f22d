//! The server side of TLS on TCP listeners.
//!
//! TLS 1.2 and 1.3 by rustls with ring, named here so that nothing depends on a provider
//! installed elsewhere. If an authority is configured, clients must present a certificate it
//! has signed.

use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, RootCertStore, ServerConfig};

use crate::config::settings::TlsSettings;

/// Which of the `tls_*` settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or PEM of something else.
    #[error("{setting} cannot be read as PEM: {cause}")]
    NotPem {
        /// Its key in the configuration.
        setting: &'static str,
        /// What is wrong.
        #[source]
        cause: pem::Error,
    },
    /// PEM without a certificate in it.
    #[error("{setting} holds no certificate")]
    NoCertificate {
        /// Its key in the configuration.
        setting: &'static str,
    },
    /// A certificate that is none, or a key that is not the certificate's.
    #[error("{setting} cannot be used: {cause}")]
    Unusable {
        /// Its key in the configuration.
        setting: &'static str,
        /// What is wrong.
        #[source]
        cause: rustls::Error,
    },
    /// Certificates nothing can be verified with.
    #[error("tls_authority_certificate cannot be used: {0}")]
    Authority(#[source] VerifierBuilderError),
}

/// What a listener needs for its handshakes.
pub(super) fn server_config(settings: &TlsSettings) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for TLS 1.2 and 1.3");
    let builder = match &settings.client_authority {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let setting = "tls_authority_certificate";
            let mut roots = RootCertStore::empty();
            for certificate in certificates(setting, authority)? {
                roots.add(certificate).map_err(|cause| TlsError::Unusable { setting, cause })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(TlsError::Authority)?)
        }
    };
    let chain = certificates("tls_certificate", &settings.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(settings.key.reveal().as_bytes())
        .map_err(|cause| TlsError::NotPem { setting: "tls_key", cause })?;
    let config = builder
        .with_single_cert(chain, key)
        .map_err(|cause| TlsError::Unusable { setting: "tls_key", cause })?;
    Ok(Arc::new(config))
}

fn certificates(
    setting: &'static str,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|cause| TlsError::NotPem { setting, cause })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { setting });
    }
    Ok(certificates)
}

/// Why a handshake failed, as the value of a `cause` tag.
pub(super) fn cause_of(error: &io::Error) -> &'static str {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return "io";
    };
    match error {
        rustls::Error::NoCertificatesPresented => "no_certificate",
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "certificate_expired",
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => "unknown_issuer",
        rustls::Error::InvalidCertificate(_) => "bad_certificate",
        // The client does not like us, most often our certificate.
        rustls::Error::AlertReceived(_) => "refused_by_client",
        rustls::Error::InvalidMessage(_) => "not_tls",
        rustls::Error::PeerIncompatible(_) => "incompatible",
        _ => "protocol",
    }
}
