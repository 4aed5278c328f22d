//! The server side of TLS on TCP listeners, of statsd, HTTP and gRPC.
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
use tokio::sync::watch;

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
    #[error("{setting} cannot be used: {cause}")]
    Authority {
        /// Its key in the configuration.
        setting: &'static str,
        /// What is wrong.
        #[source]
        cause: VerifierBuilderError,
    },
}

/// Whose certificate it is: keys of the configuration, and what is spoken behind the handshake.
#[derive(Debug)]
struct Use {
    certificate: &'static str,
    key: &'static str,
    authority: &'static str,
    /// By its name in ALPN (RFC 7301), which clients of HTTP/2 insist on; `None`: nothing is said.
    speaks: Option<&'static [u8]>,
}

const STATSD: Use = Use {
    certificate: "tls_certificate",
    key: "tls_key",
    authority: "tls_authority_certificate",
    speaks: None,
};
const HTTP: Use = Use {
    certificate: "http.tls_certificate",
    key: "http.tls_key",
    authority: "http.tls_authority_certificate",
    speaks: Some(b"http/1.1"),
};
const GRPC: Use = Use { speaks: Some(b"h2"), ..HTTP };

/// The certificates of all listeners that have one. A reload replaces them for the handshakes
/// that come after it; connections that are open stay.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    statsd: Option<watch::Sender<Arc<ServerConfig>>>,
    http: Option<watch::Sender<Arc<ServerConfig>>>,
    grpc: Option<watch::Sender<Arc<ServerConfig>>>,
}

/// What is to be shown in the next handshake.
pub type Shown = Option<watch::Receiver<Arc<ServerConfig>>>;

impl Certificates {
    /// Those of the TCP listeners of `statsd`, and of the servers for `http` and gRPC.
    ///
    /// # Errors
    /// Which of them cannot be used.
    pub fn new(
        statsd: Option<&TlsSettings>,
        http: Option<&TlsSettings>,
    ) -> Result<Certificates, TlsError> {
        let sender = |r#use, tls: Option<&TlsSettings>| {
            tls.map(|tls| server_config(r#use, tls).map(watch::Sender::new)).transpose()
        };
        Ok(Certificates {
            statsd: sender(&STATSD, statsd)?,
            http: sender(&HTTP, http)?,
            grpc: sender(&GRPC, http)?,
        })
    }

    /// Shows those of `new` from now on, where there were some.
    pub fn replace(&self, new: Certificates) {
        for (shown, new) in
            [(&self.statsd, new.statsd), (&self.http, new.http), (&self.grpc, new.grpc)]
        {
            if let (Some(shown), Some(new)) = (shown, new) {
                shown.send_replace(Arc::clone(&new.borrow()));
            }
        }
    }

    /// For the TCP listeners of statsd.
    pub(super) fn statsd(&self) -> Shown {
        self.statsd.as_ref().map(watch::Sender::subscribe)
    }

    /// For the HTTP server.
    pub fn http(&self) -> Shown {
        self.http.as_ref().map(watch::Sender::subscribe)
    }

    /// For the gRPC server.
    pub fn grpc(&self) -> Shown {
        self.grpc.as_ref().map(watch::Sender::subscribe)
    }
}

/// What a listener needs for its handshakes.
fn server_config(r#use: &Use, settings: &TlsSettings) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for TLS 1.2 and 1.3");
    let builder = match &settings.client_authority {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let setting = r#use.authority;
            let mut roots = RootCertStore::empty();
            for certificate in certificates(setting, authority)? {
                roots.add(certificate).map_err(|cause| TlsError::Unusable { setting, cause })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            let verifier = verifier.build();
            builder.with_client_cert_verifier(
                verifier.map_err(|cause| TlsError::Authority { setting, cause })?,
            )
        }
    };
    let chain = certificates(r#use.certificate, &settings.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(settings.key.reveal().as_bytes())
        .map_err(|cause| TlsError::NotPem { setting: r#use.key, cause })?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|cause| TlsError::Unusable { setting: r#use.key, cause })?;
    config.alpn_protocols = r#use.speaks.into_iter().map(<[u8]>::to_vec).collect();
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
