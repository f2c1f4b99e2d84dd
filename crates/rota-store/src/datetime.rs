//! Dates and times as PostgreSQL writes them, and as they rest in the database: text that sorts as
//! the times themselves do.
//!
//! ```text
//!   '2024-1-2T3:04:05.500+02'  ─ parse_timestamp ─►  microseconds since 1970, in UTC
//!                              ─ Display ─────────►  2024-01-02 01:04:05.5
//! ```
//!
//! That is also what CURRENT_TIMESTAMP and `now()` give. Steps 1 (parameters and results) and 8
//! (functions in SQL): the same text on every server.

use std::fmt;

/// Microseconds of a day.
pub const DAY: i64 = 86_400_000_000;
const HOUR: i64 = 3_600_000_000;
const MINUTE: i64 = 60_000_000;
const SECOND: i64 = 1_000_000;

/// The years that four digits can say, without the year 0, which PostgreSQL does not have.
const YEARS: std::ops::RangeInclusive<i64> = 1..=9999;

/// Why a text is no date or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is not written as one: SQLSTATE 22007.
    Syntax,
    /// There is no such day or hour, or not in a year from 1 to 9999: SQLSTATE 22008.
    Range,
}

/// Days since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(pub i64);

/// Microseconds since midnight; 24:00:00 is allowed, as in PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(pub i64);

/// Microseconds since 1970, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// `-infinity`.
    pub const PAST: Self = Self(i64::MIN);
    /// `infinity`.
    pub const FUTURE: Self = Self(i64::MAX);

    /// Whether it is a time and not an infinity.
    pub fn is_finite(self) -> bool {
        self != Self::PAST && self != Self::FUTURE
    }

    /// `None` outside of the years 1 to 9999.
    pub fn new(microseconds: i64) -> Option<Self> {
        Date::new(microseconds.div_euclid(DAY)).map(|_| Self(microseconds))
    }

    /// Midnight of a day and a time after it.
    pub fn at(date: Date, time: TimeOfDay) -> Option<Self> {
        date.0.checked_mul(DAY)?.checked_add(time.0).and_then(Self::new)
    }

    /// The day and the time on it.
    pub fn split(self) -> (Date, TimeOfDay) {
        (Date(self.0.div_euclid(DAY)), TimeOfDay(self.0.rem_euclid(DAY)))
    }
}

impl Date {
    /// `None` outside of the years 1 to 9999.
    pub fn new(days: i64) -> Option<Self> {
        let (first, last) = (-719_162, 2_932_896);
        (first..=last).contains(&days).then_some(Self(days))
    }

    /// `None` if there is no such day.
    pub fn of(year: i64, month: i64, day: i64) -> Option<Self> {
        let lengths = [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let length = usize::try_from(month).ok()?.checked_sub(1).and_then(|at| lengths.get(at))?;
        if !YEARS.contains(&year) || !(1..=*length).contains(&day) {
            return None;
        }
        // Howard Hinnant's `days_from_civil`: years begin in March, so that the leap day is a
        // year's last.
        let year = if month <= 2 { year - 1 } else { year };
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        Some(Self(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468))
    }

    /// Year, month and day.
    pub fn civil(self) -> (i64, i64, i64) {
        let days = self.0 + 719_468;
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        (year + era * 400 + next, month, day)
    }
}

/// By the Gregorian rule, for all time.
pub fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

impl TimeOfDay {
    /// Hour, minute, second and microseconds.
    pub fn parts(self) -> (i64, i64, i64, i64) {
        let part = |unit: i64, most: i64| self.0 / unit % most;
        (self.0 / HOUR, part(MINUTE, 60), part(SECOND, 60), self.0 % SECOND)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(to, "{year:04}-{month:02}-{day:02}")
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hour, minute, second, mut fraction) = self.parts();
        write!(to, "{hour:02}:{minute:02}:{second:02}")?;
        if fraction == 0 {
            return Ok(());
        }
        // Without zeros at the end, so that equal times are equal texts.
        let mut digits = 6;
        while fraction % 10 == 0 {
            fraction /= 10;
            digits -= 1;
        }
        write!(to, ".{fraction:0digits$}")
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PAST => to.write_str("-infinity"),
            Self::FUTURE => to.write_str("infinity"),
            _ => {
                let (date, time) = self.split();
                write!(to, "{date} {time}")
            }
        }
    }
}

/// A timestamp's text with `T` or a blank, with or without a time and an offset. Its second part
/// is the offset in seconds east, where one is written.
fn parse(text: &str) -> Result<(Timestamp, Option<i64>), Wrong> {
    let mut rest = Rest(text.trim());
    match rest.0 {
        known if known.eq_ignore_ascii_case("infinity") => return Ok((Timestamp::FUTURE, None)),
        known if known.eq_ignore_ascii_case("-infinity") => return Ok((Timestamp::PAST, None)),
        known if known.eq_ignore_ascii_case("epoch") => return Ok((Timestamp(0), Some(0))),
        _ => {}
    }
    let date = rest.date()?;
    let time = if rest.skip(&['T', 't', ' ']) {
        rest.blanks();
        rest.time()?
    } else {
        TimeOfDay(0)
    };
    let zone = rest.zone()?;
    if !rest.0.is_empty() {
        return Err(Wrong::Syntax);
    }
    Ok((Timestamp::at(date, time).ok_or(Wrong::Range)?, zone))
}

/// A `timestamp without time zone`: an offset is read and ignored, as PostgreSQL does.
pub fn parse_timestamp(text: &str) -> Result<Timestamp, Wrong> {
    parse(text).map(|(timestamp, _)| timestamp)
}

/// A `timestamp with time zone`: an offset is taken off; without one it is UTC.
pub fn parse_timestamptz(text: &str) -> Result<Timestamp, Wrong> {
    let (timestamp, offset) = parse(text)?;
    match offset {
        Some(offset) if timestamp.is_finite() => {
            let moved = timestamp.0.checked_sub(offset * SECOND);
            moved.and_then(Timestamp::new).ok_or(Wrong::Range)
        }
        _ => Ok(timestamp),
    }
}

/// A date; the time of a timestamp is dropped. `infinity` is none: nobody has asked for it yet.
pub fn parse_date(text: &str) -> Result<Date, Wrong> {
    let timestamp = parse_timestamp(text)?;
    if timestamp.is_finite() { Ok(timestamp.split().0) } else { Err(Wrong::Range) }
}

/// A `time without time zone`; an offset is read and ignored.
pub fn parse_time(text: &str) -> Result<TimeOfDay, Wrong> {
    let mut rest = Rest(text.trim());
    let time = rest.time()?;
    rest.zone()?;
    if rest.0.is_empty() { Ok(time) } else { Err(Wrong::Syntax) }
}

/// What is still to be read.
struct Rest<'a>(&'a str);

impl Rest<'_> {
    fn skip(&mut self, wanted: &[char]) -> bool {
        let rest = self.0.strip_prefix(wanted);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn blanks(&mut self) {
        self.0 = self.0.trim_start();
    }

    /// A number of `least` to `most` digits.
    fn number(&mut self, least: usize, most: usize) -> Result<i64, Wrong> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        if digits < least || digits > most {
            return Err(Wrong::Syntax);
        }
        let (number, rest) = self.0.split_at_checked(digits).ok_or(Wrong::Syntax)?;
        self.0 = rest;
        number.parse().map_err(|_| Wrong::Syntax)
    }

    /// `2024-01-02`, or `20240102`.
    fn date(&mut self) -> Result<Date, Wrong> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 8 {
            let all = self.number(8, 8)?;
            return Date::of(all / 10_000, all / 100 % 100, all % 100).ok_or(Wrong::Range);
        }
        let year = self.number(4, 6)?;
        if !self.skip(&['-']) {
            return Err(Wrong::Syntax);
        }
        let month = self.number(1, 2)?;
        if !self.skip(&['-']) {
            return Err(Wrong::Syntax);
        }
        let day = self.number(1, 2)?;
        Date::of(year, month, day).ok_or(Wrong::Range)
    }

    /// `03:04`, `03:04:05`, `03:04:05.678901`.
    fn time(&mut self) -> Result<TimeOfDay, Wrong> {
        let hour = self.number(1, 2)?;
        if !self.skip(&[':']) {
            return Err(Wrong::Syntax);
        }
        let minute = self.number(2, 2)?;
        let (mut second, mut fraction) = (0, 0);
        if self.skip(&[':']) {
            second = self.number(2, 2)?;
            if self.skip(&['.', ',']) {
                fraction = self.fraction()?;
            }
        }
        // A leap second is the next minute's first.
        if hour > 24 || minute > 59 || second > 60 {
            return Err(Wrong::Range);
        }
        let all = hour * HOUR + minute * MINUTE + second * SECOND + fraction;
        if all > DAY { Err(Wrong::Range) } else { Ok(TimeOfDay(all)) }
    }

    /// Decimals of a second, rounded to microseconds.
    fn fraction(&mut self) -> Result<i64, Wrong> {
        let mut microseconds = 0;
        let mut unit = SECOND;
        let mut digits = 0_usize;
        for digit in self.0.bytes().take_while(u8::is_ascii_digit).map(|digit| digit - b'0') {
            if unit > 1 {
                unit /= 10;
                microseconds += i64::from(digit) * unit;
            } else if digits == 6 {
                microseconds += i64::from(digit >= 5);
            }
            digits += 1;
        }
        self.0 = self.0.get(digits..).ok_or(Wrong::Syntax)?;
        Ok(microseconds)
    }

    /// `Z`, `UTC`, `GMT`, `+02`, `-0330`, `+05:30`, `+01:02:03`; in seconds east.
    fn zone(&mut self) -> Result<Option<i64>, Wrong> {
        self.blanks();
        for name in ["UTC", "GMT", "Z"] {
            let start = self.0.get(..name.len());
            if start.is_some_and(|start| start.eq_ignore_ascii_case(name)) {
                self.0 = self.0.get(name.len()..).unwrap_or_default();
                return Ok(Some(0));
            }
        }
        let east = self.skip(&['+']);
        if !east && !self.skip(&['-']) {
            return Ok(None);
        }
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (hours, mut minutes, mut seconds) = match digits {
            3 | 4 => {
                let both = self.number(3, 4)?;
                (both / 100, both % 100, 0)
            }
            _ => (self.number(1, 2)?, 0, 0),
        };
        if digits <= 2 && self.skip(&[':']) {
            minutes = self.number(2, 2)?;
            if self.skip(&[':']) {
                seconds = self.number(2, 2)?;
            }
        }
        // PostgreSQL's own bound.
        if hours > 15 || minutes > 59 || seconds > 59 {
            return Err(Wrong::Range);
        }
        let offset = hours * 3_600 + minutes * 60 + seconds;
        Ok(Some(if east { offset } else { -offset }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read_as_people_and_drivers_write_them() {
        for (text, want) in [
            ("2024-01-02 03:04:05", "2024-01-02 03:04:05"),
            ("2024-1-2T3:04", "2024-01-02 03:04:00"),
            ("20240102 03:04", "2024-01-02 03:04:00"),
            ("2024-01-02", "2024-01-02 00:00:00"),
            ("2024-01-02 03:04:05.500000", "2024-01-02 03:04:05.5"),
            ("2024-01-02 03:04:05.1234567", "2024-01-02 03:04:05.123457"),
            ("2024-01-02 03:04:05.9999999", "2024-01-02 03:04:06"),
            ("2024-01-02T03:04:05.123Z", "2024-01-02 03:04:05.123"),
            ("2024-01-02 03:04:05+02", "2024-01-02 01:04:05"),
            ("2024-01-02 03:04:05 -03:30", "2024-01-02 06:34:05"),
            ("2024-01-02 03:04:05+0530", "2024-01-01 21:34:05"),
            ("2024-01-02 03:04:05 UTC", "2024-01-02 03:04:05"),
            ("2024-12-31 24:00:00", "2025-01-01 00:00:00"),
            ("2016-12-31 23:59:60", "2017-01-01 00:00:00"),
            ("2000-02-29 00:00:00", "2000-02-29 00:00:00"),
            ("infinity", "infinity"),
            ("-Infinity", "-infinity"),
            ("epoch", "1970-01-01 00:00:00"),
            ("0001-01-01", "0001-01-01 00:00:00"),
            ("9999-12-31 23:59:59.999999", "9999-12-31 23:59:59.999999"),
        ] {
            let got = parse_timestamptz(text).map(|timestamp| timestamp.to_string());
            assert_eq!(got.as_deref(), Ok(want), "{text}");
        }
        let local = parse_timestamp("2024-01-02 03:04:05+02").map(|t| t.to_string());
        assert_eq!(local.as_deref(), Ok("2024-01-02 03:04:05"));
    }

    #[test]
    fn what_is_no_time_is_said_to_be_none() {
        for (text, want) in [
            ("", Wrong::Syntax),
            ("abc", Wrong::Syntax),
            ("2024", Wrong::Syntax),
            ("2024-01", Wrong::Syntax),
            ("2024-01-02 03", Wrong::Syntax),
            ("2024-01-02 03:04:05 nowhere", Wrong::Syntax),
            ("2024-01-02é", Wrong::Syntax),
            ("2024-13-01", Wrong::Range),
            ("2023-02-29", Wrong::Range),
            ("2024-01-02 25:00", Wrong::Range),
            ("2024-01-02 24:00:01", Wrong::Range),
            ("2024-01-02 03:60", Wrong::Range),
            ("0000-01-01", Wrong::Range),
            ("10000-01-01", Wrong::Range),
            ("0001-01-01 00:00+01", Wrong::Range),
            ("2024-01-02 03:04+16", Wrong::Range),
        ] {
            assert_eq!(parse_timestamptz(text), Err(wrong(want)), "{text}");
        }
        fn wrong(of: Wrong) -> Wrong {
            of
        }
    }

    #[test]
    fn every_day_is_its_own_and_reads_back() {
        let mut before = Date::new(-719_163 + 1).unwrap();
        assert_eq!(before.to_string(), "0001-01-01");
        for days in (-719_161..=2_932_896).step_by(97) {
            let date = Date::new(days).unwrap();
            assert!(date.to_string() > before.to_string());
            let (year, month, day) = date.civil();
            assert_eq!(Date::of(year, month, day), Some(date));
            before = date;
        }
        assert_eq!(Date(2_932_896).to_string(), "9999-12-31");
        assert_eq!((Date::new(2_932_897), Date::new(-719_163)), (None, None));
    }

    #[test]
    fn times_of_day_end_at_midnight() {
        for (text, want) in
            [("3:04", "03:04:00"), ("23:59:59.000001", "23:59:59.000001"), ("24:00", "24:00:00")]
        {
            assert_eq!(parse_time(text).map(|time| time.to_string()).as_deref(), Ok(want));
        }
        assert_eq!(parse_time("24:01"), Err(Wrong::Range));
        assert_eq!(parse_time("noon"), Err(Wrong::Syntax));
    }
}
