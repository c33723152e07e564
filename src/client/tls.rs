//! TLS towards a broker: whom the client believes, and how it proves itself where it must.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ClientError;

/// How to speak TLS.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

/// Why TLS can not be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A text is no PEM.
    #[error("a certificate or key can not be read")]
    Pem(#[from] pem::Error),
    /// There is no certificate in it.
    #[error("there is no certificate in it")]
    Empty,
    /// The name is no name.
    #[error("the name of the server can not be")]
    Name(#[from] rustls::pki_types::InvalidDnsNameError),
    /// The library refuses.
    #[error("the certificate or key is refused")]
    Refused(#[from] rustls::Error),
}

impl Tls {
    /// Believes whom the authorities in `ca` (PEM) have signed for; proves itself with `own` (certificate chain and
    /// private key, both PEM).
    ///
    /// # Errors
    /// When a text is not what it should be.
    pub fn new(ca: &[u8], own: Option<(&[u8], &[u8])>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate)?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match own {
            Some((chain, key)) => {
                builder.with_client_auth_cert(certificates(chain)?, PrivateKeyDer::from_pem_slice(key)?)?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self { config: Arc::new(config), name: None })
    }

    /// Expects a certificate for this name, instead of for the address.
    ///
    /// # Errors
    /// When it is neither a name nor an address.
    pub fn named(self, name: &str) -> Result<Self, TlsError> {
        let name = ServerName::try_from(name.to_owned())?;
        Ok(Self { name: Some(name), ..self })
    }

    /// The library's own configuration, for who speaks something else over it.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<TlsStream<TcpStream>, ClientError> {
        let name = self.name.clone().unwrap_or_else(|| ServerName::IpAddress(address.ip().into()));
        let connector = TlsConnector::from(Arc::clone(&self.config));
        connector.connect(name, stream).await.map_err(ClientError::Io)
    }
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>()?;
    if all.is_empty() { Err(TlsError::Empty) } else { Ok(all) }
}
