//! `tls = { cert, key, client_ca }`: the files, read and held against each other when the configuration is.
//!
//! **Invariants:** what is valid has been read: who serves by it reads no file again, so that a configuration is taken
//! whole, certificates included. The private key is nowhere but behind [`Tls::identity`], and in no `Debug`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::Problem;
use super::raw;

/// What a listener proves itself with, and whom it wants to be proven.
#[derive(Clone)]
pub struct Tls {
    identity: Arc<CertifiedKey>,
    client_ca: Option<Arc<RootCertStore>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("client_ca", &self.client_ca.is_some()).finish_non_exhaustive()
    }
}

impl Tls {
    /// The certificate chain and its key.
    #[must_use]
    pub fn identity(&self) -> &Arc<CertifiedKey> {
        &self.identity
    }

    /// Who must have signed a client's certificate; none: clients need none.
    #[must_use]
    pub fn client_ca(&self) -> Option<&Arc<RootCertStore>> {
        self.client_ca.as_ref()
    }
}

/// Reads the files, beside the configuration; names each that can not be used.
pub(super) fn read(section: &str, raw: &raw::Tls, beside: &Path) -> Result<Tls, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut files = Files { section, beside, problems: &mut problems };
    let chain = files.certificates("cert", raw.cert.as_ref());
    let key = files.key(raw.key.as_ref());
    let client_ca = raw.client_ca.as_ref().map(|file| files.roots(file));
    let identity = chain.zip(key).and_then(|(chain, key)| files.identity(raw, chain, key));
    match (identity, client_ca) {
        (Some(identity), None) => Ok(Tls { identity, client_ca: None }),
        (Some(identity), Some(Some(roots))) => Ok(Tls { identity, client_ca: Some(roots) }),
        _ => Err(problems),
    }
}

struct Files<'f> {
    section: &'f str,
    beside: &'f Path,
    problems: &'f mut Vec<Problem>,
}

impl Files<'_> {
    fn problem(&mut self, key: &str, file: Option<&PathBuf>, accepted: String) {
        self.problems.push(Problem {
            key: format!("{}.tls.{key}", self.section),
            value: file
                .map_or_else(|| "<not given>".to_owned(), |file| format!("{:?}", file.display().to_string())),
            accepted,
        });
    }

    fn certificates(&mut self, key: &str, file: Option<&PathBuf>) -> Option<Vec<CertificateDer<'static>>> {
        let accepted = "a PEM file with certificates";
        let read = file.map(|file| {
            let all = CertificateDer::pem_file_iter(self.beside.join(file))?;
            all.collect::<Result<Vec<_>, _>>()
        });
        let why = match read {
            Some(Ok(chain)) if !chain.is_empty() => return Some(chain),
            Some(Ok(_)) => ", which this one has not".to_owned(),
            Some(Err(error)) => format!(" ({error})"),
            None => String::new(),
        };
        self.problem(key, file, format!("{accepted}{why}"));
        None
    }

    fn key(&mut self, file: Option<&PathBuf>) -> Option<PrivateKeyDer<'static>> {
        let accepted = "a PEM file with a private key (PKCS#8, PKCS#1 or SEC1)";
        let why = match file.map(|file| PrivateKeyDer::from_pem_file(self.beside.join(file))) {
            Some(Ok(key)) => return Some(key),
            Some(Err(error)) => format!(" ({error})"),
            None => String::new(),
        };
        self.problem("key", file, format!("{accepted}{why}"));
        None
    }

    fn roots(&mut self, file: &PathBuf) -> Option<Arc<RootCertStore>> {
        let all = self.certificates("client_ca", Some(file))?;
        let mut roots = RootCertStore::empty();
        for certificate in all {
            if let Err(error) = roots.add(certificate) {
                let accepted = format!("a PEM file with certificates of authorities ({error})");
                self.problem("client_ca", Some(file), accepted);
                return None;
            }
        }
        Some(Arc::new(roots))
    }

    fn identity(
        &mut self,
        raw: &raw::Tls,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Option<Arc<CertifiedKey>> {
        match CertifiedKey::from_der(chain, key, &default_provider()) {
            Ok(identity) => Some(Arc::new(identity)),
            Err(error) => {
                let accepted = format!("the private key of the first certificate in tls.cert ({error})");
                self.problem("key", raw.key.as_ref(), accepted);
                None
            }
        }
    }
}
