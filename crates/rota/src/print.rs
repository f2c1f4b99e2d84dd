//! Printing for people and for pipes: columns that line up, numbers with thousands marked, and no
//! panic when whoever reads the output has seen enough.

use std::io::{self, Write};

pub use rota_core::people::thousands;

use crate::failure::Failure;

/// Writes to standard output. When its reader is gone (`rota … | head`), fails quietly.
pub fn out(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::quiet(),
            _ => Failure::new(format!("writing to standard output: {error}")),
        }
    })
}

/// A column of a table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Lines up cells in columns two spaces apart; the first row is the heading.
pub fn columns(rows: &[Vec<String>], align: &[Align]) -> String {
    let widths: Vec<usize> = (0..align.len())
        .map(|i| rows.iter().filter_map(|row| row.get(i)).map(|cell| width(cell)).max())
        .map(Option::unwrap_or_default)
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for ((cell, wide), align) in row.iter().zip(&widths).zip(align) {
            let gap = " ".repeat(wide.saturating_sub(width(cell)));
            match align {
                Align::Left => line.extend([cell.as_str(), &gap, "  "]),
                Align::Right => line.extend([&gap, cell.as_str(), "  "]),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// How many terminal columns a text takes; characters of double width are rare enough to be counted
/// as one.
pub fn width(text: &str) -> usize {
    text.chars().count()
}

/// How many columns the terminal has; 80 where there is none.
pub fn terminal_width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(80)
}

/// A number of hashes, or of hashes a second, as `1.2 M`.
pub fn hashes(number: u64) -> String {
    let (mut number, mut unit) = (number as f64, "");
    for next in ["k", "M", "G", "T", "P"] {
        if number < 999.5 {
            break;
        }
        (number, unit) = (number / 1_000.0, next);
    }
    match unit {
        "" => format!("{number} "),
        unit if number < 9.95 => format!("{number:.1} {unit}"),
        unit => format!("{number:.0} {unit}"),
    }
}

/// The logarithm of a number of hexadecimal digits, to the base 2; of 0 it is 0.
pub fn log2(hex: &str) -> f64 {
    let digits = hex.trim_start_matches('0');
    let (first, rest) = digits.split_at(digits.len().min(12));
    let number = u64::from_str_radix(first, 16).unwrap_or(0);
    if number == 0 { 0.0 } else { (number as f64).log2() + 4.0 * rest.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_counted_in_thousands_of_thousands() {
        for (number, text) in [
            (0, "0 "),
            (999, "999 "),
            (1_000, "1.0 k"),
            (16_400, "16 k"),
            (1_250_000, "1.2 M"),
            (999_900_000, "1.0 G"),
        ] {
            assert_eq!(hashes(number), text);
        }
    }

    #[test]
    fn work_is_told_as_a_power_of_two() {
        for (text, power) in [("0000", 0.0), ("", 0.0), ("01", 0.0), ("0f00", 11.907)] {
            assert!((log2(text) - power).abs() < 1e-3, "{text}: {}", log2(text));
        }
        assert!((log2(&format!("1{}", "0".repeat(63))) - 252.0).abs() < 1e-9);
    }

    #[test]
    fn cells_line_up() {
        let rows = [vec!["name".into(), "n".into()], vec!["é".into(), "10".into()]];
        assert_eq!(columns(&rows, &[Align::Left, Align::Right]), "name   n\né     10\n");
    }
}
