//! One file per command.

pub mod backup;
pub mod bench;
pub mod certificate;
pub mod dev;
pub mod follow;
pub mod init;
pub mod join;
pub mod keys;
pub mod leaders;
pub mod sql;
pub mod start;
pub mod status;
pub mod stop;
pub mod tx;
