//! What a TLS client is made of: certificates and keys from files, and the system's certificates.
//!
//! Enters: names of files in PEM form. Leaves: a rustls configuration, or which file is wrong. Must not contact anything,
//! nor know whose connection it is for.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{WantsClientCert, WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};

use crate::config::TlsFiles;

/// The settings that files come from, and whom they are for, as messages name them.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Of the certificates to trust.
    pub ca: &'static str,
    /// Of the certificate to show.
    pub certificate: &'static str,
    /// Of its private key.
    pub key: &'static str,
    /// Who shows the certificate: "the store".
    pub whose: &'static str,
}

/// A file, or what is in it, cannot be used; the text names the setting and the mend.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

/// A client that checks who the other side is.
///
/// # Errors
/// A file that cannot be read or holds something else, or a system without certificates.
pub fn checked(files: &TlsFiles, settings: &Settings) -> Result<ClientConfig, TlsError> {
    let (roots, given) = roots(files, settings)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    let by_issuers = verifier.build().map_err(|error| failed(&error))?;
    with_identity(Arc::new(Checked { by_issuers, given }), files, settings)
}

/// A client that takes everybody for whom it wants to speak to.
///
/// # Errors
/// A file that cannot be read or holds something else.
pub fn unchecked(files: &TlsFiles, settings: &Settings) -> Result<ClientConfig, TlsError> {
    with_identity(Arc::new(Unchecked(provider())), files, settings)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Who vouches for others, and the certificates that were given for that, if any.
fn roots(
    files: &TlsFiles,
    settings: &Settings,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TlsError> {
    let mut roots = RootCertStore::empty();
    let mut given = Vec::new();
    if let Some(file) = &files.ca {
        given = certificates(settings.ca, file)?;
        for certificate in &given {
            let added = roots.add(certificate.clone());
            added.map_err(|error| wrong(settings.ca, file, &error))?;
        }
    } else {
        // Some of the system's are older than any standard; the others will do.
        let found = fred::rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
    }
    if roots.is_empty() {
        let Settings { whose, ca, .. } = settings;
        return Err(TlsError(format!(
            "no system CA certificates found to verify {whose} with: give {ca} FILE"
        )));
    }
    Ok((roots, given))
}

fn with_identity(
    verifier: Arc<dyn ServerCertVerifier>,
    files: &TlsFiles,
    settings: &Settings,
) -> Result<ClientConfig, TlsError> {
    let builder: ConfigBuilder<ClientConfig, WantsClientCert> =
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
    let Some((certificate, key)) = &files.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(settings.certificate, certificate)?;
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(settings.key, key, &error))?;
    builder
        .with_client_auth_cert(chain, private)
        .map_err(|error| wrong(settings.key, key, &error))
}

fn certificates(setting: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    match found {
        Ok(found) if found.is_empty() => Err(wrong(setting, file, &"it holds no certificate")),
        found => found.map_err(|error| wrong(setting, file, &error)),
    }
}

fn wrong(setting: &str, file: &Path, reason: &dyn Display) -> TlsError {
    let file = file.display();
    TlsError(format!(
        "{setting} {file}: {reason}; give a file in PEM form"
    ))
}

fn failed(error: &dyn Display) -> TlsError {
    TlsError(error.to_string())
}

/// By who issued a certificate; and one that was given itself is trusted too, as that of a server which signed its own
/// with the defaults of `openssl req -x509`: that is one of a CA, which webpki takes from no server.
#[derive(Debug)]
struct Checked {
    by_issuers: Arc<WebPkiServerVerifier>,
    given: Vec<CertificateDer<'static>>,
}

/// It is valid today and well-formed, which is looked at before.
fn is_of_a_ca(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::Other(other))
        if other.to_string() == "CaUsedAsEndEntity")
}

impl ServerCertVerifier for Checked {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.by_issuers.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            Err(error) if is_of_a_ca(&error) && self.given.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_issuers.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_issuers.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_issuers.supported_verify_schemes()
    }
}

/// Nothing is checked: who signs as somebody unknown proves nothing by it, and old certificates cannot even be read.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
