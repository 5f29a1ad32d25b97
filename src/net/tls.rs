//! TLS on the side of the client: rustls with the ring provider.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// Makes TLS connections that trust the system's certificate authorities and, if one is given,
/// those in a file of the operator's.
///
/// Nothing is read before the first connection; then the file is read once, and the system's
/// authorities once in the whole program. Sessions are resumed. HTTP/1.1 is announced by ALPN
/// (RFC 7301), unless it is made [without](Self::without_alpn).
pub struct TlsClient {
    ca_file: Option<PathBuf>,
    /// What is announced by ALPN.
    protocols: &'static [&'static [u8]],
    config: OnceCell<Arc<ClientConfig>>,
}

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The host cannot be asked for: it is neither a DNS name nor an IP address. The
    /// configuration's fault.
    #[error("{host:?} is no name that a certificate can be for")]
    ServerName {
        /// The host.
        host: String,
    },
    /// The operator's file of certificate authorities cannot be used.
    #[error("cannot read certificate authorities from {}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The operator's file holds no certificate that is one, in PEM form.
    #[error("no certificate authority in {}: expected certificates in PEM form", path.display())]
    CaFileEmpty {
        /// The file.
        path: PathBuf,
    },
    /// There is nobody to trust: the system has no certificate authorities and no file was given.
    /// On Debian the package `ca-certificates` brings them.
    #[error("the system has no certificate authorities (Debian: install ca-certificates)")]
    NoAuthorities,
    /// rustls cannot be set up; never seen.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
    /// The handshake failed: the certificate is for another name, expired or of an unknown
    /// authority, or the peer does not speak TLS or hung up. The source says which.
    #[error("the TLS handshake with {host} failed")]
    Handshake {
        /// The host that was asked for.
        host: String,
        /// What rustls or the socket said.
        source: io::Error,
    },
}

impl TlsError {
    /// The kind as a metric's label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::ServerName { .. } => "server_name",
            Self::CaFile { .. } | Self::CaFileEmpty { .. } => "ca_file",
            Self::NoAuthorities => "no_authorities",
            Self::Setup(_) => "setup",
            Self::Handshake { .. } => "handshake",
        }
    }
}

impl TlsClient {
    /// A client that trusts the system's authorities and those in `ca_file`.
    #[must_use]
    pub fn new(ca_file: Option<PathBuf>) -> Self {
        Self { ca_file, protocols: &[b"http/1.1"], config: OnceCell::new() }
    }

    /// The same, for a protocol that is not HTTP: nothing is announced by ALPN, since a peer may
    /// refuse whoever announces only what it does not speak (RFC 7301 section 3.2).
    #[must_use]
    pub fn without_alpn(ca_file: Option<PathBuf>) -> Self {
        Self { ca_file, protocols: &[], config: OnceCell::new() }
    }

    /// Makes a TLS connection out of `stream`. The peer has to show a certificate for `host`, a
    /// name or an IP address; a name is sent along as SNI (RFC 6066 section 3).
    ///
    /// No limit of time is in it: the caller sets one. Cancellation safe: a dropped call closes
    /// the connection.
    ///
    /// # Errors
    /// [`TlsError`]. A file that could not be read is read again by the next call.
    pub async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
    ) -> Result<TlsStream<TcpStream>, TlsError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| TlsError::ServerName { host: host.to_owned() })?;
        let config = self.config.get_or_try_init(|| self.load()).await?;
        TlsConnector::from(Arc::clone(config))
            .connect(name, stream)
            .await
            .map_err(|source| TlsError::Handshake { host: host.to_owned(), source })
    }

    async fn load(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let (ca_file, protocols) = (self.ca_file.clone(), self.protocols);
        // Reading a hundred files takes milliseconds, which would hold up every other task.
        tokio::task::spawn_blocking(move || configure(ca_file.as_deref(), protocols))
            .await
            .unwrap_or_else(|_| Err(TlsError::NoAuthorities))
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").field("ca_file", &self.ca_file).finish_non_exhaustive()
    }
}

fn configure(ca_file: Option<&Path>, protocols: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = system_authorities();
    if let Some(path) = ca_file {
        let mut with_file = RootCertStore::clone(&roots);
        add_file(&mut with_file, path)?;
        roots = Arc::new(with_file);
    }
    if roots.is_empty() {
        return Err(TlsError::NoAuthorities);
    }
    // Named here and not installed for the process: no other code's choice can change it.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The system's authorities. Ones that rustls cannot read are left out, as in every client: a
/// single odd certificate must not take the others away.
fn system_authorities() -> Arc<RootCertStore> {
    static LOADED: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = LOADED.get() {
        return Arc::clone(roots);
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let roots = Arc::new(roots);
    // An empty store is not kept: the package may be installed while the daemon runs.
    if roots.is_empty() { roots } else { Arc::clone(LOADED.get_or_init(|| roots)) }
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    let failed = |source| TlsError::CaFile { path: path.to_owned(), source };
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
        certificates.push(certificate.map_err(failed)?);
    }
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(TlsError::CaFileEmpty { path: path.to_owned() });
    }
    Ok(())
}
