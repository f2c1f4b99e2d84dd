//! TLS 1.3 between members, with their Ed25519 keys in place of certificates (raw public keys, RFC
//! 7250): whoever has completed a handshake has proven its key, and only those of members are
//! accepted. Below step 5.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use rota_core::crypto::SecretKey;
use rota_core::types::{NodeId, PublicKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::aws_lc_rs::{default_provider, sign};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerMisbehaved, ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What an Ed25519 public key begins with where X.509 has it (RFC 8410, section 4): the key's 32
/// bytes follow.
const PUBLIC_PREFIX: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// What an Ed25519 secret key begins with in PKCS #8 (RFC 8410, section 7): its 32 bytes follow.
const SECRET_PREFIX: [u8; 16] =
    *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// A name has to be asked for; it is not sent, and nobody reads it.
const NO_NAME: &str = "rota";

/// Whose keys are accepted.
#[derive(Clone, Debug)]
pub(super) struct Allowed(Arc<RwLock<BTreeSet<NodeId>>>);

impl Allowed {
    pub(super) fn new(keys: impl IntoIterator<Item = NodeId>) -> Self {
        Self(Arc::new(RwLock::new(keys.into_iter().collect())))
    }

    /// Lets a peer connect again.
    pub(super) fn allow(&self, key: NodeId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key);
    }

    /// Lets a peer connect no more.
    pub(super) fn deny(&self, key: &NodeId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn has(&self, key: &NodeId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(key)
    }
}

/// What a server speaks TLS with to its peers.
#[derive(Clone)]
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    own: Arc<CertifiedKey>,
    acceptor: TlsAcceptor,
}

impl Tls {
    /// With this server's key, for these peers.
    pub(super) fn new(key: &SecretKey, allowed: Allowed) -> Result<Self, Error> {
        let mut provider = default_provider();
        // One that processors have instructions for, so that there is nothing to choose.
        provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256];
        let provider = Arc::new(provider);
        let secret = [&SECRET_PREFIX[..], &key.to_bytes()].concat();
        let signer = sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(secret))?;
        let public = [&PUBLIC_PREFIX[..], &key.public().0].concat();
        let own = Arc::new(CertifiedKey::new(vec![CertificateDer::from(public)], signer));
        let proof = Proof { allowed, algorithms: provider.signature_verification_algorithms };
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(proof))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(own.clone())));
        // Connections last; a ticket would be one more way in.
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { provider, own, acceptor: TlsAcceptor::from(Arc::new(server)) })
    }

    /// For whoever connects.
    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// To connect to this peer, and to nobody else.
    pub(super) fn connector(&self, peer: NodeId) -> Result<TlsConnector, Error> {
        let algorithms = self.provider.signature_verification_algorithms;
        let proof = Proof { allowed: Allowed::new([peer]), algorithms };
        let own = Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&self.own)));
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(proof))
            .with_client_cert_resolver(own);
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Ok(TlsConnector::from(Arc::new(client)))
    }
}

/// The name to connect to, where keys are what counts.
pub(super) fn no_name() -> Result<ServerName<'static>, Error> {
    ServerName::try_from(NO_NAME).map_err(|error| Error::General(error.to_string()))
}

/// The key that a peer has proven.
pub(super) fn proven(certificates: Option<&[CertificateDer<'_>]>) -> Option<NodeId> {
    match certificates {
        Some([only]) => key_in(only),
        _ => None,
    }
}

fn key_in(public: &[u8]) -> Option<NodeId> {
    let key = public.strip_prefix(&PUBLIC_PREFIX)?;
    key.try_into().ok().map(PublicKey)
}

/// Sees to it that a peer has one of the keys that are accepted.
#[derive(Debug)]
struct Proof {
    allowed: Allowed,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Proof {
    fn accept(&self, key: &[u8], others: &[CertificateDer<'_>]) -> Result<(), Error> {
        match key_in(key) {
            Some(key) if others.is_empty() && self.allowed.has(&key) => Ok(()),
            Some(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            None => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify(
        &self,
        message: &[u8],
        key: &[u8],
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key);
        let algorithms = &self.algorithms;
        rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
    }
}

impl ServerCertVerifier for Proof {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.accept(key, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Proof {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.accept(key, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
