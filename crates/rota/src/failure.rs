//! How a command fails: one line that says what is wrong and what to do.

use std::fmt;

/// Why a command could not do its work. Printed as `rota: …` on standard error; the exit code is
/// then 1.
#[derive(Clone, Debug)]
pub struct Failure {
    text: String,
    kind: Kind,
}

/// What asking again does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The server wants a user and password, and others than it was given.
    NoLogin,
    /// The server's certificate is not one to believe.
    NotTrusted,
    /// Anything else.
    Other,
}

impl Failure {
    /// What is wrong and what to do.
    pub fn new(message: impl Into<String>) -> Self {
        Self::of(Kind::Other, message)
    }

    /// The same, where the kind is known.
    pub fn of(kind: Kind, message: impl Into<String>) -> Self {
        Self { text: message.into(), kind }
    }

    /// Of which kind it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Nothing to say: whoever would read it is gone, or everything has been said.
    pub fn quiet() -> Self {
        Self::new("")
    }

    /// Whether there is nothing to say.
    pub fn is_quiet(&self) -> bool {
        self.text.is_empty()
    }

    /// For `map_err`: what was being done, and how that went wrong.
    pub fn doing<E: fmt::Display>(doing: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self::new(format!("{doing}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a database error says, with its SQLSTATE when the server sent one.
pub fn database(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => {
            let mut text =
                format!("{} {}: {}", said.severity(), said.code().code(), said.message());
            if let Some(detail) = said.detail() {
                text.push_str(&format!("\n  {detail}"));
            }
            if let Some(hint) = said.hint() {
                text.push_str(&format!("\n  hint: {hint}"));
            }
            text
        }
        None => chain(error),
    }
}

/// An error with its causes: tokio-postgres says only "error connecting to server" by itself.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
