//! The executor room: it runs one verified plan as real processes and reports by messages.
//!
//! It owns processes, descriptors and signals. It must not know the ledger, the protocol's
//! statements, HTTP or the journal: whoever calls [`run`] has already decided that the plan may
//! run and has written down that it starts.
//!
//! # Shape
//!
//! ```text
//! agent ──fork──▶ supervisor ──fork──▶ leader (sandbox steps, then exec) ──▶ whatever it starts
//!   ▲  ▲               │ subreaper of this one run; waits; kills
//!   │  └── reports ────┘ one socket: reports up, "kill" down, end of file = the agent is gone
//!   └──── stdout, stderr: one pipe each, read side by side
//! ```
//!
//! Each run has a **supervisor** of its own, a forked process that never execs. It is the
//! *subreaper* of the run, so every process that loses its parent, by a double fork or with a
//! session of its own, falls back to this supervisor and to no other. From that follow
//!
//! * **attribution**: what is below a supervisor belongs to its run, however many runs there are;
//! * **killing without a race**: only the supervisor reaps its children, so a child's process id
//!   cannot be reused under it; killing children makes their children its own, round by round;
//! * **proof**: when the kernel answers `ECHILD` to the supervisor, no process of the run is
//!   left. [`Finished::tree_gone`] says nothing else than that;
//! * **no orphans of a dead agent**: the agent's end of the socket closes however the agent dies,
//!   and the supervisor then kills the tree. The death signal of a parent, which follows a
//!   *thread*, is used only on the leader, whose parent is the single-threaded supervisor.
//!
//! The supervisor lives after a `fork` in a process with several threads, so it may neither
//! allocate nor lock nor panic: `supervisor.rs` and `sandbox.rs` only make system calls.
//!
//! # Limits of this room
//!
//! A command that runs as the agent's own user can kill its supervisor, as it could the agent. Its
//! leader then dies by the death signal, and the run ends as [`RunError::SupervisorLost`], never
//! as a result. A run with an account of its own cannot: its supervisor stays the agent's.
//!
//! # Map
//!
//! `run` the plan, the messages, the story of one run · `program` argv\[0\] found, opened, hashed ·
//! `confinement` what a run may not do, and whether this host can hold it to that · `fence` Landlock
//! rules · `seccomp` the system call filter · `cgroup` the run's cgroup · `sealed` files in memory ·
//! `secrets` values that a run is handed, and the folder in memory that has some of them ·
//! `spawn` descriptors and the fork · `supervisor` the process above the tree · `sandbox` the
//! leader's ordered steps · `output` pipes into chunks · `mask` secrets out of them · `terminate`
//! signals to a whole tree · `reach` processes of a run outside its tree · `syscalls` the only
//! `unsafe`.

mod cgroup;
mod confinement;
mod fence;
mod mask;
mod output;
mod program;
mod reach;
mod run;
mod sandbox;
mod sealed;
mod seccomp;
mod secrets;
mod spawn;
mod supervisor;
mod syscalls;
mod terminate;

pub use cgroup::CgroupError;
pub use confinement::{
    Account, CgroupInForce, CgroupLimits, ConfineError, Confinement, DEFAULT_UMASK, Demand,
    InForce, Limits, MAX_GROUPS, Mechanism, Profile,
};
pub use fence::FenceError;
pub use mask::MASKED;
pub use output::{CHUNK_BYTES, CHUNK_DELAY, StreamTotals};
pub use program::{Program, ResolveError};
pub use reach::{MARK, Mark, Reach};
pub use run::{Finished, Outcome, Plan, RunError, RunEvent, Step, Stream, run};
pub use secrets::{PlaceError, SECRETS_VARIABLE, Secret, Secrets, SecretsError, SecretsPlace};
