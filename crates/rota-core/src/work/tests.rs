//! Proofs, searches for them (step 4), and what is known of them (step 6).

use super::*;
use crate::codec::{decode, encode};
use crate::types::BlockId;

/// Bits that one hash in 2^12 meets.
const ONE_IN_4096: u32 = 0x1f0f_ffff;

/// Bits that one hash in 2^8 meets.
const ONE_IN_256: u32 = 0x2000_ffff;

/// A job that differs from one `seed` to the next.
fn job(seed: u64, bits: u32) -> SearchJob {
    let digest = |what| rota_hash::hash(what, &[&seed.to_le_bytes()]);
    SearchJob::new(HeaderHash(digest("parent")), BlockId(digest("block")), 1_700_000_000, bits)
}

fn found(job: SearchJob) -> WorkProof {
    let mut search = Search::new(job);
    match search.step(u32::MAX) {
        Step::Found(proof) => proof,
        other => panic!("{other:?} after {} tries", search.tried()),
    }
}

/// Headers linked to each other, with real work.
fn run(length: u64) -> Vec<WorkProof> {
    let mut proofs: Vec<WorkProof> = Vec::new();
    for seed in 0..length {
        let previous = proofs.last().map(WorkProof::hash).unwrap_or_default();
        let block = BlockId(rota_hash::hash("block", &[&seed.to_le_bytes()]));
        proofs.push(found(SearchJob::new(previous, block, 7, ONE_IN_256)));
    }
    proofs
}

#[test]
fn a_proof_is_the_header_that_bitcoin_reads() {
    let previous = HeaderHash([3; 32]);
    let proof = WorkProof::new(previous, BlockId([5; 32]), 1_700_000_000, ONE_IN_256, 77);
    assert_eq!((proof.previous(), proof.block()), (previous, BlockId([5; 32])));
    assert_eq!((proof.time(), proof.bits(), proof.nonce()), (1_700_000_000, ONE_IN_256, 77));
    assert_eq!(proof.version(), WorkProof::VERSION);
    let header: bitcoin::block::Header = bitcoin::consensus::deserialize(&proof.0).unwrap();
    assert_eq!(header.version.to_consensus(), WorkProof::VERSION);
    assert_eq!(proof.hash().to_string(), header.block_hash().to_string());
    assert_eq!(proof.hash().to_string().parse(), Ok(proof.hash()));
    assert_eq!(proof.meets_its_target(), header.validate_pow(header.target()).is_ok());
    assert_eq!(Work::of(proof.bits()).to_string(), format!("{:064x}", header.work()));
    assert_eq!(encode(&proof), proof.0);
    assert_eq!(decode::<WorkProof>(&proof.0, 80).unwrap(), proof);
}

#[test]
fn bitcoins_first_block_is_a_proof() {
    let mut bytes = [0; 80];
    let genesis = "\
        0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b2\
        7ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c";
    hex::decode_to_slice(genesis, &mut bytes).unwrap();
    let proof = WorkProof(bytes);
    assert!(proof.meets_its_target());
    assert_eq!(
        proof.hash().to_string(),
        "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
    );
    assert_eq!((proof.version(), proof.previous()), (1, HeaderHash::default()));
    assert_eq!(
        (proof.time(), proof.bits(), proof.nonce()),
        (1_231_006_505, 0x1d00_ffff, 0x7c2b_ac1d)
    );
    // Not by another nonce, not under a harder target.
    bytes[76] ^= 1;
    assert!(!WorkProof(bytes).meets_its_target());
}

#[test]
fn bits_that_bitcoin_refuses_are_no_target() {
    // Cases of Bitcoin Core's arith_uint256_tests.cpp: zero, negative, too long.
    for bits in [0, 0x0012_3456, 0x0100_3456, 0x0200_0056, 0x0300_0000, 0x0400_0000, 0x0500_0000] {
        assert_eq!(target_of(bits), None, "{bits:#x}");
    }
    for bits in [0x0192_3456, 0x01fe_dcba, 0x0492_3456, 0x1d80_ffff, 0x2380_0001] {
        assert_eq!(target_of(bits), None, "{bits:#x}");
    }
    for bits in [0xff12_3456, 0x2300_0001, 0x2200_0100, 0x2101_0000, u32::MAX] {
        assert_eq!(target_of(bits), None, "{bits:#x}");
        assert!(
            !WorkProof::new(HeaderHash::default(), BlockId::default(), 0, bits, 0)
                .meets_its_target()
        );
        assert_eq!(Work::of(bits), Work::ZERO);
    }
    let hex = |bits| {
        let target = format!("{:x}", target_of(bits).unwrap());
        target.trim_start_matches('0').to_owned()
    };
    assert_eq!(hex(0x0112_3456), "12");
    assert_eq!(hex(0x0500_9234), "92340000");
    assert_eq!(hex(0x2200_00ff), format!("ff{}", "0".repeat(62)));
    assert_eq!(hex(0x2012_3456), format!("123456{}", "0".repeat(58)));
}

#[test]
fn work_is_what_bitcoin_counts() {
    // 2^256 / (0xffff·2^208 + 1): difficulty 1 is 4,295,032,833 hashes, as Bitcoin has it.
    let one = Work::of(0x1d00_ffff);
    assert_eq!(one.to_string(), format!("{:064x}", 4_295_032_833_u64));
    assert!((one.hashes() - 4_295_032_833.0).abs() < 1.0);
    let quarter = Work::of(0x0103_0000);
    assert_eq!(quarter.to_string(), format!("4{}", "0".repeat(63)));
    assert!(quarter > one && one > Work::ZERO);
    assert_eq!(one.checked_add(Work::ZERO), Some(one));
    let half = quarter.checked_add(quarter).unwrap();
    assert_eq!(half.checked_add(half), None);
    assert!(half > quarter);
    assert_eq!(
        half.checked_add(one).map(|sum| sum.to_string()),
        Some(format!("8{:063x}", 4_295_032_833_u64))
    );
    // A carry from the low half to the high one.
    let two = Work::of(0x207f_ffff);
    assert_eq!(two.to_string(), format!("{:064x}", 2));
    let low = (0..126).fold(two, |sum, _| sum.checked_add(sum).unwrap());
    assert_eq!(low.to_string(), format!("{:064x}", 1_u128 << 127));
    let high = low.checked_add(low).unwrap();
    assert_eq!(high.to_string(), format!("{:032x}{}", 1, "0".repeat(32)));
    assert!(high > low);
}

#[test]
fn a_search_finds_the_same_nonce_whatever_its_steps() {
    for seed in 0..40 {
        let job = job(seed, ONE_IN_256);
        let first = found(job);
        assert!(first.meets_its_target());
        let earlier = (0..first.nonce()).map(|nonce| job.proof(nonce));
        assert!(!earlier.into_iter().any(|proof| proof.meets_its_target()), "seed {seed}");
        for count in [1, 7, 16, 100] {
            let mut search = Search::new(job);
            let proof = loop {
                match search.step(count) {
                    Step::Found(proof) => break proof,
                    Step::More => {}
                    Step::Exhausted => panic!("4 billion nonces in {} tries", search.tried()),
                }
            };
            assert_eq!(proof, first, "seed {seed}, steps of {count}");
            assert_eq!(search.tried(), u64::from(first.nonce()) + 1);
        }
    }
}

#[test]
fn a_search_goes_on_after_what_it_found_and_ends_with_its_nonces() {
    let job = SearchJob { first: u32::MAX - 999, tries: 2_000, ..job(1, ONE_IN_256) };
    let nonces = (0..2_000).map(|step| job.first.wrapping_add(step));
    let good: Vec<_> = nonces.filter(|nonce| job.proof(*nonce).meets_its_target()).collect();
    assert!(good.len() > 1);
    let mut search = Search::new(job);
    let mut seen = Vec::new();
    loop {
        match search.step(64) {
            Step::Found(proof) => seen.push(proof.nonce()),
            Step::More => {}
            Step::Exhausted => break,
        }
    }
    assert_eq!(seen, good);
    assert_eq!(search.tried(), 2_000);
    assert_eq!(search.step(64), Step::Exhausted);
}

#[test]
fn the_parts_of_a_job_are_the_job() {
    for (of, tries) in [(1, 1 << 32), (2, 1 << 32), (3, 1 << 32), (7, 100), (7, 3), (4, 0)] {
        let whole = SearchJob { first: 5, tries, ..job(1, ONE_IN_256) };
        let mut next = u64::from(whole.first);
        for index in 0..of {
            let part = whole.part(index, of);
            assert_eq!(u64::from(part.first), next % (1 << 32), "{index} of {of}");
            next += part.tries;
        }
        assert_eq!(next - u64::from(whole.first), tries, "{of}");
    }
}

#[test]
fn a_run_of_headers_is_checked_to_its_first_flaw() {
    let proofs = run(60);
    let hashes: Vec<_> = proofs.iter().map(WorkProof::hash).collect();
    assert_eq!(check_run(&proofs), Ok(hashes));
    assert_eq!(check_run(&[]), Ok(vec![]));
    let mut swapped = proofs.clone();
    swapped.swap(20, 21);
    assert_eq!(check_run(&swapped), Err(Flaw::Unlinked(20)));
    let mut cut = proofs.clone();
    cut.remove(30);
    assert_eq!(check_run(&cut), Err(Flaw::Unlinked(30)));
    // With another nonce it is still the child of the one before, but has no work.
    let mut weak = proofs.clone();
    let other = proofs[40].nonce().wrapping_sub(1);
    let WorkProof(header) = &mut weak[40];
    header[76..].copy_from_slice(&other.to_le_bytes());
    assert_eq!(check_run(&weak), Err(Flaw::TooLittleWork(40)));
}

#[test]
fn times_follow_bitcoins_rules() {
    assert_eq!(median_time_past([]), None);
    assert_eq!(median_time_past([5]), Some(5));
    assert_eq!(median_time_past([9, 5]), Some(9));
    assert_eq!(median_time_past([9, 5, 7]), Some(7));
    assert_eq!(median_time_past([1, 2, 3, 4]), Some(3));
    assert_eq!(median_time_past([11, 3, 7, 1, 9, 5, 10, 2, 8, 4, 6]), Some(6));
    // The twelfth does not count.
    assert_eq!(median_time_past([11, 3, 7, 1, 9, 5, 10, 2, 8, 4, 6, u32::MAX]), Some(6));
    // Five liars of eleven, at either end, do not take it out of what the others say.
    let honest = 100..106;
    assert_eq!(median_time_past(honest.clone().chain([u32::MAX; 5])), Some(105));
    assert_eq!(median_time_past(honest.chain([0; 5])), Some(100));
    assert_eq!((most_ahead_s(600), most_ahead_s(3_600)), (7_200, 7_200));
    assert_eq!((most_ahead_s(2), most_ahead_s(u32::MAX)), (24, 7_200));
    let clock = crate::time::Time(1_000_000_500);
    assert!(!is_too_far_ahead(1_000_024, clock, 2));
    assert!(is_too_far_ahead(1_000_025, clock, 2));
    assert!(!is_too_far_ahead(0, clock, 2));
    assert!(!is_too_far_ahead(u32::MAX, crate::time::Time(u64::MAX), 2));
}

/// How far a sample is from the distribution of the number of tries until the first of probability
/// `p` succeeds, F(n) = 1 − (1 − p)^n: Kolmogorov and Smirnov's statistic.
fn distance(tries: &mut [u64], p: f64) -> f64 {
    tries.sort_unstable();
    let count = tries.len() as f64;
    let theory = |tries: u64| 1.0 - ((-p).ln_1p() * tries as f64).exp();
    let mut most = 0.0_f64;
    for (rank, tries) in tries.iter().enumerate() {
        // Just before and at the step. F is a step function as well, of steps of at most p.
        most = most.max((theory(*tries) - rank as f64 / count).abs() - p);
        most = most.max((theory(*tries) - (rank as f64 + 1.0) / count).abs() - p);
    }
    most
}

/// 2,000 numbers of tries, one for each seed.
fn sample(tries: impl Fn(u64) -> u64) -> Vec<u64> {
    (0..2_000).map(tries).collect()
}

#[test]
fn the_tries_of_real_searches_are_exponential() {
    let p = 1.0 / 4096.0;
    // Kolmogorov's K at the level 0.1 % is 1.9495 (1 − α = 0.999); for 2,000 real searches the
    // distance may be K/√2000 = 0.0436. Seeds are fixed: it passes always or never.
    let critical = 1.949_5 / 2_000_f64.sqrt();
    let real = |seed| u64::from(found(job(seed, ONE_IN_4096)).nonce()) + 1;
    let found_distance = distance(&mut sample(real), p);
    assert!(found_distance < critical, "{found_distance} of {critical}");

    // What must not pass: uniform tries with the same mean,
    let mut uniform = sample(|seed| 1 + (seed * 4_096 * 2 + 2_048) / 2_000);
    assert!(distance(&mut uniform, p) > critical);
    // a search that leaves out every eighth nonce but counts it,
    let skipping = |seed| {
        let mut first = 0;
        loop {
            let nonce = found(SearchJob { first, ..job(seed, ONE_IN_4096) }).nonce();
            if !nonce.is_multiple_of(8) {
                return u64::from(nonce) + 1;
            }
            first = nonce + 1;
        }
    };
    assert!(distance(&mut sample(skipping), p) > critical);
    // and a target that is a fifth easier than it says.
    let easier = |seed| u64::from(found(job(seed, 0x1f13_3333)).nonce()) + 1;
    assert!(distance(&mut sample(easier), p) > critical);
}
