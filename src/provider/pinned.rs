//! TLS between a provider and its gatherer: the provider trusts one certificate, whose fingerprint
//! is in the reference, and no authority. So the reference both finds and authenticates.
//!
//! TLS 1.2 and 1.3 by rustls with ring, named here so that nothing depends on a provider installed
//! elsewhere.
//!
//! Source: Tahoe-LAFS's FURLs, which name the certificate in the same way.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use crate::config::reference::Fingerprint;
use crate::config::settings::TlsSettings;

/// The gatherer's side of connections with the certificate of the settings, and its fingerprint.
///
/// # Errors
/// What of the settings cannot be used, as a phrase.
pub(crate) fn acceptor(settings: &TlsSettings) -> Result<(TlsAcceptor, Fingerprint), String> {
    let chain = CertificateDer::pem_slice_iter(settings.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("gatherer.tls_certificate: {error}"))?;
    let first = chain.first().ok_or("gatherer.tls_certificate holds no certificate")?;
    let fingerprint = fingerprint_of(first);
    let key = PrivateKeyDer::from_pem_slice(settings.key.reveal().as_bytes())
        .map_err(|error| format!("gatherer.tls_key: {error}"))?;
    let config = ServerConfig::builder_with_provider(ring())
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("gatherer.tls_key: {error}"))?;
    Ok((TlsAcceptor::from(Arc::new(config)), fingerprint))
}

/// The provider's side of a connection with a gatherer that must show this certificate.
///
/// # Errors
/// The handshake fails, or it shows another.
pub(super) async fn connect(
    stream: TcpStream,
    fingerprint: Fingerprint,
) -> io::Result<client::TlsStream<TcpStream>> {
    let ring = ring();
    let verifier = Pinned { fingerprint, ring: Arc::clone(&ring) };
    let mut config = ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    // It is the certificate that says who it is, and not a name.
    config.enable_sni = false;
    let nobody = ServerName::from(IpAddr::from(Ipv4Addr::UNSPECIFIED));
    TlsConnector::from(Arc::new(config)).connect(nobody, stream).await
}

/// SHA-256 of a certificate.
fn fingerprint_of(certificate: &CertificateDer<'_>) -> Fingerprint {
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let suite = suite.tls13().expect("its name says so");
    let hash = suite.common.hash_provider.hash(certificate);
    Fingerprint(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

fn ring() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Trusts one certificate.
#[derive(Debug)]
struct Pinned {
    fingerprint: Fingerprint,
    ring: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match fingerprint_of(end_entity) == self.fingerprint {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    // That it also has the key of the certificate.

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.ring.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.ring.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.ring.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_sha256_of_the_certificate() {
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let fingerprint = fingerprint_of(&CertificateDer::from(&b"abc"[..]));
        assert_eq!(fingerprint.to_string(), expected);
        assert_eq!(Fingerprint::parse(expected), Some(fingerprint));
    }
}
