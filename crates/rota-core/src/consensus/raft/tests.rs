//! Protocol tests of a few members in memory: messages pass, are lost or held up; disks keep what
//! was persisted; time is passed in. What they are at comes out as text.

mod behaviour;
mod catching_up;
mod cluster;
mod elections;
mod hostile;
