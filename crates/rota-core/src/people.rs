//! Numbers as people read them, in logs and on terminals (beside all steps).

/// `1234567` as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn numbers_are_told_in_groups_of_three() {
        let told = [0, 7, 999, 1_000, 12_345, 100_000, 1_234_567].map(thousands);
        assert_eq!(told, ["0", "7", "999", "1,000", "12,345", "100,000", "1,234,567"]);
    }
}
