//! How new reads must be and what writes wait for, as a request's address says it: rqlite's words
//! (`level`, `freshness`, `freshness_strict`) and our own (`level=latest`, `level=local`, `wait`).

use std::time::Duration;

use crate::driver::{ReadLevel, Wait};

/// What a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    /// Of its reads.
    pub(crate) read: ReadLevel,
    /// Of its writes.
    pub(crate) wait: Wait,
    /// How old a local read may be, if that matters.
    pub(crate) freshness: Option<Freshness>,
}

/// How long a server may have been cut off from the others, or `strict`ly behind them, and still
/// answer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Freshness {
    /// So long.
    pub(crate) within: Duration,
    /// Blocks that it knows of and has not executed count too.
    pub(crate) strict: bool,
}

impl Levels {
    /// Reads a request's options. What is not kept is not promised: unknown words are errors.
    pub(crate) fn of(options: &[(String, String)]) -> Result<Self, String> {
        let given = |wanted: &str| {
            options.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
        };
        let (level, may_be_old) = match given("level").unwrap_or_default() {
            "none" => (ReadLevel::Local, true),
            "" | "weak" | "auto" | "local" => (ReadLevel::Local, false),
            "latest" => (ReadLevel::Latest, false),
            "linearizable" | "strong" => (ReadLevel::Linearizable, false),
            other => {
                return Err(format!(
                    "level={other:.20} is unknown: none, weak, auto, linearizable, strong, local \
                     or latest"
                ));
            }
        };
        let wait = match given("wait").unwrap_or_default() {
            "" | "final" | "true" => Wait::Final,
            "included" => Wait::Included,
            "none" => Wait::None,
            other => {
                return Err(format!("wait={other:.20} is unknown: final, included or none"));
            }
        };
        let strict = given("freshness_strict").is_some_and(|value| !matches!(value, "false" | "0"));
        let freshness = match given("freshness") {
            None | Some("") => None,
            Some(text) => {
                let within = duration(text).ok_or_else(|| {
                    format!("freshness={text:.20} is no duration such as 500ms, 5s or 1m30s")
                })?;
                Some(Freshness { within, strict })
            }
        };
        // As in rqlite, it means something for the level none only.
        Ok(Self { read: level, wait, freshness: freshness.filter(|_| may_be_old) })
    }
}

/// Go's durations: `1h2m3.5s`, `300ms`.
fn duration(text: &str) -> Option<Duration> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(query: &str) -> Result<Levels, String> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), value.to_owned())
        });
        Levels::of(&pairs.collect::<Vec<_>>())
    }

    #[test]
    fn rqlite_s_levels_and_ours_have_a_meaning_and_others_none() {
        let level = |query: &str| levels(query).map(|levels| levels.read);
        for query in ["", "level=none", "level=weak", "level=auto", "level=local", "timings"] {
            assert_eq!(level(query), Ok(ReadLevel::Local), "{query}");
        }
        for query in ["level=strong", "level=linearizable"] {
            assert_eq!(level(query), Ok(ReadLevel::Linearizable), "{query}");
        }
        assert_eq!(level("level=latest"), Ok(ReadLevel::Latest));
        assert!(level("level=strongest").is_err());
        assert_eq!(levels("wait=none").unwrap().wait, Wait::None);
        assert_eq!(levels("wait=included").unwrap().wait, Wait::Included);
        assert!(levels("wait=forever").is_err());
    }

    #[test]
    fn freshness_is_a_go_duration_and_means_something_for_none_only() {
        let within = |query: &str| {
            levels(query).map(|levels| levels.freshness.map(|freshness| freshness.within))
        };
        let seconds = |number| Ok(Some(Duration::from_secs_f64(number)));
        assert_eq!(within("level=none&freshness=1s"), seconds(1.0));
        assert_eq!(within("level=none&freshness=1m2.5s"), seconds(62.5));
        assert_eq!(within("level=none&freshness=300ms"), seconds(0.3));
        assert_eq!(within("level=weak&freshness=1s"), Ok(None));
        for wrong in ["5", "s", "1x", "-1s", "1e400s", "1..5s", "99999999999999999999h"] {
            assert!(within(&format!("level=none&freshness={wrong}")).is_err(), "{wrong}");
        }
        let strict = levels("level=none&freshness=1s&freshness_strict").unwrap().freshness;
        assert!(strict.is_some_and(|freshness| freshness.strict));
    }
}
