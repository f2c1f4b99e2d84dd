//! `level`, `freshness`, `wait` and time-outs of rqlite's API: how new a read must be, what a write
//! waits for, and how long (steps 1 and 9 of a transaction's life).

use std::time::{Duration, Instant};

use super::go;
use crate::driver::{ReadLevel, Wait};

/// Options that must be durations.
const DURATIONS: [&str; 4] = ["timeout", "freshness", "db_timeout", "linearizable_timeout"];

/// Options that must be whole numbers.
const NUMBERS: [&str; 2] = ["retries", "trailing_logs"];

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Levels {
    /// Of its reads.
    pub(crate) read: ReadLevel,
    /// Of its writes.
    pub(crate) wait: Wait,
    /// How old a local read may be, if that matters.
    pub(crate) freshness: Option<Freshness>,
    /// How long it may take, if that is less than this server's own limits.
    pub(crate) patience: Option<Duration>,
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

/// The first value of an option.
pub(crate) fn given<'a>(options: &'a [(String, String)], wanted: &str) -> Option<&'a str> {
    options.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
}

impl Levels {
    /// Reads a request's options. What is not kept is not promised: unknown words are errors.
    pub(crate) fn of(options: &[(String, String)]) -> Result<Self, String> {
        let given = |wanted: &str| given(options, wanted);
        if given("freshness_strict").is_some() && given("freshness").is_none() {
            return Err("freshness_strict requires freshness".into());
        }
        for name in DURATIONS {
            if given(name).is_some_and(|text| go::duration(text).is_none()) {
                return Err(format!("{name} is not a valid duration"));
            }
        }
        for name in NUMBERS {
            if given(name).is_some_and(|text| text.parse::<i64>().is_err()) {
                return Err(format!("{name} is not a valid integer"));
            }
        }
        let level = given("level").unwrap_or_default().to_ascii_lowercase();
        let (read, may_be_old) = match level.as_str() {
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
        // Without a value, or with a queue, it is rqlite's, and about the queue.
        let wait = match given("wait").filter(|_| given("queue").is_none()).unwrap_or_default() {
            "" | "final" | "true" => Wait::Final,
            "included" => Wait::Included,
            "none" => Wait::None,
            other => {
                return Err(format!("wait={other:.20} is unknown: final, included or none"));
            }
        };
        let duration = |name| given(name).and_then(go::duration);
        // As in rqlite, it means something for the level none only.
        let freshness = duration("freshness").filter(|_| may_be_old).map(|within| {
            let strict = given("freshness_strict").is_some();
            Freshness { within, strict }
        });
        let of_level = duration("linearizable_timeout").filter(|_| read == ReadLevel::Linearizable);
        let patience = [duration("timeout"), duration("db_timeout"), of_level];
        // Zero is rqlite's word for no limit.
        let patience = patience.into_iter().flatten().filter(|limit| !limit.is_zero()).min();
        Ok(Self { read, wait, freshness, patience })
    }

    /// When what begins now must be done.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.patience.and_then(|patience| Instant::now().checked_add(patience))
    }
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
        for query in ["", "level=none", "level=Weak", "level=auto", "level=local", "timings"] {
            assert_eq!(level(query), Ok(ReadLevel::Local), "{query}");
        }
        for query in ["level=strong", "level=linearizable"] {
            assert_eq!(level(query), Ok(ReadLevel::Linearizable), "{query}");
        }
        assert_eq!(level("level=latest"), Ok(ReadLevel::Latest));
        assert!(level("level=strongest").is_err());
    }

    #[test]
    fn wait_is_ours_with_a_value_and_rqlite_s_without_one_or_with_a_queue() {
        let wait = |query: &str| levels(query).map(|levels| levels.wait);
        assert_eq!(wait("wait=none"), Ok(Wait::None));
        assert_eq!(wait("wait=included"), Ok(Wait::Included));
        for query in ["wait", "wait=final", "queue&wait=none", "queue&wait=30s"] {
            assert_eq!(wait(query), Ok(Wait::Final), "{query}");
        }
        assert!(wait("wait=forever").is_err());
    }

    #[test]
    fn freshness_means_something_for_none_only() {
        let freshness = |query: &str| levels(query).unwrap().freshness;
        let second = Duration::from_secs(1);
        let (strict, within) = (true, second);
        assert_eq!(
            freshness("level=none&freshness=1s&freshness_strict"),
            Some(Freshness { within, strict })
        );
        assert_eq!(freshness("level=weak&freshness=1s"), None);
    }

    #[test]
    fn the_shortest_time_out_counts_and_nonsense_is_refused_in_rqlite_s_words() {
        let patience = |query: &str| levels(query).map(|levels| levels.patience);
        let seconds = |number| Ok(Some(Duration::from_secs(number)));
        assert_eq!(patience("timeout=9s&db_timeout=2s"), seconds(2));
        assert_eq!(patience("level=strong&linearizable_timeout=3s&db_timeout=0"), seconds(3));
        assert_eq!(patience("linearizable_timeout=3s"), Ok(None));
        for (query, want) in [
            ("timeout=soon", "timeout is not a valid duration"),
            ("freshness=", "freshness is not a valid duration"),
            ("db_timeout=5", "db_timeout is not a valid duration"),
            ("retries=some", "retries is not a valid integer"),
            ("freshness_strict", "freshness_strict requires freshness"),
        ] {
            assert_eq!(levels(query), Err(want.into()), "{query}");
        }
    }
}
