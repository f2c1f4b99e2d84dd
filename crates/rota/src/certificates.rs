//! A certificate authority of a cluster's own, and the certificates that it signs for servers: so
//! that clients know whom they talk to, without asking anybody else.
//!
//! ```text
//!   ca.key (one place only) ── signs ──► tls.crt and tls.key of each server
//!   ca.crt (for clients)    ── knows ──► tls.crt
//! ```

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rota_node::tls::{CA_FILE, CERTIFICATE_FILE, Facts, KEY_FILE, read_certificates};
use time::{Duration, OffsetDateTime};

use crate::failure::Failure;

/// The secret key of the authority, beside its certificate.
pub const CA_KEY_FILE: &str = "ca.key";

/// How long the authority's own certificate is valid: replacing it means telling every client.
const CA_DAYS: i64 = 3650;

/// How long a server's is: the longest that all systems accept of one (Apple's limit).
const SERVER_DAYS: i64 = 825;

/// Certificates are valid from a day ago, for machines whose clock is behind.
const HEAD_START: Duration = Duration::DAY;

/// Names that every server has for its own machine.
const OWN_MACHINE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Who signs.
pub struct Authority {
    certificate: Certificate,
    /// As its file has it; what is signed refers to it by name and key only.
    pem: String,
    key: KeyPair,
    ends: OffsetDateTime,
}

impl Authority {
    /// A new one for a cluster.
    pub fn new(cluster: &str) -> Result<Self, Failure> {
        let key = KeyPair::generate().map_err(Failure::doing("making the authority's key"))?;
        let ends = OffsetDateTime::now_utc() + Duration::days(CA_DAYS);
        let certificate = own_certificate(&format!("{cluster} CA"), &key, ends)?;
        Ok(Self { pem: certificate.pem(), certificate, key, ends })
    }

    /// The one in a folder that [`Authority::save`] wrote.
    pub fn load(folder: &Path) -> Result<Self, Failure> {
        let (path, key_path) = (folder.join(CA_FILE), folder.join(CA_KEY_FILE));
        let pem = read(&path)?;
        let wrong = |what: &str| Failure::new(format!("{}: {what}", path.display()));
        let certificates = read_certificates(&path).map_err(|e| Failure::new(e.to_string()))?;
        let first = certificates.first().ok_or_else(|| wrong("there is no certificate in it"))?;
        let facts = Facts::of(first).map_err(|error| wrong(&error))?;
        let ends = facts.ends.to_datetime();
        if ends < OffsetDateTime::now_utc() {
            return Err(wrong(&format!("this authority expired on {}", facts.ends)));
        }
        let mode = std::fs::metadata(&key_path).map_err(Failure::doing(key_path.display()))?;
        if mode.permissions().mode() & 0o077 != 0 {
            return Err(Failure::new(format!(
                "{}: others may read this secret key; run `chmod 600` on it",
                key_path.display()
            )));
        }
        let key =
            KeyPair::from_pem(&read(&key_path)?).map_err(Failure::doing(key_path.display()))?;
        if key.public_key_der() != facts.public_key {
            return Err(wrong(&format!("{} is not its key", key_path.display())));
        }
        Ok(Self { certificate: own_certificate(&facts.subject, &key, ends)?, pem, key, ends })
    }

    /// Writes `ca.crt` and `ca.key`.
    pub fn save(&self, folder: &Path) -> Result<(), Failure> {
        write(&folder.join(CA_KEY_FILE), &self.key.serialize_pem(), 0o600)?;
        write(&folder.join(CA_FILE), &self.pem, 0o644)
    }

    /// Makes a new certificate with a new key for a server that clients know by these names, and
    /// writes `tls.crt`, `tls.key` and `ca.crt` to its home. Gives the certificate's last day.
    pub fn certify(&self, names: &[String], home: &Path) -> Result<String, Failure> {
        let mut all = names.to_vec();
        all.extend(OWN_MACHINE.map(String::from));
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|name| seen.insert(name.clone()));
        let subject = all.first().cloned().unwrap_or_default();
        let wrong = Failure::doing(format!("making a certificate for {subject}"));
        let mut asked = CertificateParams::new(all).map_err(wrong)?;
        asked.distinguished_name = named(&subject);
        asked.not_before = OffsetDateTime::now_utc() - HEAD_START;
        asked.not_after = self.ends.min(OffsetDateTime::now_utc() + Duration::days(SERVER_DAYS));
        asked.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        asked.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        asked.use_authority_key_identifier_extension = true;
        let ends = asked.not_after.date().to_string();
        let key = KeyPair::generate().map_err(Failure::doing("making a key"))?;
        let signed = asked
            .signed_by(&key, &self.certificate, &self.key)
            .map_err(Failure::doing(format!("signing a certificate for {subject}")))?;
        // A running server reads both when either changes: the key is there before its certificate.
        write(&home.join(KEY_FILE), &key.serialize_pem(), 0o600)?;
        write(&home.join(CERTIFICATE_FILE), &signed.pem(), 0o644)?;
        write(&home.join(CA_FILE), &self.pem, 0o644)?;
        Ok(ends)
    }
}

fn named(subject: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, subject);
    name
}

fn own_certificate(
    subject: &str,
    key: &KeyPair,
    ends: OffsetDateTime,
) -> Result<Certificate, Failure> {
    let mut asked = CertificateParams::default();
    asked.distinguished_name = named(subject);
    // It signs servers' certificates, and no other authority's.
    asked.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    asked.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    asked.not_before = OffsetDateTime::now_utc() - HEAD_START;
    asked.not_after = ends;
    asked.self_signed(key).map_err(Failure::doing("making the authority's certificate"))
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(Failure::doing(path.display()))
}

/// Replaces a file whole, readable by whom it may be from its first moment on.
pub fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let draft = path.with_extension("new");
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&draft);
    let written = opened.and_then(|mut file| {
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.and_then(|()| std::fs::rename(&draft, path)).map_err(Failure::doing(path.display()))
}
