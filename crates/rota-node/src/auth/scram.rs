//! SCRAM-SHA-256, the server's side (RFC 5802, RFC 7677): a client shows that it knows its
//! password without sending it. Step 1 of a transaction's life, before its first statement.
//!
//! ```text
//!  client                                              server
//!    n,,n=,r=<its nonce>                        ─────►  first
//!    ◄─────  r=<both nonces>,s=<salt>,i=<iterations>
//!    c=<binding>,r=<both nonces>,p=<proof>      ─────►  last: is SHA-256 of the proven key the one
//!    ◄─────  v=<the server's own proof>                 that is kept?
//! ```
//!
//! Over TLS the client may bind its proof to the server's certificate (`-PLUS`,
//! `tls-server-end-point` of RFC 5929), so that whoever sits between the two with another
//! certificate is found out. Who says that it would have bound it, had it been offered (flag `y`),
//! was lied to and is refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use rota_store::access::Verifier;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Denied;

/// The mechanism without channel binding (RFC 7677).
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// The mechanism with channel binding.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// How often a new password is hashed: RFC 7677's least, and PostgreSQL's number. A server pays it
/// for each password that it has not seen before, HTTP's wrong ones included.
pub const ITERATIONS: u32 = 4096;

/// Bytes of salt for a new password, as PostgreSQL has them.
pub const SALT_BYTES: usize = 16;

/// Random bytes in this server's half of the nonce.
const NONCE_BYTES: usize = 18;

/// No message of a client is longer: names are not repeated in it, nonces have some 24 bytes,
/// bindings 64.
const MOST_BYTES: usize = 2048;

/// The only channel binding there is here.
const BINDING_NAME: &str = "tls-server-end-point";

/// The parts of HMAC-SHA-256's world that RFC 5802 names.
type Key = [u8; 32];

/// What a connection offers to bind a proof to.
#[derive(Clone, Debug)]
pub enum Binding {
    /// Nothing: no TLS, or a certificate whose signature has no hash.
    Nothing,
    /// The hash of the certificate that the client was shown.
    EndPoint(Vec<u8>),
}

impl Binding {
    /// The mechanisms to offer, the better one first.
    pub fn mechanisms(&self) -> &'static [&'static str] {
        match self {
            Self::Nothing => &[MECHANISM],
            Self::EndPoint(_) => &[MECHANISM_PLUS, MECHANISM],
        }
    }
}

/// One client's attempt to show that it knows a password.
pub struct Exchange {
    verifier: Verifier,
    /// False where there is nobody of that name, or nobody with a password: then the exchange goes
    /// on to its end and fails there.
    genuine: bool,
    binding: Binding,
    state: State,
}

/// Where an exchange stands.
enum State {
    New,
    Challenged {
        /// What the proof is over, up to the client's last message.
        said: String,
        /// Both halves.
        nonce: String,
        /// What the client's last message must say that the proof is bound to.
        bound: Vec<u8>,
    },
    Over,
    /// The client knows the password.
    Proven,
}

impl Exchange {
    /// An exchange about a password. `genuine` is false for a made-up verifier.
    pub fn new(verifier: Verifier, genuine: bool, binding: Binding) -> Self {
        Self { verifier, genuine, binding, state: State::New }
    }

    /// Takes the client's first message and the mechanism that it chose; gives the challenge.
    pub fn first(&mut self, mechanism: &str, message: &[u8]) -> Result<Vec<u8>, Denied> {
        let mut random = [0; NONCE_BYTES];
        getrandom::fill(&mut random).map_err(|_| Denied::Unavailable)?;
        self.challenge(mechanism, message, &STANDARD.encode(random))
    }

    fn challenge(
        &mut self,
        mechanism: &str,
        message: &[u8],
        own_nonce: &str,
    ) -> Result<Vec<u8>, Denied> {
        if !matches!(self.state, State::New) {
            return Err(Denied::Protocol("a SCRAM exchange begins once"));
        }
        self.state = State::Over;
        let message = text(message)?;
        let malformed = Denied::Protocol("malformed SCRAM message: client-first-message");
        // gs2-cbind-flag "," [authzid] "," client-first-message-bare
        let mut parts = message.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed);
        };
        if !authzid.is_empty() {
            return Err(Denied::Protocol("logging in for somebody else is not offered"));
        }
        let bound = self.bound(mechanism, flag)?;
        // ["m=" …] "n=" username "," "r=" nonce ["," extensions]
        let mut attributes = bare.split(',');
        let name = attributes.next().and_then(|part| part.strip_prefix("n="));
        let nonce = attributes.next().and_then(|part| part.strip_prefix("r="));
        // The name in here is ignored, as PostgreSQL does: it was given when the session began.
        let (Some(_), Some(nonce)) = (name, nonce) else { return Err(malformed) };
        if nonce.is_empty() || !nonce.bytes().all(|byte| matches!(byte, 0x21..=0x7e)) {
            return Err(malformed);
        }
        let nonce = format!("{nonce}{own_nonce}");
        let salt = STANDARD.encode(&self.verifier.salt);
        let challenge = format!("r={nonce},s={salt},i={}", self.verifier.iterations);
        let said = format!("{bare},{challenge}");
        self.state = State::Challenged { said, nonce, bound };
        Ok(challenge.into_bytes())
    }

    /// The verifier of the password that the client has shown to know.
    pub(super) fn proven(&self) -> Option<&Verifier> {
        matches!(self.state, State::Proven).then_some(&self.verifier)
    }

    /// What the client must say in `c=`, by the flag that it began with.
    fn bound(&self, mechanism: &str, flag: &str) -> Result<Vec<u8>, Denied> {
        let plus = match mechanism {
            MECHANISM => false,
            MECHANISM_PLUS => true,
            _ => return Err(Denied::Protocol("this authentication mechanism is not offered")),
        };
        match (&self.binding, flag) {
            (Binding::EndPoint(hash), "p=tls-server-end-point") if plus => {
                let mut bound = format!("p={BINDING_NAME},,").into_bytes();
                bound.extend_from_slice(hash);
                Ok(bound)
            }
            (Binding::Nothing, _) if plus => {
                Err(Denied::Protocol("channel binding is not offered on this connection"))
            }
            (_, "n") if !plus => Ok(b"n,,".to_vec()),
            (Binding::Nothing, "y") => Ok(b"y,,".to_vec()),
            (Binding::EndPoint(_), "y") => Err(Denied::Protocol(
                "the client was told that this server offers no channel binding, and it does: \
                 somebody may sit in between",
            )),
            _ => Err(Denied::Protocol(
                "SCRAM's channel binding flag does not go with the mechanism, or names another \
                 kind than tls-server-end-point",
            )),
        }
    }

    /// Takes the client's last message. When the proof is right, gives what shows the client that
    /// this server knows its verifier.
    pub fn last(&mut self, message: &[u8]) -> Result<Vec<u8>, Denied> {
        let State::Challenged { said, nonce, bound } =
            std::mem::replace(&mut self.state, State::Over)
        else {
            return Err(Denied::Protocol("a SCRAM exchange goes first, last, and ends"));
        };
        let message = text(message)?;
        let malformed = || Denied::Protocol("malformed SCRAM message: client-final-message");
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or_else(malformed)?;
        let proof: Key = decode(proof).ok_or_else(malformed)?;
        let mut attributes = without_proof.split(',');
        let channel = attributes.next().and_then(|part| part.strip_prefix("c="));
        let answered = attributes.next().and_then(|part| part.strip_prefix("r="));
        let (Some(channel), Some(answered)) = (channel, answered) else { return Err(malformed()) };
        if channel != STANDARD.encode(&bound) {
            return Err(Denied::Protocol(
                "SCRAM channel binding check failed: the client was shown another certificate",
            ));
        }
        if answered != nonce {
            return Err(Denied::Protocol("malformed SCRAM message: nonce does not match"));
        }
        let said = format!("{said},{without_proof}");
        let signature = hmac(&self.verifier.stored_key, &[said.as_bytes()]);
        let mut client_key = proof;
        for (byte, mask) in client_key.iter_mut().zip(signature) {
            *byte ^= mask;
        }
        let proven: Key = Sha256::digest(client_key).into();
        let right = proven.ct_eq(&self.verifier.stored_key);
        let own = hmac(&self.verifier.server_key, &[said.as_bytes()]);
        if bool::from(right) && self.genuine {
            self.state = State::Proven;
            Ok(format!("v={}", STANDARD.encode(own)).into_bytes())
        } else {
            Err(Denied::Wrong)
        }
    }
}

fn text(message: &[u8]) -> Result<&str, Denied> {
    if message.len() > MOST_BYTES {
        return Err(Denied::Protocol("SCRAM message too long"));
    }
    std::str::from_utf8(message).map_err(|_| Denied::Protocol("malformed SCRAM message: no UTF-8"))
}

fn decode(base64: &str) -> Option<Key> {
    STANDARD.decode(base64).ok()?.try_into().ok()
}

/// HMAC-SHA-256 over parts, one after the other.
pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        unreachable!("HMAC takes keys of any length")
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// What is kept of a password: enough to check a proof, not enough to make one.
pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Verifier {
    // As PostgreSQL does it: what SASLprep (RFC 4013) does not allow is taken as it is.
    let prepared = stringprep::saslprep(password);
    let prepared = prepared.as_deref().unwrap_or(password);
    let salted: Key =
        pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(prepared.as_bytes(), salt, iterations);
    let client_key = hmac(&salted, &[b"Client Key"]);
    Verifier {
        iterations,
        salt: salt.to_vec(),
        stored_key: Sha256::digest(client_key).into(),
        server_key: hmac(&salted, &[b"Server Key"]),
    }
}

/// Whether this is the password that the verifier was made of. Takes the time of [`derive`].
pub(super) fn is_of(verifier: &Verifier, password: &str) -> bool {
    let derived = derive(password, &verifier.salt, verifier.iterations);
    bool::from(derived.stored_key.ct_eq(&verifier.stored_key))
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

    use super::*;

    const SALT: &[u8] = b"0123456789abcdef";

    fn verifier() -> Verifier {
        derive("pencil", SALT, ITERATIONS)
    }

    /// What an exchange with tokio-postgres's client comes to on both sides.
    fn talk(
        password: &str,
        (genuine, offered): (bool, Binding),
        (mechanism, bound): (&str, ChannelBinding),
    ) -> Result<(), Denied> {
        let mut client = ScramSha256::new(password.as_bytes(), bound);
        let mut server = Exchange::new(verifier(), genuine, offered);
        let challenge = server.first(mechanism, client.message())?;
        client.update(&challenge).unwrap();
        let answer = server.last(client.message())?;
        client.finish(&answer).expect("the server knows the verifier");
        assert!(server.proven().is_some());
        Ok(())
    }

    #[test]
    fn the_example_of_rfc_7677_comes_out_right() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let mut exchange = Exchange::new(derive("pencil", &salt, 4096), true, Binding::Nothing);
        let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let own_nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let challenge = exchange.challenge(MECHANISM, first, own_nonce).unwrap();
        let expected = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(challenge, expected.as_bytes());
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let answer = exchange.last(last.as_bytes()).unwrap();
        assert_eq!(answer, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(exchange.last(last.as_bytes()).map(drop), exchange.last(b"").map(drop));
    }

    #[test]
    fn a_client_of_postgresql_gets_in_by_its_password_only() {
        let plain = || (MECHANISM, ChannelBinding::unsupported());
        assert_eq!(talk("pencil", (true, Binding::Nothing), plain()), Ok(()));
        assert_eq!(talk("pen", (true, Binding::Nothing), plain()), Err(Denied::Wrong));
        assert_eq!(talk("", (true, Binding::Nothing), plain()), Err(Denied::Wrong));
        assert_eq!(talk("pencil", (false, Binding::Nothing), plain()), Err(Denied::Wrong));
    }

    #[test]
    fn a_proof_is_bound_to_the_certificate_that_the_client_was_shown() {
        let shown = || Binding::EndPoint(vec![7; 32]);
        let bound = |hash| (MECHANISM_PLUS, ChannelBinding::tls_server_end_point(hash));
        assert_eq!(talk("pencil", (true, shown()), bound(vec![7; 32])), Ok(()));
        let other = talk("pencil", (true, shown()), bound(vec![8; 32]));
        assert!(matches!(other, Err(Denied::Protocol(_))), "{other:?}");
        let none = talk("pencil", (true, Binding::Nothing), bound(vec![7; 32]));
        assert!(matches!(none, Err(Denied::Protocol(_))), "{none:?}");
    }

    #[test]
    fn who_was_told_that_nothing_can_be_bound_is_refused_where_it_can() {
        let unoffered = || (MECHANISM, ChannelBinding::unrequested());
        assert_eq!(talk("pencil", (true, Binding::Nothing), unoffered()), Ok(()));
        let lied_to = talk("pencil", (true, Binding::EndPoint(vec![7; 32])), unoffered());
        assert!(matches!(lied_to, Err(Denied::Protocol(_))), "{lied_to:?}");
        let unable = (MECHANISM, ChannelBinding::unsupported());
        assert_eq!(talk("pencil", (true, Binding::EndPoint(vec![7; 32])), unable), Ok(()));
    }

    #[test]
    fn messages_that_are_none_are_refused() {
        let long = [b"n,,n=,r=".as_slice(), &[b'x'; MOST_BYTES]].concat();
        let firsts: [&[u8]; 11] = [
            b"",
            b",",
            b"n",
            b"n,,",
            b"n,,n=,r=",
            b"n,,r=abc,n=",
            b"n,a=root,n=,r=abc",
            b"n,,m=ext,n=,r=abc",
            b"n,,n=,r=a c",
            b"n,,n=,r=\xff",
            &long,
        ];
        for first in firsts {
            let mut exchange = Exchange::new(verifier(), true, Binding::Nothing);
            let answer = exchange.first(MECHANISM, first);
            assert!(matches!(answer, Err(Denied::Protocol(_))), "{}", first.escape_ascii());
            assert!(exchange.last(b"c=biws,r=,p=").is_err());
        }
        let mut exchange = Exchange::new(verifier(), true, Binding::Nothing);
        assert!(exchange.first("SCRAM-SHA-1", b"n,,n=,r=abc").is_err());
        let lasts: [&[u8]; 6] = [
            b"",
            b"c=biws",
            b"c=biws,r=abc,p=",
            b"c=biws,r=abc,p=AAAA",
            b"p=AAAA",
            b"c=eSws,r=abcxyz,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        ];
        for last in lasts {
            let mut exchange = Exchange::new(verifier(), true, Binding::Nothing);
            exchange.challenge(MECHANISM, b"n,,n=,r=abc", "xyz").unwrap();
            let answer = exchange.last(last);
            assert!(matches!(answer, Err(Denied::Protocol(_))), "{}", last.escape_ascii());
            assert!(exchange.proven().is_none());
        }
    }
}
