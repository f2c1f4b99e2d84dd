//! Bitcoin's search (step 4 under `pow`): SHA-256d of a header of 80 bytes, of which only the last
//! four change.

use sha2::block_api::compress256;

/// SHA-256's state before the first block (FIPS 180-4, section 5.3.3).
const START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// What is hashed once for all nonces of a header.
#[derive(Clone, Debug)]
pub struct Midstate {
    /// SHA-256's state after the first 64 bytes.
    state: [u32; 8],
    /// The second block: 12 bytes of header, the nonce, padding.
    tail: [u8; 64],
}

impl Midstate {
    /// Of a header without its last four bytes, the nonce.
    pub fn of(prefix: &[u8; 76]) -> Self {
        let (head, rest) = prefix.split_at(64);
        let mut state = START;
        compress256(&mut state, &[head.try_into().expect("64 bytes")]);
        let mut tail = [0; 64];
        tail[..12].copy_from_slice(rest);
        tail[16] = 0x80;
        tail[62..].copy_from_slice(&(80_u16 * 8).to_be_bytes());
        Self { state, tail }
    }

    /// SHA-256d of the header with this nonce.
    pub fn hash(&self, nonce: u32) -> [u8; 32] {
        let mut tail = self.tail;
        tail[12..16].copy_from_slice(&nonce.to_le_bytes());
        let mut state = self.state;
        compress256(&mut state, &[tail]);
        let mut second = [0; 64];
        for (bytes, word) in second.chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        second[32] = 0x80;
        second[62..].copy_from_slice(&(32_u16 * 8).to_be_bytes());
        let mut state = START;
        compress256(&mut state, &[second]);
        let mut digest = [0; 32];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        digest
    }

    /// The first of `count` nonces from `first` on, 0 following the last, whose hash is not above
    /// `target`; both are little-endian numbers.
    pub fn search(&self, first: u32, count: u32, target: &[u8; 32]) -> Option<u32> {
        (0..count)
            .map(|step| first.wrapping_add(step))
            .find(|nonce| self.hash(*nonce).iter().rev().le(target.iter().rev()))
    }
}
