//! `rota keys`: keys of clients who sign for themselves. A file of 64 hex digits, as a server's is.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rota_core::crypto::SecretKey;
use rota_node::config::new_key;
use rota_store::access::text_of;

use crate::args::Keys;
use crate::failure::Failure;
use crate::print::out;

/// More than a key file has; what is longer is not read.
const MAX_FILE_BYTES: u64 = 256;

/// Makes a key, or shows the public part of one.
pub fn run(asked: &Keys) -> Result<(), Failure> {
    let key = match asked {
        Keys::New { file } => create(file)?,
        Keys::Show { file } => load(file)?,
    };
    out(&format!("{}\n", text_of(&key.public())))
}

fn create(path: &Path) -> Result<SecretKey, Failure> {
    let doing = |why: &str| Failure::new(format!("{}: {why}", path.display()));
    let key = new_key().map_err(Failure::doing("making a key"))?;
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = created.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            doing("it exists; a key that is lost cannot be made again, so nothing is overwritten")
        }
        _ => doing(&error.to_string()),
    })?;
    let doing = |error: std::io::Error| doing(&error.to_string());
    file.write_all((hex(&key) + "\n").as_bytes()).map_err(doing)?;
    file.sync_all().map_err(doing)?;
    Ok(key)
}

fn hex(key: &SecretKey) -> String {
    key.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a secret key. Refuses a file that others may read.
pub fn load(path: &Path) -> Result<SecretKey, Failure> {
    let wrong = |why: &str| Failure::new(format!("{}: {why}", path.display()));
    let file = File::open(path).map_err(|error| wrong(&error.to_string()))?;
    let about = file.metadata().map_err(|error| wrong(&error.to_string()))?;
    if about.permissions().mode() & 0o077 != 0 {
        return Err(wrong(
            "others may read this secret key; run `chmod 600` on it, or make a new one if they did",
        ));
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(|_| wrong("not a key"))?;
    // Not a hash of any kind, but the same 64 digits.
    let digits: rota_core::types::Digest =
        text.trim().parse().map_err(|_| wrong("not a key: 64 hex digits are expected"))?;
    Ok(SecretKey::from_bytes(digits.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_from_others_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alice.key");
        let key = create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load(&path).unwrap().public(), key.public());
        assert!(create(&path).is_err(), "another key in its place");
        assert_eq!(load(&path).unwrap().public(), key.public());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load(&path).is_err(), "others may read it");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("short", "00ff"), ("none", ""), ("words", "what is this?")] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(load(&path).is_err(), "{name}");
        }
        assert!(load(&folder.path().join("missing")).is_err());
    }
}
