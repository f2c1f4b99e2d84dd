//! JSON, durations and times as Go writes and reads them: rqlite is written in Go, and its answers
//! (step 9 of a transaction's life) are compared byte for byte.
//!
//! Facts from Go's `encoding/json` and `time`, and from its driver for SQLite, which turns what
//! rests in a DATE, DATETIME or TIMESTAMP column into a time and shows it by RFC 3339.

use std::fmt::Write;
use std::time::Duration;

/// One level of `?pretty`.
const INDENT: &str = "    ";

/// From here on whole seconds are taken for milliseconds (Go's driver for SQLite).
const MOST_SECONDS: i64 = 1_000_000_000_000;

/// What Go's driver shows for text that is no time.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Appends a string. As in Go, what means something in HTML is escaped.
pub(crate) fn string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

/// Appends a number: the fewest digits that tell it from others, with an exponent where it is very
/// small or very large. What is infinite has no number in JSON: null.
pub(crate) fn real(out: &mut String, number: f64) {
    if !number.is_finite() {
        return out.push_str("null");
    }
    let size = number.abs();
    let _ = if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{number:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => {
                write!(out, "{digits}e+{exponent}")
            }
            _ => write!(out, "{text}"),
        }
    } else {
        write!(out, "{number}")
    };
}

/// Go's `json.Indent` of JSON without white space: one value a line.
pub(crate) fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len().saturating_mul(2));
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let mut opened = false;
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&INDENT.repeat(depth));
    };
    for character in json.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
            out.push(character);
            continue;
        }
        let closes = matches!(character, '}' | ']');
        if opened && !closes {
            line(&mut out, depth);
        }
        if closes {
            depth = depth.saturating_sub(1);
            if !opened {
                line(&mut out, depth);
            }
        }
        opened = matches!(character, '{' | '[');
        out.push(character);
        match character {
            '{' | '[' => depth = depth.saturating_add(1),
            ',' => line(&mut out, depth),
            ':' => out.push(' '),
            '"' => in_string = true,
            _ => {}
        }
    }
    out
}

/// Durations: `1h2m3.5s`, `300ms`, `0`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at_checked(end)?;
        let number: f64 = number.parse().ok()?;
        // The longer units first: "ms" is not "m".
        let units = [
            ("ns", 1e-9),
            ("us", 1e-6),
            ("µs", 1e-6),
            ("ms", 1e-3),
            ("h", 3600.0),
            ("m", 60.0),
            ("s", 1.0),
        ];
        let (name, seconds) = units.into_iter().find(|(name, _)| unit.starts_with(name))?;
        sum = sum.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = unit.strip_prefix(name)?;
    }
    (!text.is_empty()).then_some(sum)
}

/// Text in a DATE, DATETIME or TIMESTAMP column.
pub(crate) fn time_of_text(text: &str) -> String {
    read_time(text).unwrap_or_else(|| ZERO_TIME.into())
}

/// A number there: seconds since 1970, or milliseconds if it is so large. `None`: in no year that
/// RFC 3339 can write.
pub(crate) fn time_of_number(number: i64) -> Option<String> {
    let (seconds, nanos) = if number.abs_diff(0) > MOST_SECONDS.abs_diff(0) {
        (number.div_euclid(1000), number.rem_euclid(1000).saturating_mul(1_000_000))
    } else {
        (number, 0)
    };
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    if !(0..=9999).contains(&year) {
        return None;
    }
    let second = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut out = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    fraction(&mut out, &format!("{nanos:09}"));
    out.push('Z');
    Some(out)
}

/// Appends the digits of a fraction of a second, nine at most, without zeros at the end.
fn fraction(out: &mut String, digits: &str) {
    let digits = digits.get(..9).unwrap_or(digits).trim_end_matches('0');
    if !digits.is_empty() {
        out.push('.');
        out.push_str(digits);
    }
}

/// The day, so many days after 1970-01-01, in the Gregorian calendar (Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// A date, with or without a time and an offset, as `2006-01-02 15:04:05.999-07:00`.
fn read_time(text: &str) -> Option<String> {
    let mut rest = text.strip_suffix('Z').unwrap_or(text);
    let year = digits(&mut rest, 4, 4)?;
    let month = digits(symbol(&mut rest, "-")?, 2, 2)?;
    let day = digits(symbol(&mut rest, "-")?, 2, 2)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) {
        return None;
    }
    let mut out = format!("{year:04}-{month:02}-{day:02}T");
    if rest.is_empty() {
        out.push_str("00:00:00Z");
        return Some(out);
    }
    rest = rest.strip_prefix(['T', ' '])?.trim_start_matches(' ');
    let hour = digits(&mut rest, 1, 2)?;
    let minute = digits(symbol(&mut rest, ":")?, 2, 2)?;
    let timed = symbol(&mut rest, ":").is_some();
    let second = if timed { digits(&mut rest, 2, 2)? } else { 0 };
    if hour > 23 || minute > 59 || second > 59 || !(timed || rest.is_empty()) {
        return None;
    }
    let _ = write!(out, "{hour:02}:{minute:02}:{second:02}");
    if let Some(after) = rest.strip_prefix(['.', ',']) {
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (found, after) = after.split_at_checked(end).filter(|(found, _)| !found.is_empty())?;
        fraction(&mut out, found);
        rest = after;
    }
    out.push_str(&offset(rest)?);
    Some(out)
}

/// `+05:30` at the end, or nothing.
fn offset(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("Z".into());
    }
    let mut rest = text.strip_prefix(['+', '-'])?;
    let hours = digits(&mut rest, 2, 2)?;
    let minutes = digits(symbol(&mut rest, ":")?, 2, 2)?;
    if !rest.is_empty() || hours > 24 || minutes > 59 {
        return None;
    }
    Some(if hours + minutes == 0 { "Z".into() } else { text.into() })
}

/// Takes a number of some digits off the front.
fn digits(rest: &mut &str, least: usize, most: usize) -> Option<u32> {
    let count = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
    let (found, after) = rest.split_at_checked(count).filter(|_| count >= least)?;
    *rest = after;
    found.parse().ok()
}

/// Takes something off the front.
fn symbol<'r, 't>(rest: &'r mut &'t str, wanted: &str) -> Option<&'r mut &'t str> {
    *rest = rest.strip_prefix(wanted)?;
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_does() {
        let mut out = String::new();
        string(&mut out, "a ->> <&\u{2028}\u{7f}\u{8}\u{c}\u{1}\"\\é\0");
        let want = concat!(
            r#""a -\u003e\u003e \u003c\u0026\u2028"#,
            "\u{7f}",
            r#"\b\f\u0001\"\\é\u0000""#
        );
        assert_eq!(out, want);
    }

    #[test]
    fn numbers_are_written_as_go_does() {
        for (number, want) in [
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (1e-6, "0.000001"),
            (9.99e-7, "9.99e-7"),
            (5e-324, "5e-324"),
            (-f64::MAX, "-1.7976931348623157e+308"),
            (-0.0, "-0"),
            (100.0, "100"),
            (12_345_678_901_234_567_890.0, "12345678901234567000"),
            (0.000_014_271, "0.000014271"),
            (f64::INFINITY, "null"),
        ] {
            let mut out = String::new();
            real(&mut out, number);
            assert_eq!(out, want);
        }
    }

    #[test]
    fn pretty_json_has_one_value_a_line() {
        let json = r#"{"a":[],"b":{},"c":[{"d":"{[,:\"","e":[1,null]}]}"#;
        let want = "{\n    \"a\": [],\n    \"b\": {},\n    \"c\": [\n        {\n            \"d\": \
                    \"{[,:\\\"\",\n            \"e\": [\n                1,\n                null\n\
                    \x20           ]\n        }\n    ]\n}";
        assert_eq!(indented(json), want);
    }

    #[test]
    fn times_are_shown_as_go_s_driver_shows_them() {
        for (text, want) in [
            ("2004-02-14", "2004-02-14T00:00:00Z"),
            ("2004-02-14 07:15:00", "2004-02-14T07:15:00Z"),
            ("2004-02-14T7:15", "2004-02-14T07:15:00Z"),
            ("2021-10-22 19:39:32.016087", "2021-10-22T19:39:32.016087Z"),
            ("2021-10-22 19:39:32.500Z", "2021-10-22T19:39:32.5Z"),
            ("2026-09-30T12:34:56.123456789+05:30", "2026-09-30T12:34:56.123456789+05:30"),
            ("2026-09-30 12:34:56-00:00", "2026-09-30T12:34:56Z"),
            ("2023-02-29", ZERO_TIME),
            ("2023-02-28 24:00:00", ZERO_TIME),
            ("2023-02-28 ", ZERO_TIME),
            ("2023-02-28 10:00+01:00", ZERO_TIME),
            ("é023-02-28", ZERO_TIME),
            ("yesterday", ZERO_TIME),
            ("", ZERO_TIME),
        ] {
            assert_eq!(time_of_text(text), want, "{text}");
        }
        for (number, want) in [
            (1_727_699_696, Some("2024-09-30T12:34:56Z")),
            (1_727_699_696_789, Some("2024-09-30T12:34:56.789Z")),
            (-1, Some("1969-12-31T23:59:59Z")),
            (951_782_400, Some("2000-02-29T00:00:00Z")),
            (i64::MAX, None),
            (i64::MIN, None),
        ] {
            assert_eq!(time_of_number(number).as_deref(), want, "{number}");
        }
    }

    #[test]
    fn durations_are_go_s() {
        for (text, seconds) in [("1s", 1.0), ("1m2.5s", 62.5), ("300ms", 0.3), ("0", 0.0)] {
            assert_eq!(duration(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for wrong in ["", "5", "s", "1x", "-1s", "1e400s", "1..5s", "99999999999999999999h"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
