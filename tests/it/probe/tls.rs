//! Origins behind TLS.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use purgewatch::clock::Clock;
use purgewatch::model::{HostPort, Scheme};
use purgewatch::probe::{Destination, Options};
use purgewatch::verdict::{Failure, Phase, Target};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, version};

use super::{answer, destination, failure, fetch, target, version_of};
use crate::support::origin::{Origin, Response, Step};

/// A certificate authority of the test's own, its certificate in a file.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { issuer: Issuer::new(params, key), dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn server(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    }
}

fn over_tls(address: SocketAddr, ca_file: Option<PathBuf>) -> Destination {
    let address = HostPort::new(&address.ip().to_string(), address.port()).unwrap();
    let options = Options { ca_file, ..Options::default() };
    Destination::new(Scheme::Https, address, options, Clock::start())
}

#[tokio::test]
async fn the_certificate_is_for_the_urls_host_wherever_that_is_reached() {
    let authority = Authority::new();
    let origin = Origin::start_tls(authority.server("rec.example.com", |_| {}));
    origin.serve("/a", Response::ok("secure"));
    let truth = over_tls(origin.address, Some(authority.file()));
    let first = fetch(&truth, &target("/a")).await;
    assert!(first.phases.tls.is_some());
    assert_eq!(first.version(), Some(&version_of("secure")));
    let second = fetch(&truth, &target("/a")).await;
    assert_eq!((second.phases.tls, origin.connections()), (None, 1), "the connection is kept");
}

#[tokio::test]
async fn another_name_needs_another_connection() {
    let authority = Authority::new();
    let origin = Origin::start_tls(authority.server("*.example.com", |_| {}));
    origin.serve("/a", Response::ok("secure"));
    let truth = over_tls(origin.address, Some(authority.file()));
    let other = Target { url: "https://img.example.com/a".parse().unwrap(), ..target("/a") };
    for _ in 0..2 {
        answer(&truth, &target("/a")).await;
        answer(&truth, &other).await;
    }
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_certificate_may_be_for_an_ip_address() {
    let authority = Authority::new();
    let origin = Origin::start_tls(authority.server("127.0.0.1", |_| {}));
    origin.serve("/a", Response::ok("secure"));
    let truth = over_tls(origin.address, Some(authority.file()));
    let by_ip = Target { url: "https://127.0.0.1/a".parse().unwrap(), ..target("/a") };
    assert_eq!(answer(&truth, &by_ip).await.version, Ok(version_of("secure")));
    assert_eq!(failure(&truth, &target("/a")).await, Failure::Tls, "not for that name");
}

#[tokio::test]
async fn whom_nobody_vouches_for_is_refused() {
    let authority = Authority::new();
    let origin = Origin::start_tls(authority.server("rec.example.com", |_| {}));
    origin.serve("/a", Response::ok("secure"));
    let untrusting = over_tls(origin.address, Some(Authority::new().file()));
    assert_eq!(failure(&untrusting, &target("/a")).await, Failure::Tls);
    let system_only = over_tls(origin.address, None);
    assert_eq!(failure(&system_only, &target("/a")).await, Failure::Tls);
    assert!(origin.requests().is_empty(), "nothing was asked of a stranger");

    let expired = authority.server("rec.example.com", |params| {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    });
    let origin = Origin::start_tls(expired);
    let truth = over_tls(origin.address, Some(authority.file()));
    assert_eq!(failure(&truth, &target("/a")).await, Failure::Tls);
}

/// The system's authorities are found where `SSL_CERT_FILE` says, which only another process can
/// be told: the test runs itself.
#[tokio::test]
async fn the_systems_authorities_are_trusted() {
    const ORIGIN: &str = "PURGEWATCH_TEST_ORIGIN";
    if let Ok(address) = std::env::var(ORIGIN) {
        let truth = over_tls(address.parse().unwrap(), None);
        assert_eq!(answer(&truth, &target("/a")).await.version, Ok(version_of("secure")));
        return;
    }
    let authority = Authority::new();
    let origin = Origin::start_tls(authority.server("rec.example.com", |_| {}));
    origin.serve("/a", Response::ok("secure"));
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "probe::tls::the_systems_authorities_are_trusted"])
        .env(ORIGIN, origin.address.to_string())
        .env("SSL_CERT_FILE", authority.file())
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!(origin.hits("/a"), 1);
}

#[tokio::test]
async fn a_file_of_authorities_may_be_put_right_later() {
    let authority = Authority::new();
    let origin = Origin::start_tls(authority.server("rec.example.com", |_| {}));
    origin.serve("/a", Response::ok("secure"));
    let file = authority.dir.path().join("later.pem");
    let truth = over_tls(origin.address, Some(file.clone()));
    assert_eq!(failure(&truth, &target("/a")).await, Failure::Tls, "there is no such file");
    std::fs::write(&file, "no certificate").unwrap();
    assert_eq!(failure(&truth, &target("/a")).await, Failure::Tls);
    std::fs::copy(authority.file(), &file).unwrap();
    assert_eq!(answer(&truth, &target("/a")).await.version, Ok(version_of("secure")));
}

#[tokio::test]
async fn one_side_speaks_tls_and_the_other_does_not() {
    let authority = Authority::new();
    let plain = Origin::start();
    plain.serve("/a", Response::ok("x"));
    let truth = over_tls(plain.address, Some(authority.file()));
    assert_eq!(failure(&truth, &target("/a")).await, Failure::Tls);
    let tls = Origin::start_tls(authority.server("rec.example.com", |_| {}));
    let failure = failure(&destination(tls.address), &target("/a")).await;
    assert!(matches!(failure, Failure::NotHttp | Failure::Closed), "{failure:?}");
}

#[tokio::test]
async fn a_handshake_has_a_limit() {
    let authority = Authority::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let truth = over_tls(listener.local_addr().unwrap(), Some(authority.file()));
    let hasty = Target { timeout: Duration::from_millis(300), ..target("/a") };
    assert_eq!(failure(&truth, &hasty).await, Failure::Timeout(Phase::Tls));
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_has_to_end_properly() {
    let authority = Authority::new();
    let origin = Origin::start_tls(authority.server("rec.example.com", |_| {}));
    origin.serve("/whole", Response::ok("secure").until_closed());
    let cut = [Step::Send("HTTP/1.1 200 OK\r\n\r\nsec".into()), Step::Reset];
    origin.serve("/cut", Response::script(cut));
    let truth = over_tls(origin.address, Some(authority.file()));
    assert_eq!(answer(&truth, &target("/whole")).await.version, Ok(version_of("secure")));
    assert_eq!(failure(&truth, &target("/cut")).await, Failure::Closed);
}
