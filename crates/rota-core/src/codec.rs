//! One encoding, borsh, and one rule: decoding and then encoding must give the same bytes, or the
//! bytes are refused. Otherwise two servers could hold the same value under two hashes.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::error::Invalid;

/// The canonical bytes of a value of ours.
pub fn encode<T: BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to memory does not fail")
}

/// The value of canonical bytes, at most `limit` of them. borsh allocates as it reads, never more
/// than what is there.
pub fn decode<T: BorshSerialize + BorshDeserialize>(
    bytes: &[u8],
    limit: usize,
) -> Result<T, Invalid> {
    if bytes.len() > limit {
        return Err(Invalid::Encoding(format!("{} bytes, {limit} allowed", bytes.len())));
    }
    let value: T =
        borsh::from_slice(bytes).map_err(|error| Invalid::Encoding(error.to_string()))?;
    if encode(&value) != bytes {
        return Err(Invalid::Encoding("a second encoding of the same value".into()));
    }
    Ok(value)
}
