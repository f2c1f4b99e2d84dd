//! From SQLite's result codes to who is to blame: the client (a [`Refusal`] with an SQLSTATE) or this machine
//! (a [`Fault`]).
