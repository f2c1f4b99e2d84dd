//! Bitcoin's search (step 4 under `pow`): SHA-256d of a header of 80 bytes, of which only the last
//! four, the nonce, change from one try to the next.
//!
//! ```text
//!  header  │ 64 bytes │ 12 bytes │ nonce │ padding │
//!              │           └────────┬────────┘
//!          once a job          first hash, from the midstate ─► second hash ─► below the target?
//!              └─► midstate ────────┘
//! ```
//!
//! Three kernels do the same: sixteen nonces side by side where the processor has AVX-512, two
//! where it has SHA extensions, one with `sha2` anywhere else. They only look at the first 32 bits
//! of a hash, as a number; what passes is hashed again by `sha2`, which has the last word.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod sha_extensions;

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

/// The round constants of SHA-256 (FIPS 180-4, section 4.2.2).
#[cfg(target_arch = "x86_64")]
const K: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];

/// The bits of a header, as SHA-256's padding says them.
const HEADER_BITS: u16 = 80 * 8;

/// The bits of a digest.
const DIGEST_BITS: u16 = 32 * 8;

/// A header but for its nonce, and what of its hash is the same for every nonce.
#[derive(Clone, Debug)]
pub struct Midstate {
    /// SHA-256's state after the first 64 bytes.
    state: [u32; 8],
    /// The 12 bytes between those and the nonce.
    tail: [u32; 3],
}

/// How nonces are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Sixteen side by side, in AVX-512 registers.
    Avx512,
    /// Two side by side, by the SHA extensions of x86.
    ShaExtensions,
    /// One by one, by `sha2`, which uses what the processor has.
    Plain,
}

impl Kernel {
    /// All that this processor can run, the fastest first.
    pub fn available() -> impl Iterator<Item = Self> {
        [Self::Avx512, Self::ShaExtensions, Self::Plain].into_iter().filter(|kernel| kernel.runs())
    }

    #[cfg(target_arch = "x86_64")]
    fn runs(self) -> bool {
        match self {
            Self::Avx512 => is_x86_feature_detected!("avx512f"),
            Self::ShaExtensions => {
                is_x86_feature_detected!("sha")
                    && is_x86_feature_detected!("ssse3")
                    && is_x86_feature_detected!("sse4.1")
            }
            Self::Plain => true,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn runs(self) -> bool {
        self == Self::Plain
    }

    /// The first of `count` nonces (at least one) from `first` on that is worth a closer look: it
    /// may be below a target whose first 32 bits are `limit`, and none before it is.
    #[cfg(target_arch = "x86_64")]
    fn candidate(self, midstate: &Midstate, first: u32, count: u32, limit: u32) -> Option<u32> {
        match self {
            Self::Avx512 => avx512::candidate(midstate, first, count, limit),
            Self::ShaExtensions => sha_extensions::candidate(midstate, first, count, limit),
            Self::Plain => Some(first),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn candidate(self, _: &Midstate, first: u32, _count: u32, _limit: u32) -> Option<u32> {
        Some(first)
    }
}

impl Midstate {
    /// Of a header without its last four bytes, the nonce.
    pub fn of(prefix: &[u8; 76]) -> Self {
        let mut first = [0; 64];
        let mut tail = [0; 3];
        first.copy_from_slice(&prefix[..64]);
        for (word, bytes) in tail.iter_mut().zip(prefix[64..].chunks_exact(4)) {
            *word = u32::from_be_bytes(bytes.try_into().expect("chunks of 4"));
        }
        let mut state = START;
        compress256(&mut state, &[first]);
        Self { state, tail }
    }

    /// SHA-256d of the header with this nonce.
    pub fn hash(&self, nonce: u32) -> [u8; 32] {
        let mut state = self.state;
        let [a, b, c] = self.tail;
        compress256(&mut state, &[padded(&[a, b, c, nonce.swap_bytes()], HEADER_BITS)]);
        let second = padded(&state, DIGEST_BITS);
        state = START;
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
        let kernel = Kernel::available().next().unwrap_or(Kernel::Plain);
        self.search_with(kernel, first, count, target)
    }

    /// [`Midstate::search`] by a kernel of one's choice, which has to be among those of
    /// [`Kernel::available`]. All of them find the same.
    pub fn search_with(
        &self,
        kernel: Kernel,
        first: u32,
        count: u32,
        target: &[u8; 32],
    ) -> Option<u32> {
        assert!(kernel.runs(), "{kernel:?} on a processor that lacks it");
        let [.., a, b, c, d] = *target;
        let limit = u32::from_le_bytes([a, b, c, d]);
        let mut next = first;
        let mut left = count;
        while left > 0 {
            let nonce = kernel.candidate(self, next, left, limit)?;
            if self.is_good(nonce, target) {
                return Some(nonce);
            }
            left -= nonce.wrapping_sub(next) + 1;
            next = nonce.wrapping_add(1);
        }
        None
    }

    fn is_good(&self, nonce: u32, target: &[u8; 32]) -> bool {
        self.hash(nonce).iter().rev().le(target.iter().rev())
    }
}

/// A message of less than 56 bytes as SHA-256's only or last block; `bits` is how long all of the
/// message is.
fn padded(words: &[u32], bits: u16) -> [u8; 64] {
    let mut block = [0; 64];
    let (message, padding) = block.split_at_mut(words.len() * 4);
    for (bytes, word) in message.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    padding[0] = 0x80;
    block[62..].copy_from_slice(&bits.to_be_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sha256;

    /// Bitcoin's first block, as published: all of its 80 bytes, and its hash as it is hashed.
    const GENESIS: &str = "\
        0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b2\
        7ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c";
    const GENESIS_HASH: &str = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f";
    const GENESIS_NONCE: u32 = 2_083_236_893;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
    }

    fn genesis() -> Midstate {
        let [prefix @ .., _, _, _, _]: [u8; 80] = bytes(GENESIS);
        Midstate::of(&prefix)
    }

    /// A prefix that differs from one `seed` to the next.
    fn prefix(seed: u64) -> [u8; 76] {
        let mut prefix = [0; 76];
        for (at, bytes) in (0_u8..).zip(prefix.chunks_mut(32)) {
            let digest = sha256(&[&seed.to_le_bytes()[..], &[at]].concat());
            bytes.copy_from_slice(&digest[..bytes.len()]);
        }
        prefix
    }

    /// The target that a hash meets with one try in 2^`bits`, up to 32 of them.
    fn one_in(bits: u32) -> [u8; 32] {
        let mut target = [0xff; 32];
        target[28..].copy_from_slice(&(u32::MAX >> bits).to_le_bytes());
        target
    }

    #[test]
    fn the_hash_of_a_header_is_the_published_one() {
        let mut hash: [u8; 32] = bytes(GENESIS_HASH);
        hash.reverse();
        assert_eq!(genesis().hash(GENESIS_NONCE), hash);
    }

    #[test]
    fn every_kernel_finds_bitcoins_first_nonce_and_nothing_before_it() {
        // The target of bits 0x1d00ffff: 0xffff · 2^208.
        let mut target = [0; 32];
        target[26..28].copy_from_slice(&[0xff; 2]);
        for kernel in Kernel::available() {
            for before in [0, 1, 15, 16, 17, 40_000] {
                let first = GENESIS_NONCE - before;
                let search = |count| genesis().search_with(kernel, first, count, &target);
                assert_eq!(search(before), None, "{kernel:?} {before}");
                assert_eq!(search(before + 1), Some(GENESIS_NONCE), "{kernel:?} {before}");
                assert_eq!(search(u32::MAX), Some(GENESIS_NONCE), "{kernel:?} {before}");
            }
        }
    }

    #[test]
    fn every_kernel_finds_what_hashing_one_by_one_finds() {
        for seed in 0..60 {
            let midstate = Midstate::of(&prefix(seed));
            // Over the end of the nonces, too.
            let first = u32::MAX.wrapping_sub(37).wrapping_add(u32::try_from(seed).unwrap());
            let target = one_in(u32::try_from(seed % 11).unwrap());
            let count = 500 + u32::try_from(seed).unwrap();
            let plain = (0..count).map(|step| first.wrapping_add(step)).find(|nonce| {
                let header = [&prefix(seed)[..], &nonce.to_le_bytes()].concat();
                sha256(&sha256(&header)).iter().rev().le(target.iter().rev())
            });
            for kernel in Kernel::available() {
                let found = midstate.search_with(kernel, first, count, &target);
                assert_eq!(found, plain, "{kernel:?} seed {seed}");
            }
        }
    }

    #[test]
    fn a_hash_equal_to_the_target_is_good_and_one_above_it_is_not() {
        let midstate = Midstate::of(&prefix(1));
        for nonce in 0..100 {
            let hash = midstate.hash(nonce);
            let mut below = hash;
            // One less, as a number.
            let at = below.iter().position(|byte| *byte > 0).unwrap();
            below[at] -= 1;
            below[..at].fill(0xff);
            for kernel in Kernel::available() {
                assert_eq!(midstate.search_with(kernel, nonce, 1, &hash), Some(nonce));
                assert_eq!(midstate.search_with(kernel, nonce, 1, &below), None);
            }
        }
    }

    #[test]
    fn no_tries_find_nothing() {
        for kernel in Kernel::available() {
            assert_eq!(genesis().search_with(kernel, 0, 0, &[0xff; 32]), None);
        }
    }
}
