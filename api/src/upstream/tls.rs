//! TLS towards upstreams: the machine's certificates, or Mozilla's where the machine has none.

use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

pub(super) fn config() -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(|cause| cause.to_string())?.with_root_certificates(roots).with_no_client_auth())
}
