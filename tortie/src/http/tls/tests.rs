//! Who is let in, and what becomes of it when files change.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;
use crate::config::Endpoint;
use crate::http::tests::endpoint;
use crate::http::{Server, Site};
use crate::metrics::Sheet;
use crate::observer::Observer;
use crate::open_ports::OpenPorts;

/// A folder with what openssl made; `None` where it isn't installed.
fn made_by_openssl(commands: &[&str]) -> Option<TempDir> {
    let directory = tempfile::tempdir().unwrap();
    for arguments in commands {
        let mut openssl = Command::new("openssl");
        openssl.args(arguments.split(' ')).current_dir(directory.path());
        let status = openssl.stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
        let Some(status) = status else {
            println!("skipped: openssl isn't installed; `cargo xtask test` installs it");
            return None;
        };
        assert!(status.success(), "openssl {arguments}");
    }
    Some(directory)
}

const AUTHORITY: &str = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt \
                         -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign";
const ROUTER: &str = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=router -keyout router.key -out router.crt \
                      -CA ca.crt -CAkey ca.key -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
const CLIENT: &str = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=client -keyout client.key -out client.crt \
                      -CA ca.crt -CAkey ca.key -addext extendedKeyUsage=clientAuth -addext basicConstraints=critical,CA:FALSE";
const OTHER: &str = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=other -keyout other.key -out other.crt \
                     -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";

fn files(directory: &TempDir, has_clients: bool) -> TlsFiles {
    let path = |name: &str| directory.path().join(name);
    TlsFiles {
        cert: path("router.crt"),
        key: path("router.key"),
        client_ca: has_clients.then(|| path("ca.crt")),
    }
}

/// The answer to a request by TLS, or that there is none.
async fn ask(
    address: SocketAddr,
    directory: &TempDir,
    trusts: &str,
    shows: Option<&str>,
) -> Result<String, String> {
    let path = |name: &str| directory.path().join(name);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(authorities(&path(trusts)).unwrap());
    let client = match shows {
        None => client.with_no_client_auth(),
        Some(name) => {
            let key = PrivateKeyDer::from_pem_slice(&bytes(&path(&format!("{name}.key"))).unwrap()).unwrap();
            client.with_client_auth_cert(certificates(&path(&format!("{name}.crt"))).unwrap(), key).unwrap()
        }
    };
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(Arc::new(client))
        .connect(name, stream)
        .await
        .map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    let exchange = async {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n").await?;
        stream.read_to_end(&mut answer).await
    };
    let failed = exchange.await.err().map(|error| error.to_string());
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if answer.is_empty() { Err(failed.unwrap_or_default()) } else { Ok(answer) }
}

async fn server(files: TlsFiles) -> Server {
    Server::listen(&Endpoint { tls: Some(files), ..endpoint() }, Site::Metrics(Sheet::default()))
        .await
        .unwrap()
}

fn observer() -> Observer {
    let (questions, requests) = tokio::sync::mpsc::channel(1);
    // It stays open: whoever asks is answered `ok`.
    std::mem::forget(requests);
    Observer::new(
        questions,
        tables::Counters::new(1, 1),
        OpenPorts::default(),
        tables::Flows::new(16),
        tables::Capturing::new(),
    )
}

/// Serves while the client asks.
async fn while_serving<T>(server: &Server, client: impl Future<Output = T>) -> T {
    let observer = observer();
    tokio::select! {
        () = server.serve(&observer) => unreachable!("it serves until dropped"),
        answer = client => answer,
    }
}

#[tokio::test]
async fn a_client_is_let_in_by_the_certificate_that_it_shows() {
    let Some(directory) = made_by_openssl(&[AUTHORITY, ROUTER, CLIENT, OTHER]) else { return };
    let server = server(files(&directory, true)).await;
    let address = server.address().unwrap();
    while_serving(&server, async {
        let known = ask(address, &directory, "ca.crt", Some("client")).await.unwrap();
        assert!(known.starts_with("HTTP/1.1 200 ") && known.ends_with("ok\n"), "{known}");
        for shows in [None, Some("other")] {
            assert!(ask(address, &directory, "ca.crt", shows).await.is_err(), "{shows:?} is let in");
        }
        let stranger = ask(address, &directory, "other.crt", Some("client")).await;
        assert!(stranger.unwrap_err().contains("certificate"), "the client must know us, too");
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains("ok"), "nothing is said plainly");
    })
    .await;
}

#[tokio::test]
async fn certificates_that_change_are_in_force_and_broken_ones_are_not() {
    let Some(directory) = made_by_openssl(&[AUTHORITY, ROUTER, OTHER]) else { return };
    let server = server(files(&directory, false)).await;
    let address = server.address().unwrap();
    let path = |name: &str| directory.path().join(name);
    while_serving(&server, async {
        assert!(ask(address, &directory, "ca.crt", None).await.is_ok());
        fs::rename(path("other.crt"), path("new.crt")).unwrap();
        fs::copy(path("new.crt"), path("router.crt")).unwrap();
        assert!(
            ask(address, &directory, "ca.crt", None).await.is_ok(),
            "a certificate without its key isn't in force"
        );
        fs::copy(path("other.key"), path("router.key")).unwrap();
        assert!(ask(address, &directory, "new.crt", None).await.is_ok());
        assert!(ask(address, &directory, "ca.crt", None).await.is_err());
        fs::remove_file(path("router.key")).unwrap();
        assert!(ask(address, &directory, "new.crt", None).await.is_ok());
    })
    .await;
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let Some(directory) = made_by_openssl(&[AUTHORITY, ROUTER, OTHER]) else { return };
    let good = files(&directory, true);
    let path = |name: &str| directory.path().join(name);
    fs::write(path("empty"), "").unwrap();
    let wrong = [
        (TlsFiles { cert: path("none"), ..good.clone() }, "none can't be read"),
        (TlsFiles { cert: path("router.key"), ..good.clone() }, "no certificate in PEM"),
        (TlsFiles { key: path("router.crt"), ..good.clone() }, "no private key in PEM"),
        (TlsFiles { key: path("other.key"), ..good.clone() }, "don't go together"),
        (TlsFiles { client_ca: Some(path("empty")), ..good.clone() }, "no certificate in PEM"),
    ];
    for (files, says) in wrong {
        let message = config(&files).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
    assert!(config(&good).is_ok());
}
