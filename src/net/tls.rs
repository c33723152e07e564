//! TLS of both listeners: 1.2 and newer, certificates that can be exchanged while connections are there.
//!
//! The cryptography is `ring`: it builds with the Rust toolchain and the C compiler that links its programs.
//!
//! **Invariants:** a connection keeps what it was made with; every later handshake, of any listener, takes what holds
//! then. Nothing is resumed, so that no connection slips in by a certificate that is accepted no longer.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};

use crate::config::Tls;

/// What one listener's handshakes are made with.
#[derive(Debug, Clone)]
pub struct Identity {
    config: Arc<ServerConfig>,
    now: Arc<Now>,
}

/// Why a listener can not speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The library refuses.
    #[error("tls can not be used")]
    Refused(#[from] Error),
    /// The authorities can not be used.
    #[error("the authorities of clients' certificates can not be used")]
    Authorities(#[from] rustls::server::VerifierBuilderError),
}

impl Identity {
    /// # Errors
    /// When the library refuses the certificates.
    pub fn new(tls: &Tls) -> Result<Self, TlsError> {
        let provider = Arc::new(default_provider());
        let holds = RwLock::new(Holds::new(tls, &provider)?);
        let now = Arc::new(Now { provider: Arc::clone(&provider), holds });
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let verifier: Arc<dyn ClientCertVerifier> = now.clone();
        let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(now.clone());
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), now })
    }

    /// What handshakes take from now on.
    ///
    /// # Errors
    /// When the library refuses the certificates; then nothing has changed.
    pub fn set(&self, tls: &Tls) -> Result<(), TlsError> {
        let holds = Holds::new(tls, &self.now.provider)?;
        *self.now.holds.write().unwrap_or_else(PoisonError::into_inner) = holds;
        Ok(())
    }

    /// The library's own configuration.
    #[must_use]
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}

#[derive(Debug, Clone)]
struct Holds {
    identity: Arc<CertifiedKey>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl Holds {
    fn new(tls: &Tls, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let verifier = |roots: &Arc<rustls::RootCertStore>| {
            WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build()
        };
        Ok(Self { identity: Arc::clone(tls.identity()), clients: tls.client_ca().map(verifier).transpose()? })
    }
}

/// What holds just now, as the library asks for it in the midst of a handshake.
#[derive(Debug)]
struct Now {
    provider: Arc<CryptoProvider>,
    holds: RwLock<Holds>,
}

impl Now {
    fn holds(&self) -> Holds {
        self.holds.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Now {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.holds().identity)
    }
}

impl ClientCertVerifier for Now {
    fn offer_client_auth(&self) -> bool {
        self.holds().clients.is_some()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // They may change under way; a client has its certificate or has not.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let clients = self.holds().clients.ok_or(CertificateError::UnknownIssuer)?;
        clients.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
