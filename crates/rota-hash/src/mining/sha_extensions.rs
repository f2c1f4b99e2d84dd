//! Two nonces side by side (step 4 under `pow`), by the SHA extensions of x86: two rounds are one
//! instruction, whose result takes four cycles; with two hashes at once they do not wait for it.
//! Nothing here is `unsafe` but to enter it.
//!
//! The eight words of the state are in two registers, ABEF and CDGH, the first of a name the most
//! significant (Gulley et al., *Intel SHA Extensions*, 2013).

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_cvtsi128_si32, _mm_set_epi32,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi32,
    _mm_unpackhi_epi64, _mm_unpacklo_epi64,
};

use super::{DIGEST_BITS, HEADER_BITS, K, Midstate, START};

/// ABEF and CDGH.
type State = [__m128i; 2];

/// The first of `count` nonces from `first` on whose hash may be below a target whose first 32 bits
/// are `limit`. The processor has the SHA extensions.
pub(super) fn candidate(midstate: &Midstate, first: u32, count: u32, limit: u32) -> Option<u32> {
    // SAFETY: `Kernel::runs` found SHA, SSSE3 and SSE4.1, the features that `run` is compiled for,
    // before `Midstate::search_with` calls this.
    unsafe { run(midstate, first, count, limit) }
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn run(midstate: &Midstate, first: u32, count: u32, limit: u32) -> Option<u32> {
    let mut tried = 0;
    while tried < count {
        let nonce = first.wrapping_add(tried);
        let [one, other] = last_words(midstate, [nonce, nonce.wrapping_add(1)]);
        if one.swap_bytes() <= limit {
            return Some(nonce);
        }
        if other.swap_bytes() <= limit && count - tried > 1 {
            return Some(nonce.wrapping_add(1));
        }
        tried = tried.saturating_add(2);
    }
    None
}

/// The last word of the hashes of two headers; in it are the first 32 bits of the number that a
/// hash is.
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn last_words(midstate: &Midstate, nonces: [u32; 2]) -> [u32; 2] {
    let [a, b, c] = midstate.tail;
    let (end, zeros) = (four(0x8000_0000, 0, 0, 0), four(0, 0, 0, 0));
    let length = four(0, 0, 0, HEADER_BITS.into());
    let before = packed(midstate.state);
    let mut states = [before; 2];
    let blocks = nonces.map(|nonce| [four(a, b, c, nonce.swap_bytes()), end, zeros, length]);
    rounds::<64>(&mut states, blocks);
    let length = four(0, 0, 0, DIGEST_BITS.into());
    let blocks = states.map(|[abef, cdgh]| {
        // From the least significant word on: F E B A and H G D C; then E F A B and G H C D.
        let efab = _mm_shuffle_epi32::<0xb1>(_mm_add_epi32(abef, before[0]));
        let ghcd = _mm_shuffle_epi32::<0xb1>(_mm_add_epi32(cdgh, before[1]));
        [_mm_unpackhi_epi64(efab, ghcd), _mm_unpacklo_epi64(efab, ghcd), end, length]
    });
    let mut states = [packed(START); 2];
    // `f` after round 61 is `h` after round 63: the rest would not change it.
    rounds::<62>(&mut states, blocks);
    states.map(|[abef, _]| _mm_cvtsi128_si32(abef).cast_unsigned().wrapping_add(START[7]))
}

/// The first `N` rounds of two hashes: 64, or 62.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn rounds<const N: usize>(states: &mut [State; 2], mut blocks: [[__m128i; 4]; 2]) {
    for group in 0..16 {
        let at = group % 4;
        for (state, words) in states.iter_mut().zip(&mut blocks) {
            if group >= 4 {
                words[at] = expanded([0, 1, 2, 3].map(|ahead| words[(at + ahead) % 4]));
            }
            let round = 4 * group;
            let constants = four(K[round], K[round + 1], K[round + 2], K[round + 3]);
            let sums = _mm_add_epi32(words[at], constants);
            *state = two_rounds(*state, sums);
            if round + 2 < N {
                *state = two_rounds(*state, _mm_shuffle_epi32::<0x0e>(sums));
            }
        }
    }
}

/// The instruction makes the new ABEF; the new CDGH is the old ABEF.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn two_rounds([abef, cdgh]: State, sums: __m128i) -> State {
    [_mm_sha256rnds2_epu32(cdgh, abef, sums), abef]
}

/// The next four words of the message schedule, from the sixteen before them.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn expanded([first, second, third, fourth]: [__m128i; 4]) -> __m128i {
    let nine_on = _mm_alignr_epi8::<4>(fourth, third);
    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(first, second), nine_on);
    _mm_sha256msg2_epu32(sum, fourth)
}

/// Four words, the first the least significant.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn four(a: u32, b: u32, c: u32, d: u32) -> __m128i {
    let [a, b, c, d] = [a, b, c, d].map(u32::cast_signed);
    _mm_set_epi32(d, c, b, a)
}

/// A state in its two registers.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn packed([a, b, c, d, e, f, g, h]: [u32; 8]) -> State {
    [four(f, e, b, a), four(h, g, d, c)]
}
