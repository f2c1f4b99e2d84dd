//! How our own tools know whom they talk to, and show who they are: TLS with the cluster's
//! authority, and passwords.
//!
//! ```text
//!  --ca FILE, ROTA_CA, sslrootcert=…      whose signature a server's certificate must have
//!  in the URL, ROTA_PASSWORD, PGPASSWORD  the password; else it is asked for, on a terminal
//! ```

use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rota_node::tls::{Facts, provider, read_certificates};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::args::Authority;
use crate::failure::{Failure, Kind};

/// Where systems keep the authorities that everybody knows, as one file.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Something that is not to be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What a command was given to know servers by, and to show who it is.
#[derive(Clone, Debug)]
pub struct Trust {
    ca: Option<PathBuf>,
    given: Option<Secret>,
    /// What was typed; `Some(None)`: nobody is there to type it.
    typed: Arc<Mutex<Option<Option<Secret>>>>,
}

impl Trust {
    /// From the command line and the environment.
    pub fn new(authority: &Authority) -> Self {
        let from = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        Self {
            ca: authority.ca.clone().or_else(|| from("ROTA_CA").map(PathBuf::from)),
            given: from("ROTA_PASSWORD").or_else(|| from("PGPASSWORD")).map(Secret),
            typed: Arc::default(),
        }
    }

    /// For the servers of `rota dev`: the password in the environment, where one is wanted at all;
    /// nobody is asked.
    pub fn silent() -> Self {
        let Self { given, .. } = Self::new(&Authority::default());
        Self { ca: None, given: None, typed: Arc::new(Mutex::new(Some(given))) }
    }

    /// The same, without asking anybody.
    pub fn unasked(&self) -> Self {
        Self { typed: Arc::new(Mutex::new(Some(None))), ..self.clone() }
    }

    /// The same, with the authority that an address names, if it does.
    pub fn with_ca(&self, ca: Option<&Path>) -> Self {
        let ca = ca.map(PathBuf::from).or_else(|| self.ca.clone());
        Self { ca, ..self.clone() }
    }

    /// The authority's certificate, if one was given.
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// The password in the environment.
    pub fn password(&self) -> Option<&Secret> {
        self.given.as_ref()
    }

    /// Asks for a password on the terminal, without showing it; once for all servers.
    pub fn ask(&self, user: &str) -> Option<Secret> {
        let mut typed = self.typed.lock().unwrap_or_else(PoisonError::into_inner);
        let ask = || {
            // The prompt goes to the terminal itself, also where output is piped away.
            let there = std::io::stdin().is_terminal() || std::io::stderr().is_terminal();
            let prompt = format!("Password for user {user}: ");
            let read = || rpassword::prompt_password(prompt).ok().map(Secret);
            if there { tokio::task::block_in_place(read) } else { None }
        };
        typed.get_or_insert_with(ask).clone()
    }
}

/// What is looked at in a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// That it is valid today. Who it is from is known by other means, or not.
    Dates,
    /// Also that it is for this server, and signed by the authority in this file, or by one that
    /// this machine trusts.
    All,
}

/// TLS as a client speaks it.
pub fn client(check: Check, ca: Option<&Path>, protocol: &[u8]) -> Result<ClientConfig, Failure> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(Failure::doing("TLS"))?;
    let chain = match check {
        Check::Dates => None,
        Check::All => Some(authorities(ca)?),
    };
    let verifier = Checked { chain, provider: provider() };
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

fn authorities(ca: Option<&Path>) -> Result<Arc<WebPkiServerVerifier>, Failure> {
    let found = match ca {
        Some(file) => Some(file.to_path_buf()),
        None => std::env::var_os("SSL_CERT_FILE")
            .map(PathBuf::from)
            .or_else(|| SYSTEM_AUTHORITIES.iter().map(PathBuf::from).find(|file| file.exists())),
    };
    let file = found.ok_or_else(|| {
        Failure::new("no certificate authority is known: give the cluster's with --ca ca.crt")
    })?;
    let mut roots = RootCertStore::empty();
    let certificates = read_certificates(&file).map_err(|error| Failure::new(error.to_string()))?;
    roots.add_parsable_certificates(certificates);
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(Failure::doing(format!("{}: no authority in it", file.display())))
}

/// Looks at a server's certificate.
#[derive(Debug)]
struct Checked {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
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
        let facts = Facts::of(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        // Before anything else, and in words: of all that goes wrong with certificates, this is
        // what happens to everybody.
        facts.check().map_err(Error::General)?;
        match &self.chain {
            None => Ok(ServerCertVerified::assertion()),
            Some(chain) => {
                chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What went wrong with TLS, in words that say what to do; `None` where it was something else.
pub fn explain(error: &(dyn std::error::Error + 'static)) -> Option<(Kind, String)> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<Error>());
        if let Some(tls) = inner.or_else(|| error.downcast_ref::<Error>()) {
            let kind = match tls {
                Error::General(_) | Error::InvalidCertificate(_) => Kind::NotTrusted,
                _ => Kind::Other,
            };
            return Some((kind, in_words(tls)));
        }
        next = error.source();
    }
    None
}

fn in_words(error: &Error) -> String {
    use CertificateError as C;
    match error {
        Error::General(words) => format!("the server's certificate is refused: {words}"),
        Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            "the server's certificate is not signed by a known authority: give the cluster's own \
             with --ca ca.crt"
                .into()
        }
        Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            format!("{error}: connect by a name that is in the certificate")
        }
        Error::InvalidMessage(_) => {
            format!(
                "the server does not seem to speak TLS here ({error}): is it started with it, and \
                 is this the right port?"
            )
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    /// What a client hears of a server whose certificate ends in this year.
    async fn heard(check: Check, until: i32, known: bool) -> Result<(), String> {
        let key = KeyPair::generate().unwrap();
        let mut asked = CertificateParams::new(vec!["db1.example".to_owned()]).unwrap();
        asked.not_before = date_time_ymd(2001, 1, 1);
        asked.not_after = date_time_ymd(until, 1, 1);
        let certificate = asked.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.crt");
        let other = KeyPair::generate().unwrap();
        let stranger = CertificateParams::default().self_signed(&other).unwrap();
        std::fs::write(&ca, if known { certificate.pem() } else { stranger.pem() }).unwrap();
        let server = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            );
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server.unwrap()));
        let client =
            client(check, Some(&ca), b"http/1.1").map_err(|failure| failure.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let (here, there) = tokio::io::duplex(64 << 10);
        let name = ServerName::try_from("db1.example").unwrap();
        let (_, connected) = tokio::join!(acceptor.accept(here), connector.connect(name, there));
        connected
            .map(drop)
            .map_err(|error| explain(&error).map_or_else(|| error.to_string(), |(_, words)| words))
    }

    #[tokio::test]
    async fn an_expired_certificate_is_refused_in_words() {
        for check in [Check::Dates, Check::All] {
            let said = heard(check, 2002, true).await.unwrap_err();
            assert!(said.contains("expired on") && said.contains("rota certificate"), "{said}");
        }
        assert_eq!(heard(Check::All, 4000, true).await, Ok(()));
    }

    #[tokio::test]
    async fn a_strangers_certificate_is_refused_where_the_authority_is_known() {
        let said = heard(Check::All, 4000, false).await.unwrap_err();
        assert!(said.contains("--ca"), "{said}");
        assert_eq!(heard(Check::Dates, 4000, false).await, Ok(()));
    }
}
