//! Passwords that were right lately: HTTP sends them with every request, and hashing one as slowly
//! as it must be takes half a millisecond. Step 1 of a transaction's life.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use rota_store::access::Verifier;

use super::scram;

/// How many are remembered: 64 bytes each. The oldest is forgotten first, and then hashed again.
const MOST: usize = 10_000;

/// What stands for a user with a password.
pub(super) type Mark = [u8; 32];

/// Right passwords, as marks under a key that only this process has. A mark is made of the
/// verifier too: when a user gets another password, marks of the old one are those of nobody.
pub(super) struct Known {
    key: Option<[u8; 32]>,
    marks: Mutex<Marks>,
}

#[derive(Default)]
struct Marks {
    all: HashSet<Mark>,
    oldest_first: VecDeque<Mark>,
}

impl Known {
    pub(super) fn new() -> Self {
        let mut key = [0; 32];
        // Without randomness nothing is remembered, and no password can be checked.
        let key = getrandom::fill(&mut key).is_ok().then_some(key);
        Self { key, marks: Mutex::default() }
    }

    pub(super) fn contains(&self, user: &str, password: &str, verifier: &Verifier) -> bool {
        let Some(mark) = self.mark(user, password, verifier) else { return false };
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).all.contains(&mark)
    }

    pub(super) fn insert(&self, user: &str, password: &str, verifier: &Verifier) {
        let Some(mark) = self.mark(user, password, verifier) else { return };
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if !marks.all.insert(mark) {
            return;
        }
        marks.oldest_first.push_back(mark);
        if marks.oldest_first.len() > MOST
            && let Some(oldest) = marks.oldest_first.pop_front()
        {
            marks.all.remove(&oldest);
        }
    }

    /// What stands for a user with a password, unless this machine has no randomness.
    pub(super) fn mark(&self, user: &str, password: &str, verifier: &Verifier) -> Option<Mark> {
        let length = |text: &str| u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes();
        let parts: [&[u8]; 6] = [
            &length(user),
            user.as_bytes(),
            &length(password),
            password.as_bytes(),
            &verifier.stored_key,
            &verifier.salt,
        ];
        Some(scram::hmac(&self.key?, &parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_password_makes_the_old_one_unknown() {
        let known = Known::new();
        let old = scram::derive("old", b"saltsalt", 1);
        known.insert("ada", "old", &old);
        assert!(known.contains("ada", "old", &old));
        assert!(!known.contains("ada", "old", &scram::derive("new", b"saltsalt", 1)));
        assert!(!known.contains("adao", "ld", &old) && !known.contains("ada", "new", &old));
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let known = Known::new();
        let verifier = scram::derive("x", b"saltsalt", 1);
        for number in 0..=MOST {
            known.insert("ada", &number.to_string(), &verifier);
        }
        assert!(!known.contains("ada", "0", &verifier) && known.contains("ada", "1", &verifier));
        assert_eq!(known.marks.lock().unwrap().all.len(), MOST);
    }
}
