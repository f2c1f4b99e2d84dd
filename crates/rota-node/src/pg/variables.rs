//! A session's settings: SET, SHOW, RESET, and what a transaction's end undoes of them. Step 1 of a
//! transaction's life; of all these only some reach a statement, as [`Meaning`].
//!
//! ```text
//!  BEGIN ── SET a ── SET LOCAL b ── COMMIT    a stays, b is as before
//!                              └─── ROLLBACK  both are as before
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rota_core::error::{Refusal, sqlstate};

use crate::driver::{ReadLevel, Wait};

/// The version that clients are told: a PostgreSQL that drivers and ORMs know and support.
pub(crate) const SERVER_VERSION: &str = "16.0";

/// How many settings of its own (`a.b`) a session may have.
const MAX_CUSTOM_SETTINGS: usize = 64;

/// The longest value of a setting.
const MAX_SETTING_BYTES: usize = 4096;

/// PostgreSQL's largest time of a setting, in milliseconds.
const MAX_MILLISECONDS: u64 = i32::MAX as u64;

/// What a setting may be.
#[derive(Clone, Copy)]
enum Kind {
    /// Any text; it has no effect here.
    Any,
    /// `on` or `off`.
    Switch,
    /// A time: milliseconds, or a number with a unit.
    Time,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// What it is, which may be spelled in these ways too, in lower case.
    Fixed(&'static [&'static str]),
    /// A style of dates: only PostgreSQL's `ISO` is spoken.
    Dates,
    /// The session's user: there is no acting as another.
    Oneself,
}

use Kind::{Any, Dates, Fixed, OneOf, Oneself, Switch, Time};

const ISOLATION: [&str; 4] =
    ["serializable", "repeatable read", "read committed", "read uncommitted"];

/// Settings that are known, and their values from the start. Those that only say how PostgreSQL
/// plans, logs or waits are taken and have no effect.
const KNOWN: [(&str, &str, Kind); 69] = [
    ("application_name", "", Any),
    ("backslash_quote", "safe_encoding", Any),
    ("bytea_output", "hex", Fixed(&["hex"])),
    ("check_function_bodies", "on", Switch),
    ("client_encoding", "UTF8", Fixed(&["utf8", "utf-8", "unicode"])),
    ("client_min_messages", "notice", Any),
    ("constraint_exclusion", "partition", Any),
    ("cursor_tuple_fraction", "0.1", Any),
    ("datestyle", "ISO, MDY", Dates),
    ("default_table_access_method", "heap", Any),
    ("default_tablespace", "", Any),
    ("default_text_search_config", "pg_catalog.simple", Any),
    ("default_transaction_deferrable", "off", Switch),
    ("default_transaction_isolation", "serializable", OneOf(&ISOLATION)),
    ("default_transaction_read_only", "off", Switch),
    ("enable_bitmapscan", "on", Switch),
    ("enable_hashjoin", "on", Switch),
    ("enable_indexscan", "on", Switch),
    ("enable_mergejoin", "on", Switch),
    ("enable_nestloop", "on", Switch),
    ("enable_seqscan", "on", Switch),
    ("escape_string_warning", "on", Switch),
    ("extra_float_digits", "1", Any),
    ("force_parallel_mode", "off", Any),
    ("geqo", "on", Switch),
    ("gin_fuzzy_search_limit", "0", Any),
    ("idle_in_transaction_session_timeout", "0", Time),
    ("idle_session_timeout", "0", Time),
    ("in_hot_standby", "off", Fixed(&[])),
    ("integer_datetimes", "on", Fixed(&["on"])),
    ("intervalstyle", "postgres", Fixed(&["postgres"])),
    ("is_superuser", "off", Fixed(&[])),
    ("jit", "off", Switch),
    ("lc_collate", "C", Fixed(&[])),
    ("lc_ctype", "C", Fixed(&[])),
    ("lc_messages", "C", Any),
    ("lc_monetary", "C", Any),
    ("lc_numeric", "C", Any),
    ("lc_time", "C", Any),
    ("lock_timeout", "0", Time),
    ("max_connections", "1000", Fixed(&[])),
    ("max_identifier_length", "63", Fixed(&[])),
    ("max_index_keys", "32", Fixed(&[])),
    ("max_parallel_workers_per_gather", "0", Any),
    ("password_encryption", "scram-sha-256", Fixed(&["on"])),
    ("plan_cache_mode", "auto", Any),
    ("role", "none", Oneself),
    ("rota.copy_batch", "0", Any),
    ("rota.read", "local", OneOf(&["local", "latest", "linearizable"])),
    ("rota.wait", "final", OneOf(&["final", "included", "none"])),
    ("row_security", "off", Switch),
    ("search_path", "public", Any),
    ("server_encoding", "UTF8", Fixed(&[])),
    ("server_version", SERVER_VERSION, Fixed(&[])),
    ("server_version_num", "160000", Fixed(&[])),
    ("session_authorization", "", Oneself),
    ("session_replication_role", "origin", Fixed(&["origin"])),
    ("ssl", "off", Fixed(&[])),
    ("standard_conforming_strings", "on", Fixed(&["on", "true"])),
    ("statement_timeout", "0", Time),
    ("synchronize_seqscans", "on", Switch),
    ("synchronous_commit", "on", Any),
    ("timezone", "UTC", Fixed(&["utc", "gmt", "etc/utc", "0"])),
    ("transaction_timeout", "0", Time),
    ("vacuum_cost_delay", "0", Any),
    ("wal_level", "replica", Fixed(&[])),
    ("work_mem", "4MB", Any),
    ("xmlbinary", "base64", Any),
    ("xmloption", "content", Any),
];

/// Settings that a client is told of whenever they change, as PostgreSQL spells them
/// (<https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-ASYNC>).
pub(crate) const REPORTED: [(&str, &str); 12] = [
    ("server_version", "server_version"),
    ("server_encoding", "server_encoding"),
    ("client_encoding", "client_encoding"),
    ("application_name", "application_name"),
    ("is_superuser", "is_superuser"),
    ("session_authorization", "session_authorization"),
    ("DateStyle", "datestyle"),
    ("IntervalStyle", "intervalstyle"),
    ("TimeZone", "timezone"),
    ("integer_datetimes", "integer_datetimes"),
    ("standard_conforming_strings", "standard_conforming_strings"),
    ("default_transaction_read_only", "default_transaction_read_only"),
];

type Map = BTreeMap<String, String>;

/// Whose a session is: what some settings tell, and no SET changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Who logged in.
    pub(crate) user: Arc<str>,
    /// Whether it may do everything, as far as is known.
    pub(crate) administrator: bool,
    /// Whether the door can speak TLS.
    pub(crate) tls: bool,
}

/// The settings of one session: those that differ from the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variables {
    identity: Identity,
    now: Arc<Map>,
    /// Present inside a transaction.
    layers: Option<Layers>,
    meaning: Meaning,
}

/// What a transaction's end makes of the settings.
#[derive(Clone, Debug)]
struct Layers {
    /// ROLLBACK goes back to this.
    before: Arc<Map>,
    /// COMMIT leaves this: without what was SET LOCAL.
    after: Arc<Map>,
}

/// The settings at a savepoint.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    now: Arc<Map>,
    after: Arc<Map>,
}

/// What the settings mean to a statement that is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meaning {
    /// `rota.read`.
    pub(crate) read: ReadLevel,
    /// `rota.wait`.
    pub(crate) wait: Wait,
    /// `default_transaction_read_only`.
    pub(crate) read_only: bool,
    /// `statement_timeout`.
    pub(crate) statement: Option<Duration>,
    /// `transaction_timeout`.
    pub(crate) transaction: Option<Duration>,
    /// `idle_in_transaction_session_timeout`.
    pub(crate) idle_in_transaction: Option<Duration>,
    /// `idle_session_timeout`.
    pub(crate) idle: Option<Duration>,
}

impl Variables {
    pub(crate) fn new(identity: Identity) -> Self {
        Self { identity, ..Self::default() }
    }

    /// Who logged in.
    pub(crate) fn user(&self) -> &Arc<str> {
        &self.identity.user
    }

    /// It has been made an administrator, or is none any more.
    pub(crate) fn set_administrator(&mut self, administrator: bool) {
        self.identity.administrator = administrator;
    }

    /// What they mean to a statement.
    pub(crate) fn meaning(&self) -> &Meaning {
        &self.meaning
    }

    /// Sets one, or with `None` puts it back to its start; until the transaction's end if it is
    /// `local`. The new value.
    pub(crate) fn set(
        &mut self,
        name: &str,
        value: Option<&str>,
        local: bool,
    ) -> Result<String, Refusal> {
        let name = name.to_ascii_lowercase();
        let value = match value {
            Some(value) => self.checked(&name, value)?,
            None => {
                self.get(&name)?;
                None
            }
        };
        change(&mut self.now, &name, value.as_deref());
        if let Some(layers) = self.layers.as_mut().filter(|_| !local) {
            change(&mut layers.after, &name, value.as_deref());
        }
        self.meaning = Meaning::of(&self.now);
        self.get(&name)
    }

    /// The value as it is kept; `None` where it is what it was from the start.
    fn checked(&self, name: &str, value: &str) -> Result<Option<String>, Refusal> {
        if value.len() > MAX_SETTING_BYTES {
            return Err(invalid("the value of a setting is too long"));
        }
        let known = KNOWN.iter().find(|(known, ..)| *known == name);
        let Some(&(_, start, kind)) = known else {
            if name.starts_with("rota.") {
                return Err(invalid(format!("{name} can only be shown, if there is such a thing")));
            }
            if !name.contains('.') {
                return Err(unknown(name));
            }
            if !self.now.contains_key(name) && self.now.len() >= MAX_CUSTOM_SETTINGS {
                return Err(invalid("too many settings of one's own"));
            }
            return Ok(Some(value.to_owned()));
        };
        let wrong = || invalid(format!("invalid value for parameter \"{name}\": \"{value}\""));
        let lower = value.to_ascii_lowercase();
        let kept = match kind {
            Any => value.to_owned(),
            Switch => if switch(&lower).ok_or_else(wrong)? { "on" } else { "off" }.to_owned(),
            Time => show_time(time(&lower).ok_or_else(wrong)?),
            OneOf(allowed) if allowed.contains(&lower.as_str()) => lower,
            OneOf(_) => return Err(wrong()),
            Fixed(spellings) => {
                if spellings.contains(&lower.as_str()) || value == start {
                    return Ok(None);
                }
                return Err(Refusal::new(
                    sqlstate::FEATURE_NOT_SUPPORTED,
                    format!("{name} can only be {start}, not {value:?}"),
                ));
            }
            Oneself if *value == *self.identity.user || lower == "none" && name == "role" => {
                return Ok(None);
            }
            Oneself => {
                return Err(Refusal::new(
                    sqlstate::FEATURE_NOT_SUPPORTED,
                    format!("there is no acting as another user: connect as {value:?}"),
                ));
            }
            Dates => dates(&lower).ok_or_else(|| {
                Refusal::new(
                    sqlstate::FEATURE_NOT_SUPPORTED,
                    format!("datestyle can only be ISO, not {value:?}"),
                )
            })?,
        };
        Ok((kept != start).then_some(kept))
    }

    /// All back to the start.
    pub(crate) fn reset_all(&mut self) {
        self.now = Arc::default();
        if let Some(layers) = &mut self.layers {
            layers.after = Arc::default();
        }
        self.meaning = Meaning::default();
    }

    /// One's value.
    pub(crate) fn get(&self, name: &str) -> Result<String, Refusal> {
        if let Some(value) = self.now.get(name) {
            return Ok(value.clone());
        }
        let known = KNOWN.iter().find(|(known, ..)| *known == name);
        let told = known.map(|(_, value, _)| self.identity.tells(name).unwrap_or(value));
        told.map(str::to_owned).ok_or_else(|| unknown(name))
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        let start = KNOWN.iter().map(|(name, value, _)| {
            ((*name).to_owned(), self.identity.tells(name).unwrap_or(value).to_owned())
        });
        let mut all: Map = start.collect();
        all.extend(self.now.iter().map(|(name, value)| (name.clone(), value.clone())));
        all.into_iter().collect()
    }

    /// A transaction begins.
    pub(crate) fn begin(&mut self) {
        let before = Arc::clone(&self.now);
        self.layers = Some(Layers { after: Arc::clone(&before), before });
    }

    /// It ends.
    pub(crate) fn end(&mut self, committed: bool) {
        let Some(layers) = self.layers.take() else { return };
        let then = if committed { layers.after } else { layers.before };
        if !Arc::ptr_eq(&then, &self.now) {
            self.now = then;
            self.meaning = Meaning::of(&self.now);
        }
    }

    /// The settings now, for a savepoint.
    pub(crate) fn mark(&self) -> Mark {
        let after = self.layers.as_ref().map_or(&self.now, |layers| &layers.after);
        Mark { now: Arc::clone(&self.now), after: Arc::clone(after) }
    }

    /// Back to a savepoint.
    pub(crate) fn back_to(&mut self, mark: &Mark) {
        self.now = Arc::clone(&mark.now);
        if let Some(layers) = &mut self.layers {
            layers.after = Arc::clone(&mark.after);
        }
        self.meaning = Meaning::of(&self.now);
    }

    /// What a client has not been told of yet; it then has.
    pub(crate) fn report(&self, told: &mut Self) -> Vec<(&'static str, String)> {
        if Arc::ptr_eq(&self.now, &told.now) && self.identity == told.identity {
            return Vec::new();
        }
        let changed = REPORTED.iter().filter_map(|(spelled, name)| {
            let now = self.get(name).ok()?;
            (told.get(name).ok()? != now).then_some((*spelled, now))
        });
        let changed = changed.collect();
        told.now = Arc::clone(&self.now);
        told.identity = self.identity.clone();
        changed
    }
}

impl Identity {
    fn tells(&self, setting: &str) -> Option<&str> {
        let on = |on| if on { "on" } else { "off" };
        match setting {
            "session_authorization" => Some(&self.user),
            "is_superuser" => Some(on(self.administrator)),
            "ssl" => Some(on(self.tls)),
            _ => None,
        }
    }
}

impl Meaning {
    fn of(map: &Map) -> Self {
        let time = |name: &str| {
            let milliseconds = map.get(name).and_then(|value| time(value)).unwrap_or(0);
            (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
        };
        Self {
            read: match map.get("rota.read").map(String::as_str) {
                Some("latest") => ReadLevel::Latest,
                Some("linearizable") => ReadLevel::Linearizable,
                _ => ReadLevel::Local,
            },
            wait: match map.get("rota.wait").map(String::as_str) {
                Some("included") => Wait::Included,
                Some("none") => Wait::None,
                _ => Wait::Final,
            },
            read_only: map.get("default_transaction_read_only").is_some_and(|on| on == "on"),
            statement: time("statement_timeout"),
            transaction: time("transaction_timeout"),
            idle_in_transaction: time("idle_in_transaction_session_timeout"),
            idle: time("idle_session_timeout"),
        }
    }
}

fn change(map: &mut Arc<Map>, name: &str, value: Option<&str>) {
    match value {
        Some(value) => {
            if map.get(name).is_none_or(|now| now != value) {
                Arc::make_mut(map).insert(name.to_owned(), value.to_owned());
            }
        }
        None => {
            if map.contains_key(name) {
                Arc::make_mut(map).remove(name);
            }
        }
    }
}

/// PostgreSQL's spellings of yes and no, beginnings of the words included.
pub(crate) fn switch(value: &str) -> Option<bool> {
    match value {
        "" | "o" => None,
        "1" | "on" => Some(true),
        "0" => Some(false),
        _ if "true".starts_with(value) || "yes".starts_with(value) => Some(true),
        _ if "false".starts_with(value) || "no".starts_with(value) || "off".starts_with(value) => {
            Some(false)
        }
        _ => None,
    }
}

/// Units of times with their milliseconds, the largest first.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

/// Milliseconds of `1000`, `1s`, `5 min`.
fn time(value: &str) -> Option<u64> {
    let value = value.trim();
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let unit = match unit.trim() {
        "" => 1,
        unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.checked_mul(unit).filter(|time| *time <= MAX_MILLISECONDS)
}

/// A time as PostgreSQL shows it: in the largest unit that it is whole in.
fn show_time(milliseconds: u64) -> String {
    if milliseconds == 0 {
        return "0".into();
    }
    let whole = UNITS.iter().find(|(_, unit)| milliseconds.is_multiple_of(*unit));
    let (name, unit) = whole.unwrap_or(&("ms", 1));
    format!("{}{name}", milliseconds / unit)
}

/// `iso`, `iso, dmy`, `mdy`: the style as it is shown.
fn dates(value: &str) -> Option<String> {
    let mut order = "MDY";
    for word in value.split(',').map(str::trim) {
        match word {
            "iso" => {}
            "mdy" | "us" | "noneuro" | "noneuropean" => order = "MDY",
            "dmy" | "euro" | "european" => order = "DMY",
            "ymd" => order = "YMD",
            _ => return None,
        }
    }
    Some(format!("ISO, {order}"))
}

fn unknown(name: &str) -> Refusal {
    Refusal::new("42704", format!("unrecognized configuration parameter \"{name}\""))
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(sqlstate::INVALID_PARAMETER, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_would_change_meaning_are_refused_and_others_kept() {
        let mut variables = Variables::default();
        for (name, value, code) in [
            ("timezone", "Europe/Berlin", "0A000"),
            ("client_encoding", "LATIN1", "0A000"),
            ("standard_conforming_strings", "off", "0A000"),
            ("datestyle", "german", "0A000"),
            ("rota.read", "newest", "22023"),
            ("rota.last", "1", "22023"),
            ("statement_timeout", "soon", "22023"),
            ("jit", "perhaps", "22023"),
            ("nonsense", "1", "42704"),
        ] {
            let refused = variables.set(name, Some(value), false).unwrap_err();
            assert_eq!(refused.code(), code, "{name}");
        }
        for (name, value, shown) in [
            ("application_name", "x", "x"),
            ("app.user", "y", "y"),
            ("statement_timeout", "90000", "90s"),
            ("statement_timeout", "1 min", "1min"),
            ("jit", "TRUE", "on"),
            ("DateStyle", "ISO", "ISO, MDY"),
            ("rota.read", "Latest", "latest"),
        ] {
            assert_eq!(variables.set(name, Some(value), false), Ok(shown.into()), "{name}");
        }
        assert_eq!(variables.meaning().statement, Some(Duration::from_secs(60)));
        assert_eq!(variables.meaning().read, ReadLevel::Latest);
        variables.reset_all();
        assert_eq!(variables.get("application_name"), Ok(String::new()));
        assert!(variables.get("app.user").is_err());
        assert_eq!(variables.meaning(), &Meaning::default());
    }

    #[test]
    fn the_names_are_in_order_and_the_starts_are_allowed() {
        assert!(KNOWN.windows(2).all(|two| two[0].0 < two[1].0));
        let variables = Variables::default();
        for (name, start, _) in KNOWN {
            assert_eq!(variables.checked(name, start), Ok(None), "{name}");
        }
    }

    #[test]
    fn a_transactions_end_and_savepoints_undo_what_was_set() {
        let mut variables = Variables::default();
        let now = |variables: &Variables| {
            ["a.a", "a.b"].map(|name| variables.get(name).unwrap_or_default())
        };
        variables.set("a.a", Some("0"), false).unwrap();
        for (committed, end) in [(false, ["0", ""]), (true, ["1", ""])] {
            variables.begin();
            variables.set("a.a", Some("1"), false).unwrap();
            let mark = variables.mark();
            variables.set("a.a", Some("2"), false).unwrap();
            variables.back_to(&mark);
            variables.set("a.b", Some("3"), true).unwrap();
            assert_eq!(now(&variables), ["1", "3"]);
            variables.end(committed);
            assert_eq!(now(&variables), end);
        }
    }

    #[test]
    fn a_client_is_told_once_of_what_changed() {
        let (mut variables, mut told) = (Variables::default(), Variables::default());
        variables.set("application_name", Some("x"), false).unwrap();
        variables.set("jit", Some("on"), false).unwrap();
        assert_eq!(variables.report(&mut told), [("application_name", "x".to_owned())]);
        variables.set_administrator(true);
        assert_eq!(variables.report(&mut told), [("is_superuser", "on".to_owned())]);
        assert_eq!(variables.report(&mut told), []);
    }

    #[test]
    fn one_can_only_become_who_one_is() {
        let identity = Identity { user: "alice".into(), ..Identity::default() };
        let mut variables = Variables::new(identity);
        for (name, value, shown) in [
            ("role", "none", "none"),
            ("role", "alice", "none"),
            ("session_authorization", "alice", "alice"),
        ] {
            assert_eq!(variables.set(name, Some(value), false), Ok(shown.into()));
            assert_eq!(variables.set(name, None, false), Ok(shown.into()));
        }
        for (name, value) in
            [("role", "bob"), ("session_authorization", "bob"), ("session_authorization", "none")]
        {
            assert_eq!(variables.set(name, Some(value), false).unwrap_err().code(), "0A000");
        }
    }
}
