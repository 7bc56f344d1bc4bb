//! TLS: certificates are verified by the authorities that the machine trusts, or by those of a file.

use std::env;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};

/// A file of authorities to trust instead of the platform's, and folders of such files.
const FILE_VARIABLE: &str = "SSL_CERT_FILE";
const DIRECTORIES_VARIABLE: &str = "SSL_CERT_DIR";

/// Who is trusted, and by what rules.
pub type Trust = Arc<ClientConfig>;

/// Returns what verifies servers.
///
/// Without a file these are the platform's authorities: those of `SSL_CERT_FILE` and `SSL_CERT_DIR` where these are set.
///
/// # Errors
///
/// No authority can be read. The words name the file or the variable, and what to do.
pub fn trust(file: Option<&Path>) -> io::Result<Trust> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = file {
        let unreadable = |error: io::Error| io::Error::other(format!("cannot read {}: {error}", path.display()));
        let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
        let certificates = CertificateDer::pem_reader_iter(&mut reader).filter_map(Result::ok);
        roots.add_parsable_certificates(certificates);
        if roots.is_empty() {
            return Err(io::Error::other(format!("{} holds no certificate authority in PEM", path.display())));
        }
    } else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let fault = found.errors.first().map_or_else(|| "none was found".to_owned(), ToString::to_string);
            return Err(io::Error::other(no_authorities(&fault)));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Returns why there is nobody to trust, and what to do: the variable that leads to no authority, or the package.
fn no_authorities(fault: &str) -> String {
    let set = [FILE_VARIABLE, DIRECTORIES_VARIABLE].into_iter().find_map(|name| Some((name, env::var_os(name)?)));
    match set {
        Some((name, value)) => format!(
            "{name} is set to `{}`, which holds no certificate authorities ({fault}); correct it, or unset it to trust \
             those of this machine",
            value.to_string_lossy()
        ),
        None => format!(
            "this machine has no certificate authorities ({fault}); install the package ca-certificates, or name a \
             file in {FILE_VARIABLE}"
        ),
    }
}

/// Returns why TLS failed, in words; for a certificate that is refused, with what to do.
fn explained(error: &rustls::Error) -> String {
    let fault = match error {
        rustls::Error::InvalidCertificate(fault) => fault,
        rustls::Error::InvalidMessage(_) => {
            return format!(
                "what the server sends is not TLS ({error}); is this the port of another service, or of ws://?"
            );
        }
        _ => return format!("TLS failed: {error}"),
    };
    let remedy = match fault {
        CertificateError::UnknownIssuer => format!(
            "no trusted authority signed it; if a proxy of yours inspects TLS, name a file with its authority in \
             {FILE_VARIABLE}"
        ),
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => "check the clock of this machine".to_owned(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "another host answers; check the URL, the name service and proxies".to_owned()
        }
        _ => return format!("the certificate is refused: {error}"),
    };
    format!("the certificate is refused: {remedy} ({error})")
}

/// A socket that never blocks, with TLS or without.
pub struct Transport {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Transport {
    /// Wraps a connected socket; `secure` is the name whose certificate the server has to show, and by what.
    ///
    /// # Errors
    ///
    /// The name can be in no certificate.
    pub fn new(tcp: TcpStream, secure: Option<(&str, Trust)>) -> io::Result<Self> {
        let tls = match secure {
            None => None,
            Some((name, config)) => {
                let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
                Some(Box::new(ClientConnection::new(config, name).map_err(io::Error::other)?))
            }
        };
        Ok(Self { tcp, tls })
    }

    /// The socket.
    pub fn tcp(&mut self) -> &mut TcpStream {
        &mut self.tcp
    }

    /// Reads what is there. 0 is the server's end.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing is there; `InvalidData` for what is no TLS, or a certificate that is refused.
    pub fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.tcp.read(room) };
        loop {
            match tls.reader().read(room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A server that ends without the notice of TLS: what it sent is verified all the same.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                outcome => return outcome,
            }
            if tls.read_tls(&mut self.tcp)? == 0 {
                return Ok(0);
            }
            if let Err(error) = tls.process_new_packets() {
                // The server is told why.
                let _ = tls.write_tls(&mut self.tcp);
                return Err(io::Error::new(io::ErrorKind::InvalidData, explained(&error)));
            }
        }
    }

    /// Sends as much as the socket takes; returns how many bytes of `data` were taken.
    ///
    /// # Errors
    ///
    /// The socket's. `WouldBlock` is none: `wants_write` says that something is left.
    pub fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = match &mut self.tls {
            None if data.is_empty() => 0,
            None => match self.tcp.write(data) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                outcome => outcome?,
            },
            Some(tls) if tls.is_handshaking() => 0,
            Some(tls) => tls.writer().write(data)?,
        };
        while let Some(tls) = &mut self.tls
            && tls.wants_write()
        {
            match tls.write_tls(&mut self.tcp) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                outcome => outcome.map(drop)?,
            }
        }
        Ok(taken)
    }

    /// Whether a read may bring something without the socket becoming readable.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }
}
