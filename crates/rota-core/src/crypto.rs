//! Ed25519 with one acceptance rule for single and batch verification: ZIP-215. Two servers that
//! verify the same signature, one alone and one in a batch, must agree, or one of them votes where
//! the other does not.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use ed25519_consensus::{SigningKey, VerificationKeyBytes, batch};

use crate::error::Invalid;
use crate::types::PublicKey;

/// 64 bytes of Ed25519. Never covered by an id.
#[derive(Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", hex::encode(&self.0[..4]))
    }
}

/// A server's or a client's key. Has no `Debug`: it is never printed.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// From 32 bytes of a good random source, or of a key file.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(SigningKey::from(bytes))
    }

    /// The 32 bytes, for a key file.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Who signs with this key.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verification_key().to_bytes())
    }

    /// A signature over bytes that start with what they are (see [`Signed`]).
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

/// A claim to check: `signer` signed `message`.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Who is said to have signed.
    pub signer: PublicKey,
    /// The signed bytes: what they are, the chain id, and then the content.
    pub message: Vec<u8>,
    /// The signature.
    pub signature: Signature,
}

impl Signed {
    /// Checks this one claim.
    pub fn verify(&self) -> Result<(), Invalid> {
        self.item().verify_single().map_err(|_| Invalid::Signature(self.signer))
    }

    fn item(&self) -> batch::Item {
        let key = VerificationKeyBytes::from(self.signer.0);
        let signature = ed25519_consensus::Signature::from(self.signature.0);
        batch::Item::from((key, signature, &self.message))
    }
}

/// Checks many claims at once, some two to four times faster than one by one, by the same rule.
/// `entropy` makes the random coefficients of the batch equation; it can not change what is
/// accepted but with negligible probability.
///
/// An error says only that at least one is bad: check them one by one to find whose.
pub fn verify_batch(claims: &[Signed], entropy: [u8; 32]) -> Result<(), Invalid> {
    match claims {
        [] => Ok(()),
        [one] => one.verify(),
        many => {
            let mut verifier = batch::Verifier::new();
            for claim in many {
                verifier.queue(claim.item());
            }
            verifier
                .verify(Coefficients::new(entropy))
                .map_err(|_| Invalid::Signature(many[0].signer))
        }
    }
}

/// The batch equation's random coefficients: SHA-256 in counter mode over the caller's entropy, so
/// that core itself draws no randomness.
struct Coefficients {
    entropy: [u8; 32],
    counter: u64,
}

impl Coefficients {
    fn new(entropy: [u8; 32]) -> Self {
        Self { entropy, counter: 0 }
    }
}

impl rand_core::CryptoRng for Coefficients {}

impl rand_core::RngCore for Coefficients {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let block =
                rota_hash::hash("rota batch", &[&self.entropy, &self.counter.to_le_bytes()]);
            self.counter += 1;
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(count: u8) -> Vec<Signed> {
        (0..count)
            .map(|i| {
                let key = SecretKey::from_bytes([i; 32]);
                let message = vec![i; 40];
                Signed { signer: key.public(), signature: key.sign(&message), message }
            })
            .collect()
    }

    #[test]
    fn one_bad_signature_spoils_the_batch_and_is_found_alone() {
        let mut claims = claims(8);
        assert!(verify_batch(&claims, [7; 32]).is_ok());
        claims[5].message[0] ^= 1;
        assert!(verify_batch(&claims, [7; 32]).is_err());
        let bad: Vec<usize> = (0..8).filter(|&i| claims[i].verify().is_err()).collect();
        assert_eq!(bad, [5]);
    }

    /// ZIP-215: a key of small order verifies with R and s zero, alone and in a batch.
    /// Implementations with another rule for one of the two would split the cluster here.
    #[test]
    fn small_order_keys_are_accepted_alike_alone_and_in_a_batch() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        let odd = Signed {
            signer: PublicKey(identity),
            message: b"any".to_vec(),
            signature: Signature(signature),
        };
        assert!(odd.verify().is_ok());
        let mut batch = claims(3);
        batch.push(odd);
        assert!(verify_batch(&batch, [9; 32]).is_ok());
    }
}
