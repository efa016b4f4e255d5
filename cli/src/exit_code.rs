//! The exit codes that scripts rely on. Nothing else in the crate spells a number.

/// Done.
pub const DONE: u8 = 0;

/// It failed, and none of the others says why.
pub const FAILED: u8 = 1;

/// The command line or a file that it names is wrong; nothing was signed or sent.
pub const USAGE: u8 = 2;

/// What the server sent contradicts what was signed, or what this client remembers.
pub const TAMPERING: u8 = 3;

/// Refused: policy, rejected, expired, not allowed.
pub const REFUSED: u8 = 4;

/// The server cannot be reached, or stays too busy to answer.
pub const UNREACHABLE: u8 = 5;

/// `verify` only: everything holds, and something of it is under suspicion.
pub const SUSPECT: u8 = 6;

/// `selfcheck` only: nothing failed, and something could not be tried.
pub const LEFT_OUT: u8 = 7;

/// `replay` only: ^C ended it, as shells say it.
pub const INTERRUPTED: u8 = 130;

/// `run` only: the command was stopped because its time was over, as `timeout` says it.
pub const RUN_TIMED_OUT: u8 = 124;

/// `run` only: everything of ours, so that it is not taken for the command's own code.
pub const RUN_OURS: u8 = 125;

/// `run` only: there is a program that cannot be executed, as shells say it.
pub const RUN_NOT_EXECUTABLE: u8 = 126;

/// `run` only: there is no such program, as shells say it.
pub const RUN_NOT_FOUND: u8 = 127;

/// `run` only: added to the number of the signal that ended the command, as shells say it.
pub const RUN_SIGNAL_BASE: u8 = 128;
