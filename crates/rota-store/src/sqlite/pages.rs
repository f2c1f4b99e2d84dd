//! A database whose file is not on disk: a VFS that asks a [`PageFile`] of ours for every read and
//! write. Drafts are made of it (step 1; SQLite, "The OS Backend (VFS) To SQLite").
//!
//! ```text
//!   Database ── Connection ── VFS "rota-pages-7" ── main file ──> PageFile (safe code, ours)
//!                                                └─ temporary files ──> the system's VFS
//! ```
//! Locks and syncs succeed and do nothing: the file belongs to one connection. There is no journal
//! file: such a connection keeps its journal in memory.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::ffi;

use super::{Clocked, current_time_days, current_time_ms};

/// A database file in memory. Offsets and sizes are in bytes.
pub trait PageFile: Send {
    /// Fills `into` from `offset`. Fewer bytes than asked: the file ends there. `None`: it cannot
    /// be read.
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Option<usize>;

    /// Takes a write; false if there is no more room.
    fn write(&mut self, offset: u64, from: &[u8]) -> bool;

    /// The file ends here from now on.
    fn truncate(&mut self, size: u64);

    /// How long it is.
    fn size(&self) -> u64;
}

/// What SQLite and we share.
pub type SharedFile = Arc<Mutex<dyn PageFile>>;

/// The registered VFS: the system's, but for its clock and its main file.
#[repr(C)]
pub(super) struct PagesVfs {
    clocked: Clocked,
    /// The system's own, for temporary files.
    system: *mut ffi::sqlite3_vfs,
    file: SharedFile,
    name: CString,
}

/// An open main file. SQLite allocates as many bytes as `szOsFile` says and never moves it.
#[repr(C)]
struct OpenFile {
    base: ffi::sqlite3_file,
    /// A strong reference of its own, as raw parts.
    file: *const SharedFile,
}

/// A registered [`PagesVfs`]; unregistered when dropped.
pub(super) struct Pages(*mut PagesVfs);

// SAFETY: registered and unregistered under SQLite's own mutex; the clock is atomic, the file
// behind a mutex, the rest constant.
unsafe impl Send for Pages {}

impl Pages {
    pub(super) fn register(file: SharedFile) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("rota-pages-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).expect("digits and letters");
        // SAFETY: the default VFS always exists after initialization and is never unregistered; a
        // copy of it is valid as long as its pointers are, which is for ever.
        unsafe {
            ffi::sqlite3_initialize();
            let system = ffi::sqlite3_vfs_find(ptr::null());
            let mut base = ptr::read(system);
            base.pNext = ptr::null_mut();
            base.zName = name.as_ptr();
            let ours = c_int::try_from(size_of::<OpenFile>()).expect("a small struct");
            base.szOsFile = base.szOsFile.max(ours);
            base.xOpen = Some(open);
            base.xDelete = Some(delete);
            base.xAccess = Some(access);
            base.xFullPathname = Some(full_path);
            base.xCurrentTime = Some(current_time_days);
            base.xCurrentTimeInt64 = Some(current_time_ms);
            base.iVersion = base.iVersion.max(2);
            let clocked = Clocked { base, unix_ms: AtomicI64::new(0) };
            let vfs = Box::into_raw(Box::new(PagesVfs { clocked, system, file, name }));
            ffi::sqlite3_vfs_register(vfs.cast(), 0);
            Self(vfs)
        }
    }

    pub(super) fn name(&self) -> &CStr {
        // SAFETY: the structure lives as long as self.
        unsafe { &(*self.0).name }
    }

    pub(super) fn clock(&self) -> &AtomicI64 {
        // SAFETY: as in `name`.
        unsafe { &(*self.0).clocked.unix_ms }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: no connection uses it any more: Database drops its connection first, and nobody
        // else knows its name.
        unsafe {
            ffi::sqlite3_vfs_unregister(self.0.cast());
            drop(Box::from_raw(self.0));
        }
    }
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes the VFS that was registered, which is the first field of a PagesVfs,
    // room for `szOsFile` bytes, and a place for flags or NULL. The system's xOpen gets what it
    // would get from SQLite.
    unsafe {
        let pages = vfs.cast::<PagesVfs>();
        if flags & ffi::SQLITE_OPEN_MAIN_DB == 0 {
            let system = (*pages).system;
            let Some(open) = (*system).xOpen else { return ffi::SQLITE_CANTOPEN };
            return open(system, name, file, flags, out_flags);
        }
        let opened = file.cast::<OpenFile>();
        (*opened).base.pMethods = &METHODS;
        (*opened).file = Box::into_raw(Box::new(Arc::clone(&(*pages).file)));
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

/// # Safety
/// `file` is one that `open` has filled in, and is not closed.
unsafe fn with<T>(file: *mut ffi::sqlite3_file, run: impl FnOnce(&mut dyn PageFile) -> T) -> T {
    // SAFETY: the reference was made by `open` and lives until `close`.
    let shared = unsafe { &*(*file.cast::<OpenFile>()).file };
    run(&mut *shared.lock().unwrap_or_else(PoisonError::into_inner))
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes what `open` has opened, once.
    unsafe { drop(Box::from_raw((*file.cast::<OpenFile>()).file.cast_mut())) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    let (Ok(length), Ok(offset)) = (usize::try_from(length), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_READ;
    };
    // SAFETY: SQLite passes room for `length` bytes, which may be uninitialized: they are set
    // before a reference to them is made.
    unsafe {
        ptr::write_bytes(into.cast::<u8>(), 0, length);
        let into = std::slice::from_raw_parts_mut(into.cast::<u8>(), length);
        match with(file, |file| file.read(offset, into)) {
            Some(read) if read == length => ffi::SQLITE_OK,
            Some(_) => ffi::SQLITE_IOERR_SHORT_READ,
            None => ffi::SQLITE_IOERR_READ,
        }
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    let (Ok(length), Ok(offset)) = (usize::try_from(length), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: SQLite passes `length` bytes.
    unsafe {
        let from = std::slice::from_raw_parts(from.cast::<u8>(), length);
        if with(file, |file| file.write(offset, from)) { ffi::SQLITE_OK } else { ffi::SQLITE_FULL }
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: as in `with`.
    unsafe { with(file, |file| file.truncate(u64::try_from(size).unwrap_or(0))) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: as in `with`; SQLite passes a place to write.
    unsafe { *out = i64::try_from(with(file, |file| file.size())).unwrap_or(i64::MAX) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn nothing(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn not_reserved(_: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite passes a place to write.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn no_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector(_: *mut ffi::sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn no_traits(_: *mut ffi::sqlite3_file) -> c_int {
    0
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(nothing),
    xFileSize: Some(size),
    xLock: Some(nothing),
    xUnlock: Some(nothing),
    xCheckReservedLock: Some(not_reserved),
    xFileControl: Some(no_control),
    xSectorSize: Some(sector),
    xDeviceCharacteristics: Some(no_traits),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// There is no file to delete.
unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, _: *const c_char, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

/// There is no journal to find.
unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    _: *const c_char,
    _: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes a place to write.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

/// The name is the path.
unsafe extern "C" fn full_path(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    length: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: the name is NUL-terminated, the place has `length` bytes.
    unsafe {
        let name = CStr::from_ptr(name).to_bytes_with_nul();
        if name.len() > usize::try_from(length).unwrap_or(0) {
            return ffi::SQLITE_CANTOPEN;
        }
        ptr::copy_nonoverlapping(name.as_ptr().cast::<c_char>(), out, name.len());
    }
    ffi::SQLITE_OK
}
