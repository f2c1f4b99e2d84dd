//! TLS on the doors: this server's certificate and key, what a client may bind its password's
//! proof to, and both read anew when an operator has renewed them. Step 1 of a transaction's life,
//! before its first byte.
//!
//! ```text
//! home/tls.crt   this server's certificate, and those between it and the CA's (PEM)
//!      tls.key   its secret key, readable by the owner only (PEM)
//! ```

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio_rustls::TlsAcceptor;
use x509_parser::oid_registry::{
    OID_PKCS1_SHA1WITHRSA, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA,
    OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
    OID_SIG_ECDSA_WITH_SHA512,
};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::auth::scram::Binding;
use crate::config::{ConfigError, content, io};

/// A server's certificate, in its home.
pub const CERTIFICATE_FILE: &str = "tls.crt";
/// The key of that certificate, in its home.
pub const KEY_FILE: &str = "tls.key";
/// The certificate of whoever signed it: for clients, who need it to know the server.
pub const CA_FILE: &str = "ca.crt";

/// What PostgreSQL's clients call their protocol (ALPN).
pub const PG_PROTOCOL: &[u8] = b"postgresql";
/// What HTTP/1.1 is called (RFC 7301).
pub const HTTP_PROTOCOL: &[u8] = b"http/1.1";

/// How long before its end a certificate is worth a warning: enough for a person to be back from a
/// holiday.
const WARNING: Duration = Duration::from_secs(30 * 86_400);

/// How often the files are looked at for a renewed certificate.
const LOOK: Duration = Duration::from_secs(30);

/// How often is told that a certificate ends soon.
const REMIND: Duration = Duration::from_secs(86_400);

/// What a server speaks TLS with. Cheap to clone; all clones change when the files do.
#[derive(Clone)]
pub struct Tls {
    home: PathBuf,
    shown: Arc<RwLock<Arc<Shown>>>,
}

/// One certificate, as new connections are shown it.
pub struct Shown {
    /// For PostgreSQL's protocol.
    pub pg: TlsAcceptor,
    /// For HTTP.
    pub http: TlsAcceptor,
    /// See [`Facts::end_point`].
    end_point: Option<Vec<u8>>,
    /// The last moment at which it is valid.
    ends: ASN1Time,
    changed: [Option<SystemTime>; 2],
}

impl Tls {
    /// Reads a home's certificate and key; `None` where it has neither. Refuses what clients would
    /// not accept, and a key that others may read.
    pub fn load(home: &Path) -> Result<Option<Self>, ConfigError> {
        if !home.join(CERTIFICATE_FILE).exists() && !home.join(KEY_FILE).exists() {
            return Ok(None);
        }
        let shown = Shown::load(home)?;
        shown.warn(home);
        Ok(Some(Self { home: home.into(), shown: Arc::new(RwLock::new(Arc::new(shown))) }))
    }

    /// What a connection that begins now is shown.
    pub fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again whenever they change, and reminds of a certificate's end. Never
    /// returns.
    pub(crate) async fn keep(self) {
        let mut ticks = tokio::time::interval(LOOK);
        let mut reminded = tokio::time::Instant::now();
        loop {
            ticks.tick().await;
            if changed(&self.home) != self.shown().changed {
                self.renew();
            }
            if reminded.elapsed() >= REMIND {
                reminded = tokio::time::Instant::now();
                self.shown().warn(&self.home);
            }
        }
    }

    fn renew(&self) {
        match Shown::load(&self.home) {
            Ok(shown) => {
                tracing::info!(until = %shown.ends, "a new certificate is in use");
                *self.shown.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(shown);
            }
            // Half written, perhaps: it is looked at again.
            Err(error) => {
                tracing::warn!(%error, "the new certificate is not used, the old one still is");
            }
        }
    }
}

impl Shown {
    /// What passwords' proofs can be bound to on a connection that was shown this.
    pub fn binding(&self) -> Binding {
        match &self.end_point {
            Some(hash) => Binding::EndPoint(hash.clone()),
            None => Binding::Nothing,
        }
    }

    fn load(home: &Path) -> Result<Self, ConfigError> {
        let changed = changed(home);
        let (certificate_path, key_path) = (home.join(CERTIFICATE_FILE), home.join(KEY_FILE));
        let certificates = read_certificates(&certificate_path)?;
        let key = read_key(&key_path)?;
        let leaf = certificates
            .first()
            .ok_or_else(|| content(&certificate_path, "there is no certificate in it"))?;
        let facts = Facts::of(leaf).map_err(|wrong| content(&certificate_path, wrong))?;
        facts.check().map_err(|wrong| content(&certificate_path, wrong))?;
        let acceptor = |protocol: &[u8]| {
            let config = rustls::ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map(|config| config.with_no_client_auth())
                .and_then(|config| config.with_single_cert(certificates.clone(), key.clone_key()));
            let mut config = config.map_err(|error| {
                let what = key_path.display();
                content(&certificate_path, format!("cannot be used with {what}: {error}"))
            })?;
            config.alpn_protocols = vec![protocol.to_vec()];
            // Drivers do not resume sessions: tickets would be made for nothing.
            config.send_tls13_tickets = 0;
            Ok(TlsAcceptor::from(Arc::new(config)))
        };
        Ok(Self {
            pg: acceptor(PG_PROTOCOL)?,
            http: acceptor(HTTP_PROTOCOL)?,
            end_point: facts.end_point,
            ends: facts.ends,
            changed,
        })
    }

    fn warn(&self, home: &Path) {
        let path = home.join(CERTIFICATE_FILE);
        let left = self.ends.timestamp().saturating_sub(ASN1Time::now().timestamp());
        if left < 0 {
            tracing::error!("{} expired on {}: {}", path.display(), self.ends, renewing());
        } else if u64::try_from(left).is_ok_and(|left| left < WARNING.as_secs()) {
            tracing::warn!("{} expires on {}: {}", path.display(), self.ends, renewing());
        }
    }
}

/// The one library of algorithms that Rota is built with.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What to do about a certificate that ends.
fn renewing() -> &'static str {
    "renew it with `rota certificate`, where the cluster's ca.key is; a running server reads the \
     new files by itself"
}

/// When the two files were written.
fn changed(home: &Path) -> [Option<SystemTime>; 2] {
    let written = |name| std::fs::metadata(home.join(name)).and_then(|file| file.modified()).ok();
    [written(CERTIFICATE_FILE), written(KEY_FILE)]
}

/// Reads a file of certificates (PEM).
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let text = std::fs::read(path).map_err(io(path))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    certificates.map_err(|error| content(path, format!("not PEM: {error}")))
}

/// Reads a file with a secret key (PEM), unless others may read it too.
fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, ConfigError> {
    let mode = std::fs::metadata(path).map_err(io(path))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(content(
            path,
            "others may read this secret key; run `chmod 600` on it, or make a new one with \
             `rota certificate` if they did",
        ));
    }
    let text = std::fs::read(path).map_err(io(path))?;
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| content(path, format!("no secret key in PEM: {error}")))
}

/// What is to be known of a certificate beside what rustls looks at.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What channel binding binds to (`tls-server-end-point`, RFC 5929); `None` where that is not
    /// defined for this certificate's signature.
    pub end_point: Option<Vec<u8>>,
    /// The first moment at which it is valid.
    pub begins: ASN1Time,
    /// The last.
    pub ends: ASN1Time,
    /// Whom it is for, by name or address.
    pub names: Vec<String>,
    /// The common name of its subject.
    pub subject: String,
    /// Its subject's public key (DER).
    pub public_key: Vec<u8>,
}

impl Facts {
    /// Reads a certificate.
    pub fn of(certificate: &[u8]) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| format!("not a certificate: {error}"))?;
        let named = parsed.subject_alternative_name().ok().flatten();
        let names = named.map(|names| names.value.general_names.iter().filter_map(name).collect());
        let subject = parsed.subject().iter_common_name().next();
        Ok(Self {
            end_point: end_point(certificate, &parsed),
            begins: parsed.validity().not_before,
            ends: parsed.validity().not_after,
            names: names.unwrap_or_default(),
            subject: subject.and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned(),
            public_key: parsed.public_key().raw.to_vec(),
        })
    }

    /// Refuses one that is not valid now, with what to do.
    pub fn check(&self) -> Result<(), String> {
        let now = ASN1Time::now();
        if now < self.begins {
            return Err(format!(
                "this certificate is not valid before {}: is this machine's clock right?",
                self.begins
            ));
        }
        if now > self.ends {
            return Err(format!("this certificate expired on {}: {}", self.ends, renewing()));
        }
        Ok(())
    }
}

fn name(name: &x509_parser::extensions::GeneralName<'_>) -> Option<String> {
    use x509_parser::extensions::GeneralName;
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let address =
                four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

/// The certificate's hash by the hash of its own signature, SHA-256 in place of weaker ones
/// (RFC 5929, section 4.1).
fn end_point(certificate: &[u8], parsed: &X509Certificate<'_>) -> Option<Vec<u8>> {
    let signed = &parsed.signature_algorithm.algorithm;
    let is = |oids: &[x509_parser::der_parser::oid::Oid<'_>]| oids.contains(signed);
    if is(&[OID_PKCS1_SHA1WITHRSA, OID_PKCS1_SHA256WITHRSA, OID_SIG_ECDSA_WITH_SHA256]) {
        Some(Sha256::digest(certificate).to_vec())
    } else if is(&[OID_PKCS1_SHA384WITHRSA, OID_SIG_ECDSA_WITH_SHA384]) {
        Some(Sha384::digest(certificate).to_vec())
    } else if is(&[OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA512]) {
        Some(Sha512::digest(certificate).to_vec())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::pki_types::ServerName;

    use super::*;

    /// A home with a certificate of its own making, valid in these years.
    fn certify(home: &Path, (from, until): (i32, i32)) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let names = vec!["db1.example".to_owned(), "127.0.0.1".into(), "::1".into()];
        let mut asked = CertificateParams::new(names).unwrap();
        asked.not_before = date_time_ymd(from, 1, 1);
        asked.not_after = date_time_ymd(until, 1, 1);
        let certificate = asked.self_signed(&key).unwrap();
        std::fs::write(home.join(CERTIFICATE_FILE), certificate.pem()).unwrap();
        let path = home.join(KEY_FILE);
        std::fs::write(&path, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        certificate.der().to_vec()
    }

    fn refused(home: &Path) -> String {
        Tls::load(home).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn certificates_of_other_times_are_refused_with_what_to_do() {
        let home = tempfile::tempdir().unwrap();
        assert!(Tls::load(home.path()).unwrap().is_none(), "neither file is there");
        certify(home.path(), (2001, 2002));
        let said = refused(home.path());
        assert!(said.contains("expired") && said.contains("rota certificate"), "{said}");
        certify(home.path(), (4000, 4001));
        let said = refused(home.path());
        assert!(said.contains("not valid before"), "{said}");
        certify(home.path(), (2001, 4000));
        assert!(Tls::load(home.path()).unwrap().is_some());
    }

    #[test]
    fn keys_that_others_may_read_or_that_are_anothers_are_refused() {
        let home = tempfile::tempdir().unwrap();
        certify(home.path(), (2001, 4000));
        let key = home.path().join(KEY_FILE);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(refused(home.path()).contains("chmod 600"));
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        let other = tempfile::tempdir().unwrap();
        certify(other.path(), (2001, 4000));
        std::fs::copy(other.path().join(KEY_FILE), &key).unwrap();
        assert!(refused(home.path()).contains("cannot be used with"));
        std::fs::remove_file(&key).unwrap();
        assert!(refused(home.path()).contains(KEY_FILE));
    }

    #[test]
    fn a_certificate_tells_its_names_and_what_to_bind_to() {
        let home = tempfile::tempdir().unwrap();
        let facts = Facts::of(&certify(home.path(), (2001, 4000))).unwrap();
        assert_eq!(facts.names, ["db1.example", "127.0.0.1", "::1"]);
        // Signed with SHA-256, so that is what it is bound by.
        let der = read_certificates(&home.path().join(CERTIFICATE_FILE)).unwrap();
        assert_eq!(facts.end_point, Some(Sha256::digest(&der[0]).to_vec()));
        assert!(Facts::of(b"not one").is_err());
    }

    #[test]
    fn a_renewed_certificate_is_shown_and_a_bad_one_is_not() {
        let home = tempfile::tempdir().unwrap();
        certify(home.path(), (2001, 4000));
        let tls = Tls::load(home.path()).unwrap().unwrap();
        let before = tls.shown();
        certify(home.path(), (2001, 2002));
        tls.renew();
        assert_eq!(tls.shown().end_point, before.end_point, "the expired one is not taken");
        certify(home.path(), (2001, 4000));
        tls.renew();
        assert_ne!(tls.shown().end_point, before.end_point);
    }

    #[tokio::test]
    async fn each_door_speaks_its_own_protocol_only() {
        let home = tempfile::tempdir().unwrap();
        let der = certify(home.path(), (2001, 4000));
        let shown = Tls::load(home.path()).unwrap().unwrap().shown();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(der)).unwrap();
        let handshake = async |acceptor: &TlsAcceptor, offered: &[&[u8]]| {
            let config = rustls::ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots.clone());
            let mut config = config.with_no_client_auth();
            config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let (here, there) = tokio::io::duplex(64 << 10);
            let name = ServerName::try_from("db1.example").unwrap();
            let both = tokio::join!(acceptor.accept(here), connector.connect(name, there));
            both.0.is_ok() && both.1.is_ok()
        };
        assert!(handshake(&shown.pg, &[PG_PROTOCOL]).await);
        assert!(handshake(&shown.pg, &[]).await, "older clients do not name a protocol");
        assert!(handshake(&shown.http, &[b"h2", HTTP_PROTOCOL]).await);
        assert!(!handshake(&shown.pg, &[HTTP_PROTOCOL]).await);
        assert!(!handshake(&shown.http, &[PG_PROTOCOL]).await);
    }
}
