//! Experiments under `pow`: what is measured here stands in docs/methods/pow.md. Each prints a
//! table, and says whether what was measured is what theory expects.
//!
//! ```sh
//! cargo run -p rota-sim --release -- experiment retarget     # or stale, or intervals
//! ```

pub mod intervals;
pub mod retarget;
pub mod stale;

/// Prints what it finds; false if that is not what theory says.
pub type Experiment = fn() -> bool;

/// All experiments by name; each prints, and is false if a check failed.
pub const EXPERIMENTS: &[(&str, Experiment)] =
    &[("retarget", retarget::print), ("stale", stale::print), ("intervals", intervals::print)];

/// More standard errors than this between measured and expected are no chance: once in 370 times
/// they are, and a table has ten rows.
pub const MOST_ERRORS: f64 = 3.5;

/// The mean of some numbers, and its standard error.
pub fn mean(numbers: &[f64]) -> (f64, f64) {
    let count = numbers.len().max(2) as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0) / count).sqrt())
}

/// How a check ended, in a word.
pub fn word(passed: bool) -> &'static str {
    if passed { "as expected" } else { "NOT AS EXPECTED" }
}
