//! The cluster that this crate's tests are about: four equal members, with keys that are no secret.

use crate::crypto::SecretKey;
use crate::genesis::{Administrator, FORMAT, Genesis, Method, Parameters};
use crate::members::Member;
use crate::types::Digest;

/// The key of a member, numbered from 0.
pub(crate) fn key(member: u16) -> SecretKey {
    SecretKey::from_bytes([u8::try_from(member).expect("one of four") + 1; 32])
}

/// Their genesis, with the parameters as they are by default.
pub(crate) fn genesis() -> Genesis {
    Genesis {
        format: FORMAT,
        name: "test".into(),
        time_ms: 1_000_000,
        method: Method::Poa,
        pow: None,
        seed: Digest::default(),
        trusted_servers: true,
        administrators: vec![Administrator::open("rota")],
        sqlite: String::new(),
        parameters: Parameters::default(),
        members: (0..4).map(|i| Member { key: key(i).public(), weight: 1 }).collect(),
    }
}
