//! Who a client is: passwords on both doors. Step 1 of a transaction's life, before its first
//! statement.

use std::sync::Arc;

/// Whose session or request it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub user: Arc<str>,
    /// Whether it may do everything.
    pub administrator: bool,
}
