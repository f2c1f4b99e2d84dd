//! SQLite's raw interface: the only unsafe code of this crate. What rusqlite wraps is used through
//! rusqlite; here is the rest, made safe.
//!
//! ```text
//!   Database ── Connection ── preupdate hook ──> Change: a row's old and new values
//!            └─ VFS: the system's, but its clock is ours ──> CURRENT_TIMESTAMP, date('now'), …
//!            └─ or the VFS of `pages`: the file is in memory, as a draft has it
//! ```
#![allow(unsafe_code)]

pub mod pages;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, ffi};

use pages::{Pages, SharedFile};

/// SQLite's Julian day number of 1970-01-01T00:00Z, in milliseconds.
const UNIX_EPOCH_JULIAN_MS: i64 = 210_866_760_000_000;

/// Every page of our files keeps this many bytes for a checksum.
const RESERVED_BYTES: c_int = 8;

/// SQLite's source id and our compile flags, without the C compiler's name: what plans, and so
/// results, depend on.
pub fn identity() -> String {
    // SAFETY: both functions return pointers to constant, NUL-terminated strings; the second one
    // NULL past the end.
    unsafe {
        let mut identity = CStr::from_ptr(ffi::sqlite3_sourceid()).to_string_lossy().into_owned();
        for index in 0.. {
            let option = ffi::sqlite3_compileoption_get(index);
            if option.is_null() {
                break;
            }
            let option = CStr::from_ptr(option).to_string_lossy();
            if !option.starts_with("COMPILER=") {
                identity.push(' ');
                identity.push_str(&option);
            }
        }
        identity
    }
}

/// What happens to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Insert,
    /// It was and is.
    Update,
    /// It was.
    Delete,
}

/// A row about to change, as the preupdate hook tells it.
pub struct Change<'a> {
    db: *mut ffi::sqlite3,
    /// What happens.
    pub kind: ChangeKind,
    /// Whose row.
    pub table: &'a [u8],
    /// Before; 0 without a rowid.
    pub old_rowid: i64,
    /// After; 0 without a rowid.
    pub new_rowid: i64,
}

impl Change<'_> {
    /// The value of a stored column before an update or delete, or SQLite's result code.
    pub fn before(&self, column: i32) -> Result<ValueRef<'_>, i32> {
        let mut value = ptr::null_mut();
        // SAFETY: a Change exists only inside the hook, where SQLite allows this call; it checks
        // the column itself.
        let code = unsafe { ffi::sqlite3_preupdate_old(self.db, column, &mut value) };
        // SAFETY: on success the value lives until the hook returns, which `self` does not outlive.
        if code == ffi::SQLITE_OK { Ok(unsafe { value_ref(value) }) } else { Err(code) }
    }

    /// The value of a stored column after an insert or update, or SQLite's result code.
    pub fn after(&self, column: i32) -> Result<ValueRef<'_>, i32> {
        let mut value = ptr::null_mut();
        // SAFETY: as in `before`.
        let code = unsafe { ffi::sqlite3_preupdate_new(self.db, column, &mut value) };
        // SAFETY: as in `before`.
        if code == ffi::SQLITE_OK { Ok(unsafe { value_ref(value) }) } else { Err(code) }
    }
}

/// # Safety
/// `value` is a protected value, or NULL, that lives and is not changed for `'a`.
unsafe fn value_ref<'a>(value: *mut ffi::sqlite3_value) -> ValueRef<'a> {
    if value.is_null() {
        return ValueRef::Null;
    }
    // SAFETY: the value is protected; pointer and length are asked for in the order that SQLite
    // demands, and a NULL pointer (an empty blob) is not made a slice of.
    unsafe {
        match ffi::sqlite3_value_type(value) {
            ffi::SQLITE_INTEGER => ValueRef::Integer(ffi::sqlite3_value_int64(value)),
            ffi::SQLITE_FLOAT => ValueRef::Real(ffi::sqlite3_value_double(value)),
            ffi::SQLITE_TEXT => {
                let text = ffi::sqlite3_value_text(value);
                let length = usize::try_from(ffi::sqlite3_value_bytes(value)).unwrap_or(0);
                ValueRef::Text(bytes(text, length))
            }
            ffi::SQLITE_BLOB => {
                let blob = ffi::sqlite3_value_blob(value).cast::<u8>();
                let length = usize::try_from(ffi::sqlite3_value_bytes(value)).unwrap_or(0);
                ValueRef::Blob(bytes(blob, length))
            }
            _ => ValueRef::Null,
        }
    }
}

/// # Safety
/// `start` is NULL or points to `length` bytes that live and are not changed for `'a`.
unsafe fn bytes<'a>(start: *const u8, length: usize) -> &'a [u8] {
    if start.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(start, length) }
}

type Observer = Box<dyn FnMut(&Change<'_>) + Send>;

unsafe extern "C" fn on_preupdate(
    observer: *mut c_void,
    db: *mut ffi::sqlite3,
    operation: c_int,
    _database: *const c_char,
    table: *const c_char,
    old_rowid: i64,
    new_rowid: i64,
) {
    let kind = match operation {
        ffi::SQLITE_INSERT => ChangeKind::Insert,
        ffi::SQLITE_UPDATE => ChangeKind::Update,
        _ => ChangeKind::Delete,
    };
    // SAFETY: `observer` is the box that Database holds as long as its connection, used by one
    // thread at a time and not reentered (an observer has no connection); `table` is NUL-terminated
    // and outlives the call.
    unsafe {
        let table = CStr::from_ptr(table).to_bytes();
        let change = Change { db, kind, table, old_rowid, new_rowid };
        (*observer.cast::<Observer>())(&change);
    }
}

/// What our VFSs start with: SQLite's own structure, and the clock that they tell.
#[repr(C)]
struct Clocked {
    base: ffi::sqlite3_vfs,
    unix_ms: AtomicI64,
}

/// The system's VFS with a clock of ours.
#[repr(C)]
struct ClockVfs {
    clocked: Clocked,
    name: CString,
}

unsafe extern "C" fn current_time_ms(vfs: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    // SAFETY: SQLite passes the VFS that was registered, which starts with a Clocked, and a place
    // to write.
    unsafe {
        let now = (*vfs.cast::<Clocked>()).unix_ms.load(Ordering::Relaxed);
        *out = now.saturating_add(UNIX_EPOCH_JULIAN_MS);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_days(vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    let mut ms = 0;
    // SAFETY: as in `current_time_ms`.
    unsafe {
        current_time_ms(vfs, &mut ms);
        *out = ms as f64 / 86_400_000.0;
    }
    ffi::SQLITE_OK
}

/// A registered [`ClockVfs`].
struct Clock(*mut ClockVfs);

// SAFETY: the VFS is registered and unregistered under SQLite's own mutex, and its clock is atomic.
unsafe impl Send for Clock {}

impl Clock {
    fn register() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("rota-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).expect("digits and letters");
        // SAFETY: the default VFS always exists after initialization. Its methods only use the
        // fields that are copied (the size of a file object, the locking style in pAppData), never
        // the address of the structure.
        unsafe {
            ffi::sqlite3_initialize();
            let mut base = ptr::read(ffi::sqlite3_vfs_find(ptr::null()));
            base.pNext = ptr::null_mut();
            base.zName = name.as_ptr();
            base.xCurrentTime = Some(current_time_days);
            base.xCurrentTimeInt64 = Some(current_time_ms);
            base.iVersion = base.iVersion.max(2);
            let clocked = Clocked { base, unix_ms: AtomicI64::new(0) };
            let vfs = Box::into_raw(Box::new(ClockVfs { clocked, name }));
            ffi::sqlite3_vfs_register(vfs.cast(), 0);
            Self(vfs)
        }
    }

    fn name(&self) -> &CStr {
        // SAFETY: the structure lives as long as self.
        unsafe { &(*self.0).name }
    }

    fn time(&self) -> &AtomicI64 {
        // SAFETY: the structure lives as long as self; the field is atomic.
        unsafe { &(*self.0).clocked.unix_ms }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        // SAFETY: no connection uses it any more: Database drops its connection first, and nobody
        // else knows its name.
        unsafe {
            ffi::sqlite3_vfs_unregister(self.0.cast());
            drop(Box::from_raw(self.0));
        }
    }
}

/// What SQLite calls for `localtime`: the time zone is UTC on every server, whatever its machine
/// says.
unsafe extern "C" fn utc(time: *const c_void, broken_down: *mut c_void) -> c_int {
    // SAFETY: SQLite passes a `time_t` and a `struct tm`, which starts with these six ints on every
    // system.
    unsafe {
        let seconds = *time.cast::<i64>();
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        let fields = [second % 60, second / 60 % 60, second / 3600, day, month - 1, year - 1900];
        for (index, field) in fields.into_iter().enumerate() {
            *broken_down.cast::<c_int>().add(index) = c_int::try_from(field).unwrap_or(0);
        }
    }
    0
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms").
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// Makes SQLite's `localtime` and `utc` modifiers mean UTC, for every connection of this process.
pub fn use_utc() {
    let convert: unsafe extern "C" fn(*const c_void, *mut c_void) -> c_int = utc;
    // SAFETY: this test control takes an int and, for the value 2, a function of this type; it sets
    // two words that are read when a date is converted, and every caller sets the same.
    unsafe { ffi::sqlite3_test_control(ffi::SQLITE_TESTCTRL_LOCALTIME_FAULT, 2 as c_int, convert) };
}

/// A connection to a database of ours, with what rusqlite does not offer.
pub struct Database {
    // Fields are dropped in this order: the connection uses the others.
    connection: Connection,
    observer: *mut Observer,
    files: Files,
}

/// Where a database's files are: the registered VFS.
enum Files {
    System(Clock),
    Memory(Pages),
}

// SAFETY: the observer is Send, is owned by this structure, and is called by whoever uses the
// connection, which is Send and not Sync.
unsafe impl Send for Database {}

impl Database {
    /// Opens or creates a file. A new one gets its reserved bytes.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        use_utc();
        let clock = Clock::register();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags_and_vfs(path, flags, clock.name())?;
        reserve_bytes(&connection)?;
        Ok(Self { connection, observer: ptr::null_mut(), files: Files::System(clock) })
    }

    /// Opens a database whose file is this one, for this connection alone.
    pub fn over(file: SharedFile) -> rusqlite::Result<Self> {
        use_utc();
        let pages = Pages::register(file);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags_and_vfs("draft", flags, pages.name())?;
        Ok(Self { connection, observer: ptr::null_mut(), files: Files::Memory(pages) })
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The connection, to give it callbacks.
    pub fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Sets the clock that SQL sees, in milliseconds since 1970.
    pub fn set_clock(&self, unix_ms: i64) {
        let clock = match &self.files {
            Files::System(clock) => clock.time(),
            Files::Memory(pages) => pages.clock(),
        };
        clock.store(unix_ms, Ordering::Relaxed);
    }

    /// Calls `observer` before each row of an ordinary table changes. Set it before any statement
    /// is prepared: only then does a DELETE without WHERE tell its rows.
    pub fn observe(&mut self, observer: impl FnMut(&Change<'_>) + Send + 'static) {
        let boxed: *mut Observer = Box::into_raw(Box::new(Box::new(observer)));
        // SAFETY: the hook's argument is the box, which lives until it is replaced here or self is
        // dropped.
        unsafe {
            ffi::sqlite3_preupdate_hook(
                self.connection.handle(),
                Some(on_preupdate),
                boxed.cast::<c_void>(),
            );
            self.free_observer();
        }
        self.observer = boxed;
    }

    /// # Safety
    /// The hook no longer uses the box.
    unsafe fn free_observer(&mut self) {
        if !self.observer.is_null() {
            // SAFETY: it came from Box::into_raw, and this is the only place that frees it.
            drop(unsafe { Box::from_raw(self.observer) });
            self.observer = ptr::null_mut();
        }
    }

    /// Whether a deferred foreign key is violated now.
    pub fn violates_deferred_keys(&self) -> bool {
        let (mut current, mut highest) = (0, 0);
        // SAFETY: the connection is open; both places are ours.
        unsafe {
            ffi::sqlite3_db_status(
                self.connection.handle(),
                ffi::SQLITE_DBSTATUS_DEFERRED_FKS,
                &mut current,
                &mut highest,
                0,
            );
        }
        current != 0
    }

    /// How many pages were written to the file or its log since this was last asked.
    pub fn pages_written(&self) -> u64 {
        let (mut current, mut highest) = (0, 0);
        // SAFETY: the connection is open; both places are ours; 1 sets the count to zero.
        unsafe {
            ffi::sqlite3_db_status(
                self.connection.handle(),
                ffi::SQLITE_DBSTATUS_CACHE_WRITE,
                &mut current,
                &mut highest,
                1,
            );
        }
        u64::try_from(current).unwrap_or(0)
    }

    /// Says which rowid was inserted last.
    pub fn set_last_insert_rowid(&self, rowid: i64) {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_set_last_insert_rowid(self.connection.handle(), rowid) };
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // SAFETY: the connection is open; after this it no longer uses the box.
        unsafe {
            ffi::sqlite3_preupdate_hook(self.connection.handle(), None, ptr::null_mut());
            self.free_observer();
        }
    }
}

/// Keeps [`RESERVED_BYTES`] of each page free for a checksum. Works only before the first table is
/// created; later it changes nothing.
pub fn reserve_bytes(connection: &Connection) -> rusqlite::Result<()> {
    let mut bytes = RESERVED_BYTES;
    // SAFETY: the connection is open; this control reads and writes one int.
    let code = unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            ptr::null(),
            ffi::SQLITE_FCNTL_RESERVE_BYTES,
            ptr::from_mut(&mut bytes).cast::<c_void>(),
        )
    };
    if code == ffi::SQLITE_OK {
        Ok(())
    } else {
        Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(-1), (1969, 12, 31));
        assert_eq!(civil(19_782), (2024, 2, 29));
    }

    #[test]
    fn local_time_is_utc_wherever_the_machine_stands() {
        // A time zone is read once in a process's life, so another process asks.
        if std::env::var_os("TZ").is_none_or(|zone| zone != "XYZ-9") {
            let this = std::env::current_exe().unwrap();
            let name = "sqlite::tests::local_time_is_utc_wherever_the_machine_stands";
            let output = std::process::Command::new(this)
                .args(["--exact", name])
                .env("TZ", "XYZ-9")
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            return;
        }
        use_utc();
        let connection = Connection::open_in_memory().unwrap();
        let read =
            |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        for at in ["2024-02-29 23:59:59", "1999-12-31 00:00:00"] {
            assert_eq!(read(&format!("SELECT datetime('{at}', 'localtime')")), at);
            assert_eq!(read(&format!("SELECT datetime('{at}', 'utc')")), at);
        }
    }

    #[test]
    fn pages_keep_their_reserved_bytes() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.db");
        let database = Database::open(&path).unwrap();
        database.connection().execute_batch("CREATE TABLE t(a)").unwrap();
        drop(database);
        // Byte 20 of the file: SQLite's file format, section 1.3.
        assert_eq!(std::fs::read(&path).unwrap()[20], 8);
    }
}
