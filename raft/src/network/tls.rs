//! Mutual TLS between nodes: which files, and that a certificate names the node that shows it.

use std::fs;
use std::path::PathBuf;

use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

use crate::types::NodeId;

/// PEM files of a node: its certificate, whose name is `node-ID`, its key, and the group's authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The node's certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that signed the certificates of all nodes.
    pub ca: PathBuf,
}

/// What the files hold.
#[derive(Clone)]
pub(crate) struct Tls {
    identity: Identity,
    ca: Certificate,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the files.
    pub(crate) fn read(files: &TlsFiles) -> Result<Self, String> {
        let read = |path: &PathBuf| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let identity = Identity::from_pem(read(&files.cert)?, read(&files.key)?);
        Ok(Self { identity, ca: Certificate::from_pem(read(&files.ca)?) })
    }

    pub(crate) fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new().identity(self.identity.clone()).client_ca_root(self.ca.clone())
    }

    pub(crate) fn client(&self, to: NodeId) -> ClientTlsConfig {
        let config = ClientTlsConfig::new().identity(self.identity.clone()).ca_certificate(self.ca.clone());
        config.domain_name(name(to))
    }
}

/// The name that a node's certificate carries.
pub(super) fn name(node: NodeId) -> String {
    format!("node-{node}")
}

/// Whether a certificate carries a node's name.
pub(super) fn names(certificate: &rustls::pki_types::CertificateDer<'_>, node: NodeId) -> bool {
    let Ok(parsed) = rustls::server::ParsedCertificate::try_from(certificate) else { return false };
    let Ok(server_name) = rustls::pki_types::ServerName::try_from(name(node)) else { return false };
    rustls::client::verify_server_name(&parsed, &server_name).is_ok()
}
