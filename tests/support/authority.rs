//! Certificates for tests, signed by authorities of their own.
#![allow(dead_code, reason = "each test binary uses the part it needs")]

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

/// A certificate and its key, as PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Somebody who signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let key = KeyPair::generate().expect("ring makes keys");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are no bad names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, key).expect("it can sign itself"))
    }

    /// Its own certificate, as PEM.
    pub(crate) fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A certificate for localhost, with what `change` wants of it.
    pub(crate) fn sign(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().expect("ring makes keys");
        let names = vec!["localhost".to_owned()];
        let mut params = CertificateParams::new(names).expect("a good name");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.0).expect("the authority can sign");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// For a server.
    pub(crate) fn server(&self) -> Identity {
        self.sign(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    /// For a client.
    pub(crate) fn client(&self) -> Identity {
        self.sign(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }
}
