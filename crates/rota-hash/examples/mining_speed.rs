//! How fast this machine mines (step 4 under `pow`): one core, each kernel it can run.
//!
//! `cargo run --release -p rota-hash --example mining_speed`

use std::time::Instant;

use rota_hash::{Kernel, Midstate};

/// Nonces per measurement.
const NONCES: u32 = 8_000_000;

/// Measurements of which the best is told: others use this machine too.
const RUNS: usize = 5;

fn main() {
    let midstate = Midstate::of(&[7; 76]);
    // Never met.
    let target = [0; 32];
    for kernel in Kernel::available() {
        let rate = (0..RUNS)
            .map(|_| {
                let start = Instant::now();
                assert_eq!(midstate.search_with(kernel, 0, NONCES, &target), None);
                f64::from(NONCES) / start.elapsed().as_secs_f64() / 1e6
            })
            .fold(0.0, f64::max);
        println!("{kernel:?}: {rate:.1} MH/s");
    }
}
