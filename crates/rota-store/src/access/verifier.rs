//! What tells whether a password is a user's own, without being it: a SCRAM-SHA-256 verifier (RFC
//! 5802, RFC 7677), in the text that PostgreSQL has for it.
//!
//! ```text
//!   SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>      (base64)
//! ```
//! Made by the server that a password is told to (step 1), kept in `rota_users` (step 8).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// What a verifier's text begins with; nobody's password does.
pub const SCHEME: &str = "SCRAM-SHA-256$";

/// How often the password may have been hashed. Less is too cheap to guess: RFC 7677 asks for 4096
/// at least. More costs others too much: users choose their own verifiers, and over HTTP it is the
/// server that hashes, for one client at a time, so that everybody waits for the slowest (some two
/// milliseconds at 16384).
const ITERATIONS: std::ops::RangeInclusive<u32> = 4_096..=16_384;

/// How long a salt may be, in bytes.
const SALT: std::ops::RangeInclusive<usize> = 8..=64;

/// A SCRAM-SHA-256 verifier. Never printed by `Debug`: a stolen one lets its thief pretend to be
/// the server, and try passwords at home.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// How often the password was hashed.
    pub iterations: u32,
    /// What it was hashed with.
    pub salt: Vec<u8>,
    /// H(ClientKey): what a client's proof is checked against.
    pub stored_key: [u8; 32],
    /// What the server proves with that it knows the verifier.
    pub server_key: [u8; 32],
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{SCHEME}{}:{}${}:{}",
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(self.stored_key),
            BASE64.encode(self.server_key)
        )
    }
}

/// A text that is not a verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a SCRAM-SHA-256 verifier")]
pub struct NotAVerifier;

impl FromStr for Verifier {
    type Err = NotAVerifier;

    fn from_str(text: &str) -> Result<Self, NotAVerifier> {
        let parse = || {
            let (head, keys) = text.strip_prefix(SCHEME)?.split_once('$')?;
            let (iterations, salt) = head.split_once(':')?;
            let (stored, server) = keys.split_once(':')?;
            let decode = |text: &str| BASE64.decode(text).ok();
            let verifier = Self {
                iterations: iterations.parse().ok()?,
                salt: decode(salt)?,
                stored_key: decode(stored)?.try_into().ok()?,
                server_key: decode(server)?.try_into().ok()?,
            };
            let fits =
                ITERATIONS.contains(&verifier.iterations) && SALT.contains(&verifier.salt.len());
            // One text for one verifier: what is signed and what is stored are the same.
            (fits && verifier.to_string() == text).then_some(verifier)
        };
        parse().ok_or(NotAVerifier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                    WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                    wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn the_text_is_postgresqls() {
        let verifier: Verifier = TEXT.parse().unwrap();
        assert_eq!((verifier.iterations, verifier.salt.len()), (4096, 16));
        assert_eq!(verifier.to_string(), TEXT);
        assert!(!format!("{verifier:?}").contains("WG5d"));
        assert!(TEXT.replacen("4096", "16384", 1).parse::<Verifier>().is_ok());
    }

    #[test]
    fn what_is_no_verifier_is_refused() {
        for (from, to) in [
            ("SCRAM-SHA-256", "SCRAM-SHA-1"),
            ("4096", "1"),
            ("4096", "04096"),
            ("4096", "16385"),
            ("W22ZaJ0SNY7s", ""),
            ("2dU=", "2dU"),
            ("$WG5d", "$"),
            (":wfPL", ""),
        ] {
            assert!(TEXT.replacen(from, to, 1).parse::<Verifier>().is_err(), "{from} -> {to}");
        }
        assert!("secret".parse::<Verifier>().is_err());
    }
}
