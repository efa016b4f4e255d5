//! The process above one run: it starts the leader, waits for all, kills on demand.
//!
//! It owns the run's tree from first to last: it is the subreaper, the only one that reaps, and
//! the one that proves that nothing is left. It lives after `fork` in a process with several
//! threads, so nothing here may allocate, lock or panic, and it decides no policy: when to ask,
//! when to insist and what the outcome means is the agent's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{DumpableBehavior, Pid, Signal};

use super::confinement::Prepared;
use super::sandbox::{self, Kept, Step};
use super::syscalls::{self, CStringArray, End, FIRST_FREE, Slot, Usage, Waited};

/// Length of each report: a fixed size needs no framing, and a Unix socket passes it whole.
pub(super) const REPORT_BYTES: usize = 24;

/// The agent's one order: kill the whole tree now.
pub(super) const KILL_ORDER: u8 = b'K';

/// Pause between two killing rounds: orphans need a moment to arrive; an end wakes us earlier.
const ROUND_PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};

/// Bytes read of the list of children in one round, some 500 of them; later rounds see the rest.
const CHILDREN_BYTES: usize = 4096;

/// Largest error number: what a system call returns as an error is -1 to -4095.
const LARGEST_ERROR: i32 = 4095;

/// Exit code of a leader that never became its program; nobody but the supervisor sees it.
const NOT_STARTED: i32 = 127;

/// All that a supervisor needs, made before the fork. Sources lie above all slots.
pub(super) struct Job<'a> {
    pub(super) sources: Vec<(Slot, BorrowedFd<'a>)>,
    pub(super) argv: CStringArray,
    pub(super) env: CStringArray,
    pub(super) kept: Kept,
    pub(super) prepared: &'a Prepared,
}

/// What a supervisor, or the leader before it is the program, tells the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// The program does not run: this step failed. The other reports still follow.
    NotStarted { step: Step, error: Errno },
    /// The leader ended and is reaped.
    LeaderEnded { end: End, usage: Usage },
    /// No process of the run is left. The last report.
    TreeGone { usage: Usage },
}

impl Report {
    /// Tag, step, number, CPU time and size, in the byte order of this machine.
    pub(super) fn encode(self) -> [u8; REPORT_BYTES] {
        let (tag, step, number, usage) = match self {
            Self::NotStarted { step, error } => {
                (b'N', step.number(), error.raw_os_error(), Usage::default())
            }
            Self::LeaderEnded {
                end: End::Exited(code),
                usage,
            } => (b'X', 0, code, usage),
            Self::LeaderEnded {
                end: End::Signalled(signal),
                usage,
            } => (b'S', 0, signal, usage),
            Self::TreeGone { usage } => (b'G', 0, 0, usage),
        };
        let mut bytes = [0; REPORT_BYTES];
        bytes[0] = tag;
        bytes[1] = step;
        bytes[4..8].copy_from_slice(&number.to_ne_bytes());
        bytes[8..16].copy_from_slice(&usage.cpu_us.to_ne_bytes());
        bytes[16..24].copy_from_slice(&usage.max_rss_bytes.to_ne_bytes());
        bytes
    }

    /// The report in these bytes; none when they are no report.
    pub(super) fn decode(bytes: &[u8; REPORT_BYTES]) -> Option<Self> {
        let [tag, step, _, _, n0, n1, n2, n3, rest @ ..] = *bytes;
        let number = i32::from_ne_bytes([n0, n1, n2, n3]);
        let (cpu, rss) = rest.split_first_chunk::<8>()?;
        let usage = Usage {
            cpu_us: u64::from_ne_bytes(*cpu),
            max_rss_bytes: u64::from_ne_bytes(*rss.first_chunk()?),
        };
        // A number that the kernel has for no error would be a panic in the agent.
        let errors = 1..=LARGEST_ERROR;
        match tag {
            b'N' => Some(Self::NotStarted {
                step: Step::from_number(step)?,
                error: errors
                    .contains(&number)
                    .then(|| Errno::from_raw_os_error(number))?,
            }),
            b'X' => Some(Self::LeaderEnded {
                end: End::Exited(number),
                usage,
            }),
            b'S' => Some(Self::LeaderEnded {
                end: End::Signalled(number),
                usage,
            }),
            b'G' => Some(Self::TreeGone { usage }),
            _ => None,
        }
    }
}

/// The whole life of a supervisor; the answer is its exit code, which nobody needs.
pub(super) fn supervise(job: &Job<'_>) -> i32 {
    match Supervisor::begin(job) {
        Ok(supervisor) => supervisor.watch(),
        Err(error) => {
            send(Report::NotStarted {
                step: Step::Supervise,
                error,
            });
            send(Report::LeaderEnded {
                end: End::Exited(NOT_STARTED),
                usage: Usage::default(),
            });
            send(Report::TreeGone {
                usage: Usage::default(),
            });
        }
    }
    0
}

struct Supervisor {
    /// Until it is reaped: its number may be anybody's after that.
    leader: Option<Pid>,
    /// The kernel's list of our children; none on a kernel built without it.
    children: Option<OwnedFd>,
    child_ended: OwnedFd,
    killing: bool,
    agent_alive: bool,
}

impl Supervisor {
    fn begin(job: &Job<'_>) -> Result<Self, Errno> {
        // Slots that this run leaves empty must not show what the agent has there.
        syscalls::close_descriptors(Slot::Stdin as u32, FIRST_FREE.saturating_sub(1))?;
        for (slot, source) in &job.sources {
            slot.fill(*source)?;
        }
        // The agent's sockets, files and other runs' pipes: an open copy here would keep them alive.
        syscalls::close_descriptors(FIRST_FREE, u32::MAX)?;
        rustix::process::setsid()?;
        // This process is a copy of the agent's memory, so neither core dump nor debugger.
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        rustix::thread::set_name(c"countersign-run")?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let children = rustix::fs::open(c"/proc/thread-self/children", flags, Mode::empty()).ok();
        let child_ended = syscalls::child_ended_fd()?;
        let birth = Birth {
            job,
            supervisor: rustix::process::getpid(),
        };
        let leader = syscalls::fork_with(&birth, lead)?;
        // The pipes end for the reader when the command's own copies are closed, so none stays here.
        // The leader runs: from here nothing may fail, and closing existing descriptors cannot. Only
        // slots that were filled: our own two descriptors may have taken the numbers of empty ones.
        for (slot, _) in &job.sources {
            if *slot != Slot::Control {
                let _ = syscalls::close_descriptors(*slot as u32, *slot as u32);
            }
        }
        Ok(Self {
            leader: Some(leader),
            children,
            child_ended,
            killing: false,
            agent_alive: true,
        })
    }

    /// Until no process of the run is left: reap, obey, kill when told.
    fn watch(mut self) {
        while self.reap() {
            if self.killing {
                self.kill_round();
            }
            self.wait();
        }
        send(Report::TreeGone {
            usage: syscalls::children_usage(),
        });
    }

    /// Reaps all that ended; false when there is no child any more, which proves the tree gone.
    fn reap(&mut self) -> bool {
        loop {
            match syscalls::reap_any() {
                Ok(Waited::Ended { pid, end, usage }) if self.leader == Some(pid) => {
                    self.leader = None;
                    send(Report::LeaderEnded { end, usage });
                }
                Ok(Waited::Ended { .. }) => {}
                Ok(Waited::NoChildren) => return false,
                Ok(Waited::Nothing) | Err(_) => return true,
            }
        }
    }

    /// Sleeps until a child ends, the agent speaks or dies, or the next killing round is due.
    fn wait(&mut self) {
        let pause = self.killing.then_some(&ROUND_PAUSE);
        let ended = PollFd::from_borrowed_fd(self.child_ended.as_fd(), PollFlags::IN);
        let control = PollFd::from_borrowed_fd(Slot::Control.fd(), PollFlags::IN);
        let spoke = if self.agent_alive {
            let mut both = [ended, control];
            let _ = rustix::event::poll(&mut both, pause);
            !both[1].revents().is_empty()
        } else {
            let _ = rustix::event::poll(&mut [ended], pause);
            false
        };
        let mut drained = [0_u8; 256];
        let _ = rustix::io::read(&self.child_ended, &mut drained);
        if spoke {
            self.obey();
        }
    }

    /// An order and the end of the agent mean the same: kill everything.
    fn obey(&mut self) {
        let mut order = [0_u8; 1];
        match rustix::net::recv(Slot::Control.fd(), &mut order, RecvFlags::DONTWAIT) {
            Ok((_, 1)) => self.killing |= order == [KILL_ORDER],
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => {
                self.agent_alive = false;
                self.killing = true;
            }
        }
    }

    /// Kills all children and their groups. Grandchildren become children and die next round.
    fn kill_round(&self) {
        let mut buffer = [0_u8; CHILDREN_BYTES];
        let Some(Ok(length)) = self
            .children
            .as_ref()
            .map(|file| rustix::io::pread(file, &mut buffer, 0))
        else {
            // Without the list: the leader's own group, and the agent's walk through /proc.
            if let Some(leader) = self.leader {
                let _ = rustix::process::kill_process_group(leader, Signal::KILL);
            }
            return;
        };
        let own_group = rustix::process::getpgid(None);
        let listed = buffer.get(..length).unwrap_or_default();
        // Each number is followed by a space, so what follows the last one may be cut off.
        let whole = listed.iter().rposition(|b| *b == b' ').unwrap_or(0);
        for word in listed
            .get(..whole)
            .unwrap_or_default()
            .split(|b| *b == b' ')
        {
            let Some(child) = parse_pid(word) else {
                continue;
            };
            // Not reaped yet, so neither its number nor its group's can belong to anyone else. A
            // whole group dies at once, even one that forks as fast as we kill.
            let group = rustix::process::getpgid(Some(child));
            if group != own_group
                && let Ok(group) = group
            {
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
            let _ = rustix::process::kill_process(child, Signal::KILL);
        }
    }
}

/// What the leader knows when it is born.
struct Birth<'a> {
    job: &'a Job<'a>,
    supervisor: Pid,
}

/// The leader's life before it is the program.
fn lead(birth: &Birth<'_>) -> i32 {
    let job = birth.job;
    let (step, error) = match sandbox::confine(job.prepared, birth.supervisor, job.kept) {
        Ok(()) => (Step::Exec, syscalls::exec(&job.argv, &job.env)),
        Err(failed) => failed,
    };
    send(Report::NotStarted { step, error });
    NOT_STARTED
}

/// A report to a dead agent is lost, and nobody misses it.
fn send(report: Report) {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let _ = rustix::net::send(Slot::Control.fd(), &report.encode(), flags);
}

fn parse_pid(word: &[u8]) -> Option<Pid> {
    let number = word.iter().try_fold(0_i32, |number, byte| match byte {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(i32::from(byte - b'0')),
        _ => None,
    })?;
    Pid::from_raw(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_socket() {
        let usage = Usage {
            cpu_us: 1_234_567,
            max_rss_bytes: u64::MAX - 1,
        };
        for report in [
            Report::NotStarted {
                step: Step::Exec,
                error: Errno::NOENT,
            },
            Report::NotStarted {
                step: Step::Supervise,
                error: Errno::MFILE,
            },
            Report::LeaderEnded {
                end: End::Exited(255),
                usage,
            },
            Report::LeaderEnded {
                end: End::Signalled(9),
                usage,
            },
            Report::TreeGone { usage },
        ] {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
        assert_eq!(Report::decode(&[b'?'; REPORT_BYTES]), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_report_that_says_what_they_say_or_none(
            bytes: [u8; REPORT_BYTES],
            tag in proptest::sample::select(&b"NXSG"[..]),
            step in 0_u8..32,
            small in proptest::option::of(0..8000_i32),
        ) {
            let _whatever = Report::decode(&bytes);
            let mut bytes = bytes;
            (bytes[0], bytes[1]) = (tag, step);
            if let Some(number) = small {
                bytes[4..8].copy_from_slice(&number.to_ne_bytes());
            }
            if let Some(report) = Report::decode(&bytes) {
                let again = report.encode();
                proptest::prop_assert_eq!(again[0], tag);
                proptest::prop_assert_eq!(&again[8..], if tag == b'N' { &[0; 16] } else { &bytes[8..] });
                proptest::prop_assert!(tag == b'G' || again[4..8] == bytes[4..8]);
                proptest::prop_assert_eq!(Report::decode(&again), Some(report));
            }
        }

        #[test]
        fn a_process_id_is_its_digits(word: Vec<u8>, number in 1..=i32::MAX) {
            if let Some(pid) = parse_pid(&word) {
                let digits = pid.as_raw_nonzero().to_string();
                let zeros = word.iter().take_while(|byte| **byte == b'0').count();
                proptest::prop_assert_eq!(&word[zeros..], digits.as_bytes());
            }
            let read = parse_pid(number.to_string().as_bytes()).map(Pid::as_raw_nonzero);
            proptest::prop_assert_eq!(read.map(i32::from), Some(number));
        }
    }

    #[test]
    fn only_whole_positive_numbers_are_process_ids() {
        assert_eq!(
            parse_pid(b"417").map(Pid::as_raw_nonzero).map(i32::from),
            Some(417)
        );
        for bad in ["", "0", "-1", "1x", "99999999999"] {
            assert_eq!(parse_pid(bad.as_bytes()), None, "{bad}");
        }
    }
}
