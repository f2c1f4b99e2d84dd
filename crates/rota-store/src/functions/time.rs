//! Dates and times: `date_trunc`, `extract`, `to_char`, `to_timestamp`, and a date plus an
//! interval. All in UTC; the text is `datetime`'s, which sorts as the times do.

use std::fmt::Write;

use rusqlite::Result;
use rusqlite::types::{Value, ValueRef};

use super::{Arguments, Given, fail, no_moment, strict, unsupported};
use crate::datetime::{
    DAY, Date, TimeOfDay, Timestamp, parse_date, parse_time, parse_timestamp, parse_timestamptz,
};

const SECOND: i64 = 1_000_000;
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

pub(super) fn register(connection: &super::Metered<'_>) -> Result<()> {
    strict(connection, "date_trunc", 2, date_trunc)?;
    strict(connection, "date_part", 2, |call| extract(call, true))?;
    strict(connection, "extract", 2, |call| extract(call, false))?;
    strict(connection, "to_char", 2, to_char)?;
    strict(connection, "to_timestamp", 1, |call| {
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and is then out of range")]
        let microseconds = (call.real(0)? * 1e6).round() as i64;
        written(Timestamp::new(microseconds))
    })?;
    strict(connection, "to_timestamp", 2, |call| written(Some(read(call)?)))?;
    strict(connection, "to_date", 2, |call| Ok(Value::Text(read(call)?.split().0.to_string())))?;
    strict(connection, "make_date", 3, |call| {
        let date = Date::of(call.integer(0)?, call.integer(1)?, call.integer(2)?);
        date.map(|date| Value::Text(date.to_string())).ok_or_else(out_of_range)
    })?;
    strict(connection, "make_timestamp", 6, make_timestamp)?;
    strict(connection, "date_add", 2, |call| shift(call, 1))?;
    strict(connection, "date_subtract", 2, |call| shift(call, -1))?;
    strict(connection, "timezone", 2, timezone)?;
    strict(connection, "rota_date", 1, |call| moment(call, "date", parse_date))?;
    strict(connection, "rota_time", 1, rota_time)?;
    strict(connection, "rota_timestamp", 1, |call| moment(call, "timestamp", parse_timestamp))?;
    strict(connection, "rota_timestamptz", 1, |call| {
        moment(call, "timestamp with time zone", parse_timestamptz)
    })
}

fn out_of_range() -> rusqlite::Error {
    fail("timestamp out of range")
}

fn written(timestamp: Option<Timestamp>) -> Given {
    timestamp.map(|at| Value::Text(at.to_string())).ok_or_else(out_of_range)
}

/// A cast: the form in which values of the type rest.
fn moment<T: std::fmt::Display>(
    call: &Arguments<'_, '_>,
    of: &str,
    parse: fn(&str) -> std::result::Result<T, crate::datetime::Wrong>,
) -> Given {
    let text = call.text(0)?;
    let parsed = parse(&text).map_err(|wrong| no_moment(of, &text, wrong))?;
    Ok(Value::Text(parsed.to_string()))
}

/// The time of a timestamp, or a time.
fn rota_time(call: &Arguments<'_, '_>) -> Given {
    let text = call.text(0)?;
    match parse_timestamp(&text) {
        Ok(timestamp) if timestamp.is_finite() => Ok(Value::Text(timestamp.split().1.to_string())),
        _ => moment(call, "time", parse_time),
    }
}

fn timestamp(call: &Arguments<'_, '_>, place: usize) -> Result<Timestamp> {
    let text = call.text(place)?;
    parse_timestamptz(&text).map_err(|wrong| no_moment("timestamp", &text, wrong))
}

fn unit(call: &Arguments<'_, '_>, place: usize) -> Result<String> {
    Ok(call.text(place)?.trim().to_ascii_lowercase())
}

fn unknown_unit(unit: &str) -> rusqlite::Error {
    fail(format!("unit \"{unit}\" not recognized for type timestamp without time zone"))
}

fn date_trunc(call: &Arguments<'_, '_>) -> Given {
    let (unit, at) = (unit(call, 0)?, timestamp(call, 1)?);
    if !at.is_finite() {
        return Ok(Value::Text(at.to_string()));
    }
    let (date, _) = at.split();
    let (year, month, _) = date.civil();
    let down_to = |step: i64| Timestamp::new(at.0 - at.0.rem_euclid(step));
    let first_of = |year: i64, month: i64| Timestamp::at(Date::of(year, month, 1)?, TimeOfDay(0));
    written(match unit.as_str() {
        "microsecond" | "microseconds" => Some(at),
        "millisecond" | "milliseconds" => down_to(1_000),
        "second" => down_to(SECOND),
        "minute" => down_to(60 * SECOND),
        "hour" => down_to(3_600 * SECOND),
        "day" => down_to(DAY),
        "week" => Timestamp::at(Date(date.0 - weekday_from_monday(date)), TimeOfDay(0)),
        "month" => first_of(year, month),
        "quarter" => first_of(year, (month - 1) / 3 * 3 + 1),
        "year" => first_of(year, 1),
        "decade" => first_of((year / 10 * 10).max(1), 1),
        "century" => first_of((year - 1) / 100 * 100 + 1, 1),
        "millennium" => first_of((year - 1) / 1_000 * 1_000 + 1, 1),
        _ => return Err(unknown_unit(&unit)),
    })
}

/// 0 for a Monday.
fn weekday_from_monday(date: Date) -> i64 {
    // 1970 began on a Thursday.
    (date.0 + 3).rem_euclid(7)
}

/// ISO 8601's year and week.
fn iso_week(date: Date) -> (i64, i64) {
    // The week belongs to the year that has its Thursday.
    let thursday = Date(date.0 - weekday_from_monday(date) + 3);
    let (year, _, _) = thursday.civil();
    (year, (day_of_year(thursday) - 1) / 7 + 1)
}

fn day_of_year(date: Date) -> i64 {
    let (year, _, _) = date.civil();
    date.0 - Date::of(year, 1, 1).map_or(date.0, |first| first.0) + 1
}

/// `extract(unit FROM …)` is an integer where it is whole; `date_part` is always a double.
fn extract(call: &Arguments<'_, '_>, always_real: bool) -> Given {
    let unit = unit(call, 0)?;
    let text = call.text(1)?;
    let at = match parse_time(&text) {
        Ok(time) => Timestamp(time.0),
        Err(_) => timestamp(call, 1)?,
    };
    if !at.is_finite() {
        let infinite = if at == Timestamp::FUTURE { f64::INFINITY } else { f64::NEG_INFINITY };
        return Ok(Value::Real(infinite));
    }
    let (date, time) = at.split();
    let (year, month, day) = date.civil();
    let (hour, minute, second, fraction) = time.parts();
    let seconds = second * SECOND + fraction;
    let (number, of) = match unit.as_str() {
        "microsecond" | "microseconds" => (seconds, 1),
        "millisecond" | "milliseconds" => (seconds, 1_000),
        "second" | "seconds" => (seconds, SECOND),
        "epoch" => (at.0, SECOND),
        "minute" | "minutes" => (minute, 1),
        "hour" | "hours" => (hour, 1),
        "day" | "days" => (day, 1),
        "month" | "months" => (month, 1),
        "year" | "years" => (year, 1),
        "quarter" => ((month + 2) / 3, 1),
        "week" => (iso_week(date).1, 1),
        "isoyear" => (iso_week(date).0, 1),
        "dow" => ((weekday_from_monday(date) + 1) % 7, 1),
        "isodow" => (weekday_from_monday(date) + 1, 1),
        "doy" => (day_of_year(date), 1),
        "decade" => (year / 10, 1),
        "century" => ((year + 99) / 100, 1),
        "millennium" => ((year + 999) / 1_000, 1),
        "timezone" | "timezone_hour" | "timezone_minute" => (0, 1),
        _ => return Err(unknown_unit(&unit)),
    };
    if number % of == 0 && !always_real {
        return Ok(Value::Integer(number / of));
    }
    #[expect(clippy::cast_precision_loss, reason = "as PostgreSQL's date_part")]
    let quotient = number as f64 / of as f64;
    Ok(Value::Real(quotient))
}

fn make_timestamp(call: &Arguments<'_, '_>) -> Given {
    let date = Date::of(call.integer(0)?, call.integer(1)?, call.integer(2)?);
    let (hour, minute, second) = (call.integer(3)?, call.integer(4)?, call.real(5)?);
    let valid =
        (0..24).contains(&hour) && (0..60).contains(&minute) && (0.0..60.0).contains(&second);
    #[expect(clippy::cast_possible_truncation, reason = "less than a minute")]
    let time = TimeOfDay((hour * 60 + minute).saturating_mul(60 * SECOND) + (second * 1e6) as i64);
    match date.filter(|_| valid) {
        Some(date) => written(Timestamp::at(date, time)),
        None => Err(fail("date/time field value out of range")),
    }
}

/// Only UTC is known, under any of its names.
fn timezone(call: &Arguments<'_, '_>) -> Given {
    let zone = call.text(0)?;
    let known = ["utc", "gmt", "z", "zulu", "etc/utc", "+00", "+00:00", "00:00", "uct"];
    if !known.contains(&zone.trim().to_ascii_lowercase().as_str()) {
        return Err(unsupported(format_args!("time zone \"{zone}\"; times are in UTC")));
    }
    written(Some(timestamp(call, 1)?))
}

/// A timestamp or a date, moved by an interval.
fn shift(call: &Arguments<'_, '_>, sign: i64) -> Given {
    let at = timestamp(call, 0)?;
    let text = call.text(1)?;
    let (months, days, microseconds) =
        interval(&text).ok_or_else(|| super::invalid("interval", &text))?;
    if !at.is_finite() {
        return written(Some(at));
    }
    let moved = || {
        let (date, time) = at.split();
        let (year, month, day) = date.civil();
        let month = (year * 12 + month - 1).checked_add(months.checked_mul(sign)?)?;
        let (year, month) = (month.div_euclid(12), month.rem_euclid(12) + 1);
        // The 31st of a month that has none is its last day.
        let date = (0..4).find_map(|less| Date::of(year, month, day - less))?;
        let days = date.0.checked_add(days.checked_mul(sign)?)?;
        let midnight = Timestamp::at(Date::new(days)?, time)?;
        Timestamp::new(midnight.0.checked_add(microseconds.checked_mul(sign)?)?)
    };
    written(moved())
}

/// `1 year 2 mons -3 days 04:05:06.7`, as months, days and microseconds.
fn interval(text: &str) -> Option<(i64, i64, i64)> {
    let (mut months, mut days, mut microseconds) = (0_i64, 0_i64, 0_i64);
    let mut words = text.split_ascii_whitespace().peekable();
    let mut sign = 1;
    words.peek()?;
    while let Some(word) = words.next() {
        if word.contains(':') {
            let (sign, word) = word.strip_prefix('-').map_or((1, word), |word| (-1, word));
            microseconds = microseconds.checked_add(parse_time(word).ok()?.0 * sign)?;
            continue;
        }
        if word.eq_ignore_ascii_case("ago") && words.peek().is_none() {
            sign = -1;
            break;
        }
        let digits = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
        let (number, unit) = word.split_at_checked(digits)?;
        let number: f64 = number.parse().ok()?;
        let unit = if unit.is_empty() { words.next().unwrap_or("second") } else { unit };
        let unit = unit.to_ascii_lowercase();
        let (months_each, days_each, each) = match unit.trim_end_matches(',') {
            "year" | "years" | "y" | "yr" | "yrs" => (12, 0, 0),
            "month" | "months" | "mon" | "mons" => (1, 0, 0),
            "decade" | "decades" => (120, 0, 0),
            "week" | "weeks" | "w" => (0, 7, 0),
            "day" | "days" | "d" => (0, 1, 0),
            "hour" | "hours" | "h" | "hr" | "hrs" => (0, 0, 3_600 * SECOND),
            "minute" | "minutes" | "m" | "min" | "mins" => (0, 0, 60 * SECOND),
            "second" | "seconds" | "s" | "sec" | "secs" => (0, 0, SECOND),
            "millisecond" | "milliseconds" | "ms" => (0, 0, 1_000),
            "microsecond" | "microseconds" | "us" => (0, 0, 1),
            _ => return None,
        };
        // A part of a day is hours, a part of a month is days of its thirty.
        let whole = number.trunc();
        let part = number - whole;
        let spilled = if months_each > 0 { part * f64::from(months_each) * 30.0 } else { 0.0 };
        let of_day = if days_each > 0 { part * f64::from(days_each) * 86_400e6 } else { 0.0 };
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and is then out of range")]
        let (whole, spilled, of_day) = (whole as i64, spilled as i64, of_day.round() as i64);
        months = months.checked_add(whole.checked_mul(months_each.into())?)?;
        days = days.checked_add(whole.checked_mul(days_each.into())?)?.checked_add(spilled)?;
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "bounded")]
        let time = if each > 0 { (number * each as f64).round() as i64 } else { 0 };
        microseconds = microseconds.checked_add(time)?.checked_add(of_day)?;
    }
    Some((months.checked_mul(sign)?, days.checked_mul(sign)?, microseconds.checked_mul(sign)?))
}

/// A pattern of `to_char` or `to_timestamp`, the longest first where one begins another.
const PATTERNS: [&str; 33] = [
    "HH24", "HH12", "IYYY", "YYYY", "MONTH", "Month", "month", "DDD", "DAY", "Day", "day", "MON",
    "Mon", "mon", "HH", "MI", "SS", "MS", "US", "YY", "MM", "DD", "DY", "Dy", "dy", "IW", "AM",
    "PM", "am", "pm", "TZ", "D", "Q",
];

/// Patterns that are the same in small letters.
fn pattern_at(rest: &str) -> Option<&'static str> {
    let exactly = |pattern: &&&str| rest.starts_with(**pattern);
    let whatever_case = |pattern: &&&str| {
        let start = rest.get(..pattern.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(pattern))
    };
    PATTERNS.iter().find(exactly).or_else(|| PATTERNS.iter().find(whatever_case)).copied()
}

fn to_char(call: &Arguments<'_, '_>) -> Given {
    if matches!(call.raw(0), ValueRef::Integer(_) | ValueRef::Real(_)) {
        return Err(unsupported("to_char() of numbers"));
    }
    let (at, format) = (timestamp(call, 0)?, call.text(1)?);
    if !at.is_finite() {
        return Ok(Value::Null);
    }
    if format.len() > 1_000 {
        return Err(super::too_long());
    }
    let mut result = String::new();
    let mut rest = format.as_str();
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (inner, after) = quoted.split_once('"').unwrap_or((quoted, ""));
            result.push_str(inner);
            rest = after;
            continue;
        }
        let bare = rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm"));
        let filled = bare.is_none();
        let from = bare.unwrap_or(rest);
        match pattern_at(from) {
            Some(pattern) => {
                put_pattern(&mut result, pattern, at, filled);
                rest = from.get(pattern.len()..).unwrap_or_default();
            }
            None => {
                result.push(first);
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
            }
        }
    }
    Ok(Value::Text(result))
}

/// `filled`: numbers with zeros, names with blanks.
fn put_pattern(result: &mut String, pattern: &str, at: Timestamp, filled: bool) {
    let (date, time) = at.split();
    let (year, month, day) = date.civil();
    let (hour, minute, second, fraction) = time.parts();
    let weekday = (weekday_from_monday(date) + 1) % 7;
    let name = |names: &[&'static str], place: i64| {
        usize::try_from(place).ok().and_then(|place| names.get(place)).copied().unwrap_or_default()
    };
    let (month_name, day_name) = (name(&MONTHS, month - 1), name(&DAYS, weekday));
    let short = |name: &'static str| name.get(..3).unwrap_or(name);
    let (number, width) = match pattern {
        "YYYY" => (year, 4),
        "YY" => (year % 100, 2),
        "IYYY" => (iso_week(date).0, 4),
        "IW" => (iso_week(date).1, 2),
        "MM" => (month, 2),
        "DD" => (day, 2),
        "DDD" => (day_of_year(date), 3),
        "D" => (weekday + 1, 1),
        "Q" => ((month + 2) / 3, 1),
        "HH24" => (hour, 2),
        "HH12" | "HH" => ((hour + 11) % 12 + 1, 2),
        "MI" => (minute, 2),
        "SS" => (second, 2),
        "MS" => (fraction / 1_000, 3),
        "US" => (fraction, 6),
        word => {
            let text = match word {
                "AM" | "PM" => if hour < 12 { "AM" } else { "PM" }.to_owned(),
                "am" | "pm" => if hour < 12 { "am" } else { "pm" }.to_owned(),
                "TZ" => "UTC".to_owned(),
                "MONTH" => month_name.to_uppercase(),
                "Month" => month_name.to_owned(),
                "month" => month_name.to_lowercase(),
                "MON" => short(month_name).to_uppercase(),
                "Mon" => short(month_name).to_owned(),
                "mon" => short(month_name).to_lowercase(),
                "DAY" => day_name.to_uppercase(),
                "Day" => day_name.to_owned(),
                "day" => day_name.to_lowercase(),
                "DY" => short(day_name).to_uppercase(),
                "Dy" => short(day_name).to_owned(),
                _ => short(day_name).to_lowercase(),
            };
            let long = word.len() > 3 || word.eq_ignore_ascii_case("day");
            // "September" and "Wednesday" have nine letters.
            let width = if long && filled { 9 } else { 0 };
            let _ = write!(result, "{text:<width$}");
            return;
        }
    };
    let width = if filled { width } else { 0 };
    let _ = write!(result, "{number:0width$}");
}

/// `to_timestamp(text, format)`: numbers and names of months where the patterns say.
fn read(call: &Arguments<'_, '_>) -> Result<Timestamp> {
    let (text, format) = (call.text(0)?, call.text(1)?);
    let wrong = |pattern: &str| {
        let shown: String = text.chars().take(40).collect();
        fail(format!("invalid value \"{shown}\" for \"{pattern}\""))
    };
    let (mut year, mut month, mut day) = (1_i64, 1_i64, 1_i64);
    let (mut hour, mut minute, mut second, mut fraction) = (0_i64, 0_i64, 0_i64, 0_i64);
    let mut afternoon = None;
    let (mut rest, mut input) = (format.as_str(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        let from = rest.strip_prefix("FM").unwrap_or(rest);
        let Some(pattern) = pattern_at(from) else {
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            let mut characters = input.chars();
            if characters.next().is_some_and(|next| !next.is_alphanumeric()) {
                input = characters.as_str();
            }
            continue;
        };
        rest = from.get(pattern.len()..).unwrap_or_default();
        input = input.trim_start();
        let upper = pattern.to_ascii_uppercase();
        if let Some(name) = name_of(&upper, input) {
            let (place, length) = name.ok_or_else(|| wrong(pattern))?;
            input = input.get(length..).unwrap_or_default();
            match upper.as_str() {
                "MONTH" | "MON" => month = place + 1,
                "AM" | "PM" => afternoon = Some(place == 1),
                _ => {}
            }
            continue;
        }
        let most = match upper.as_str() {
            "YYYY" => 4,
            "US" => 6,
            "MS" | "DDD" => 3,
            _ => 2,
        };
        let digits = input.bytes().take(most).take_while(u8::is_ascii_digit).count();
        let (number, after) = input.split_at_checked(digits).unwrap_or(("", input));
        let value: i64 = number.parse().map_err(|_| wrong(pattern))?;
        input = after;
        let scaled =
            |places: usize| value * 10_i64.pow(u32::try_from(places - digits).unwrap_or(0));
        match upper.as_str() {
            "YYYY" => year = value,
            "YY" => year = if value < 70 { 2_000 + value } else { 1_900 + value },
            "MM" => month = value,
            "DD" => day = value,
            "HH24" | "HH12" | "HH" => hour = value,
            "MI" => minute = value,
            "SS" => second = value,
            "MS" => fraction = scaled(3) * 1_000,
            "US" => fraction = scaled(6),
            _ => return Err(unsupported(format_args!("pattern {pattern} when reading a time"))),
        }
    }
    if let Some(afternoon) = afternoon {
        hour = hour % 12 + if afternoon { 12 } else { 0 };
    }
    let valid = hour < 24 && minute < 60 && second < 60;
    let time = TimeOfDay(((hour * 60 + minute) * 60 + second) * SECOND + fraction);
    let at = Date::of(year, month, day).filter(|_| valid);
    at.and_then(|date| Timestamp::at(date, time))
        .ok_or_else(|| no_moment("timestamp", &text, crate::datetime::Wrong::Range))
}

/// For a pattern that is a name: which one the input begins with, and its length.
fn name_of(pattern: &str, input: &str) -> Option<Option<(i64, usize)>> {
    let find = |names: &[&str], length: Option<usize>| {
        names.iter().enumerate().find_map(|(place, name)| {
            let name = name.get(..length.unwrap_or(name.len()))?;
            let start = input.get(..name.len())?;
            let same = start.eq_ignore_ascii_case(name);
            same.then(|| (i64::try_from(place).unwrap_or(0), name.len()))
        })
    };
    Some(match pattern {
        "MONTH" => find(&MONTHS, None),
        "MON" => find(&MONTHS, Some(3)),
        "DAY" => find(&DAYS, None),
        "DY" => find(&DAYS, Some(3)),
        "AM" | "PM" => find(&["AM", "PM"], None),
        "TZ" => find(&["UTC", "GMT", "Z"], None),
        _ => return None,
    })
}
