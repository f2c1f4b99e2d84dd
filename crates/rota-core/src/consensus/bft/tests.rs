//! Protocol tests of one member.
