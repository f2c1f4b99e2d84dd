//! `peers.json` in a server's home: the addresses that answered, and those of neighbours, for the
//! next start. A convenience: when it cannot be read the server begins at its entrances, when it
//! cannot be written it goes on.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::book::{Kept, MOST_KEPT};

/// No file of [`MOST_KEPT`] entries is larger: some 170 bytes each.
const MOST_BYTES: u64 = 256 * MOST_KEPT as u64;

/// The file, if there is one.
#[derive(Debug)]
pub struct File {
    path: Option<PathBuf>,
}

impl File {
    /// There.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path }
    }

    /// What is in it.
    pub fn read(&mut self) -> Vec<Kept> {
        let Some(path) = &self.path else { return Vec::new() };
        match read(path) {
            Ok(kept) => kept,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "known addresses are not read");
                Vec::new()
            }
        }
    }

    /// Writes it, beside everything else.
    pub fn write(&self, kept: Vec<Kept>) {
        if let Some(path) = self.path.clone() {
            tokio::task::spawn_blocking(move || write(&path, &kept));
        }
    }

    /// Writes it before this returns.
    pub fn write_now(&self, kept: &[Kept]) {
        if let Some(path) = &self.path {
            write(path, kept);
        }
    }
}

fn read(path: &Path) -> std::io::Result<Vec<Kept>> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MOST_BYTES).read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(std::io::Error::other)
}

/// Replaces the file whole. Not flushed: what is lost in a crash is learnt again.
fn write(path: &Path, kept: &[Kept]) {
    let draft = path.with_extension("new");
    let written = serde_json::to_vec_pretty(kept)
        .map_err(std::io::Error::other)
        .and_then(|text| std::fs::write(&draft, text))
        .and_then(|()| std::fs::rename(&draft, path));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "known addresses are not written down");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nonsense_is_passed_over() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("peers.json");
        let mut file = File::new(Some(path.clone()));
        assert!(file.read().is_empty());
        let key = rota_core::types::PublicKey([7; 32]);
        let kept =
            [Kept { key, address: "[2001:db8::1]:7001".parse().unwrap(), seen: 9, tried: true }];
        file.write_now(&kept);
        assert_eq!(file.read(), kept);
        std::fs::write(&path, "{nonsense").unwrap();
        assert!(file.read().is_empty());
    }
}
