//! Sixteen nonces side by side (step 4 under `pow`): each 32-bit word of SHA-256 is an AVX-512
//! register with the word of sixteen hashes. Nothing here is `unsafe` but to enter it.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_and_si512, _mm512_cmple_epu32_mask, _mm512_or_si512,
    _mm512_ror_epi32, _mm512_set_epi32, _mm512_set1_epi32, _mm512_srli_epi32,
    _mm512_ternarylogic_epi32,
};

use super::{DIGEST_BITS, HEADER_BITS, K, Midstate, START};

/// Hashes in a register.
const LANES: u32 = 16;

/// Truth tables for `_mm512_ternarylogic_epi32`: x ^ y ^ z; x ? y : z; the majority of the three.
const XOR: i32 = 0x96;
const CHOOSE: i32 = 0xca;
const MAJORITY: i32 = 0xe8;

/// The first of `count` nonces from `first` on whose hash may be below a target whose first 32 bits
/// are `limit`. The processor has AVX-512.
pub(super) fn candidate(midstate: &Midstate, first: u32, count: u32, limit: u32) -> Option<u32> {
    // SAFETY: `Kernel::runs` found AVX-512 F, the only feature that `run` is compiled for, before
    // `Midstate::search_with` calls this.
    unsafe { run(midstate, first, count, limit) }
}

#[target_feature(enable = "avx512f")]
fn run(midstate: &Midstate, first: u32, count: u32, limit: u32) -> Option<u32> {
    let lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    let limit = all(limit);
    let mut tried = 0;
    while tried < count {
        let base = first.wrapping_add(tried);
        let left = count - tried;
        let top = last_word(midstate, swapped(_mm512_add_epi32(all(base), lanes)));
        let mut good = _mm512_cmple_epu32_mask(swapped(top), limit);
        if left < LANES {
            // Those past the last are somebody else's.
            good &= (1 << left) - 1;
        }
        if good != 0 {
            return Some(base.wrapping_add(good.trailing_zeros()));
        }
        tried = tried.saturating_add(LANES);
    }
    None
}

/// The last word of the hashes of sixteen headers; in it are the first 32 bits of the number that a
/// hash is.
#[target_feature(enable = "avx512f")]
fn last_word(midstate: &Midstate, nonces: __m512i) -> __m512i {
    let zero = all(0);
    let mut words = [zero; 16];
    for (word, known) in words.iter_mut().zip(midstate.tail) {
        *word = all(known);
    }
    words[3] = nonces;
    words[4] = all(0x8000_0000);
    words[15] = all(u32::from(HEADER_BITS));
    let before = every(midstate.state);
    let mut state = before;
    rounds::<64>(&mut state, &mut words);
    let mut words = [zero; 16];
    for ((word, before), after) in words.iter_mut().zip(before).zip(state) {
        *word = _mm512_add_epi32(before, after);
    }
    words[8] = all(0x8000_0000);
    words[15] = all(u32::from(DIGEST_BITS));
    let mut state = every(START);
    // `e` after round 60 is `h` after round 63: the rest would not change it. After 61 rounds the
    // names have moved by five places, and `e` is the last.
    rounds::<61>(&mut state, &mut words);
    _mm512_add_epi32(state[7], all(START[7]))
}

/// The first `N` rounds of SHA-256, at least 48.
#[inline]
#[target_feature(enable = "avx512f")]
fn rounds<const N: usize>(state: &mut [__m512i; 8], words: &mut [__m512i; 16]) {
    macro_rules! sixteen {
        ($from:literal) => {
            sixteen!($from, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
        };
        ($from:literal, $($at:literal)*) => {
            $(
                if $from + $at < N {
                    if $from > 0 {
                        expand::<$at>(words);
                    }
                    round::<$at>(state, words[$at], K[$from + $at]);
                }
            )*
        };
    }
    sixteen!(0);
    sixteen!(16);
    sixteen!(32);
    sixteen!(48);
}

/// The next word of the message schedule, in place of that of sixteen rounds ago.
#[inline]
#[target_feature(enable = "avx512f")]
fn expand<const AT: usize>(words: &mut [__m512i; 16]) {
    let (old, two_back) = (words[(AT + 1) % 16], words[(AT + 14) % 16]);
    let low =
        xor(_mm512_ror_epi32::<7>(old), _mm512_ror_epi32::<18>(old), _mm512_srli_epi32::<3>(old));
    let high = xor(
        _mm512_ror_epi32::<17>(two_back),
        _mm512_ror_epi32::<19>(two_back),
        _mm512_srli_epi32::<10>(two_back),
    );
    let sum = _mm512_add_epi32(words[AT], words[(AT + 9) % 16]);
    words[AT] = _mm512_add_epi32(sum, _mm512_add_epi32(low, high));
}

/// Round `AT` of sixteen. The eight words of the state do not move: their names do, by one a round.
#[inline]
#[target_feature(enable = "avx512f")]
fn round<const AT: usize>(state: &mut [__m512i; 8], word: __m512i, constant: u32) {
    let place = |name: usize| (name + 16 - AT) % 8;
    let [a, b, c, _, e, f, g, h] = std::array::from_fn(|name| state[place(name)]);
    let sum1 = xor(_mm512_ror_epi32::<6>(e), _mm512_ror_epi32::<11>(e), _mm512_ror_epi32::<25>(e));
    let choice = _mm512_ternarylogic_epi32::<CHOOSE>(e, f, g);
    let known = _mm512_add_epi32(h, _mm512_add_epi32(word, all(constant)));
    let first = _mm512_add_epi32(known, _mm512_add_epi32(sum1, choice));
    let sum0 = xor(_mm512_ror_epi32::<2>(a), _mm512_ror_epi32::<13>(a), _mm512_ror_epi32::<22>(a));
    let second = _mm512_add_epi32(sum0, _mm512_ternarylogic_epi32::<MAJORITY>(a, b, c));
    state[place(3)] = _mm512_add_epi32(state[place(3)], first);
    state[place(7)] = _mm512_add_epi32(first, second);
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<XOR>(x, y, z)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn all(word: u32) -> __m512i {
    _mm512_set1_epi32(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f")]
fn every(words: [u32; 8]) -> [__m512i; 8] {
    words.map(|word| all(word))
}

/// Each word with its four bytes reversed.
#[inline]
#[target_feature(enable = "avx512f")]
fn swapped(words: __m512i) -> __m512i {
    let even = _mm512_and_si512(_mm512_ror_epi32::<8>(words), all(0xff00_ff00));
    let odd = _mm512_and_si512(_mm512_ror_epi32::<24>(words), all(0x00ff_00ff));
    _mm512_or_si512(even, odd)
}
