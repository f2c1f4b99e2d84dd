//! stub
pub mod bind;
