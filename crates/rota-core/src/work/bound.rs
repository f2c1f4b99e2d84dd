//! How likely what is `z` deep is to be undone, for people to read in an acknowledgement (step 9).
//! Floats: nothing is decided by them.

/// The probability that somebody with the share `q` of all work (0 to 1) ever gets ahead of a
/// branch on which a block has `z` blocks on it, itself counted: Nakamoto's *Bitcoin*, section 11.
///
/// With λ = z·q/p it is Σ Poisson(k; λ) · (q/p)^(z−k) up to k = z, and the Poisson's tail beyond.
/// (The paper has 1 minus a sum, which is the same, and loses all digits where the bound is small.)
/// It holds as long as those who are honest hear of each other's blocks; not during a partition.
pub fn reversal_bound(q: f64, z: u32) -> f64 {
    if z == 0 || q >= 0.5 {
        return 1.0;
    }
    if q.is_nan() || q <= 0.0 {
        return 0.0;
    }
    let ratio = q / (1.0 - q);
    let lambda = f64::from(z) * ratio;
    // Logarithms: e^−λ alone is below the smallest float where z is some thousands.
    let mut log_poisson = -lambda;
    let mut bound = 0.0;
    let mut k = 0;
    loop {
        let behind = z.saturating_sub(k);
        let term = (log_poisson + f64::from(behind) * ratio.ln()).exp();
        bound += term;
        // λ < z: past z each term is less than the one before, by a factor that is falling.
        if k > z && term <= bound * f64::EPSILON {
            return bound.min(1.0);
        }
        k = k.saturating_add(1);
        log_poisson += lambda.ln() - f64::from(k).ln();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_that_of_nakamotos_section_11() {
        // The tables of the paper.
        let tenth = [
            (0, 1.0),
            (1, 0.204_587_3),
            (2, 0.050_977_9),
            (3, 0.013_172_2),
            (4, 0.003_455_2),
            (5, 0.000_913_7),
            (6, 0.000_242_8),
            (7, 0.000_064_7),
            (8, 0.000_017_3),
            (9, 0.000_004_6),
            (10, 0.000_001_2),
        ];
        let three_tenths = [
            (0, 1.0),
            (5, 0.177_352_3),
            (10, 0.041_660_5),
            (15, 0.010_100_8),
            (20, 0.002_480_4),
            (25, 0.000_613_2),
            (30, 0.000_152_2),
            (35, 0.000_037_9),
            (40, 0.000_009_5),
            (45, 0.000_002_4),
            (50, 0.000_000_6),
        ];
        for (q, table) in [(0.1, tenth), (0.3, three_tenths)] {
            for (z, expected) in table {
                let bound = reversal_bound(q, z);
                assert!((bound - expected).abs() < 0.5e-7, "q {q} z {z}: {bound}");
            }
        }
    }

    #[test]
    fn the_depths_under_a_tenth_of_a_percent_are_nakamotos() {
        let table = [(10, 5), (15, 8), (20, 11), (25, 15), (30, 24), (35, 41), (40, 89), (45, 340)];
        for (percent, expected) in table {
            let q = f64::from(percent) / 100.0;
            let depth = (0..).find(|z| reversal_bound(q, *z) < 0.001);
            assert_eq!(depth, Some(expected), "q {q}");
        }
    }

    #[test]
    fn small_bounds_keep_their_digits_and_shares_without_a_bound_have_none() {
        // 1 − Σ gives 0 or less here.
        let deep = reversal_bound(0.1, 40);
        assert!(deep > 0.0 && deep < 1e-20, "{deep}");
        assert!(reversal_bound(0.45, 20_000) < reversal_bound(0.45, 10_000));
        assert!((reversal_bound(0.5, 6) - 1.0).abs() < f64::EPSILON);
        assert!((reversal_bound(0.9, 6) - 1.0).abs() < f64::EPSILON);
        assert!(reversal_bound(0.0, 6) == 0.0 && reversal_bound(-1.0, 6) == 0.0);
        assert!(reversal_bound(f64::NAN, 6) == 0.0);
    }
}
