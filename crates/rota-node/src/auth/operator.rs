//! Who operates this server: under `pow` it signs whatever its clients write in one name, its
//! operator's, so whoever its own settings let in acts in that (step 1).
//!
//! ```text
//!   from this machine, `open = true`        whatever name is given ┐
//!   with what home/operator.password says   as user `operator`     ├─► the operator's name
//!                                                                  ┘   (`Access::operator`)
//! ```
//! The password is of this server only: no other server knows it, and nothing of it is replicated.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rota_core::types::PublicKey;
use rota_store::access::{Access, Verifier};

use super::Login;
use super::scram::{self, SALT_BYTES};
use crate::config::{ConfigError, content, io};

/// As whom one logs in with the password.
pub const USER: &str = "operator";

/// Where the password is, in a home: one line, readable by the server's own user only.
pub const PASSWORD_FILE: &str = "operator.password";

/// More than a password has; what is longer is a mistake.
const MAX_PASSWORD_BYTES: usize = 1_024;

/// Who operates a server.
#[derive(Clone, Debug)]
pub struct Operator {
    key: PublicKey,
    verifier: Option<Verifier>,
}

impl Operator {
    /// Of the server with this key, who needs no password or cannot log in.
    pub fn new(key: PublicKey) -> Self {
        Self { key, verifier: None }
    }

    /// The same with the password in the home, if there is one. Refuses a file that others may
    /// read.
    pub fn load(home: &Path, key: PublicKey) -> Result<Self, ConfigError> {
        let path = home.join(PASSWORD_FILE);
        let mode = match std::fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::new(key)),
            Err(error) => return Err(io(&path)(error)),
            Ok(about) => about.permissions().mode(),
        };
        if mode & 0o077 != 0 {
            return Err(content(&path, "others may read this password; run `chmod 600` on it"));
        }
        let text = std::fs::read_to_string(&path).map_err(io(&path))?;
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() || password.len() > MAX_PASSWORD_BYTES {
            let wrong = format!("a password has from 1 to {MAX_PASSWORD_BYTES} bytes, in one line");
            return Err(content(&path, wrong));
        }
        let mut salt = [0; SALT_BYTES];
        let doing = |error| content(&path, format!("the system's random source failed: {error}"));
        getrandom::fill(&mut salt).map_err(doing)?;
        Ok(Self { key, verifier: Some(scram::derive(password, &salt, scram::ITERATIONS)) })
    }

    /// Who it is, where servers have operators.
    pub(super) fn login(&self, access: &Access) -> Option<Login> {
        Login::of(access, &access.operator(&self.key)?)
    }

    /// What its password is checked against.
    pub(super) fn verifier(&self, access: &Access, user: &str) -> Option<&Verifier> {
        let verifier = self.verifier.as_ref().filter(|_| user == USER)?;
        access.operator(&self.key).map(|_| verifier)
    }
}
