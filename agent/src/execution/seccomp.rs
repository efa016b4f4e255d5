//! The deny list of system calls, as a filter program for the kernel.
//!
//! It owns which calls no command of a ledger needs: those that change the kernel, the machine's
//! mounts, or reach into other processes. They fail with EPERM, as they do for an ordinary user;
//! everything else passes. It must not install the filter; the leader does, last of all.
//!
//! The program is written out here because the ready-made compilers kill a process of the
//! machine's other architecture (a 32-bit tool on a 64-bit host); this one filters it as well.

use libc::{c_long, sock_filter};

/// `seccomp_data.nr`, `.arch` and the low half of `.args[0]` (both architectures are little-endian).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// `PTRACE_ATTACH` and `PTRACE_SEIZE`: what a debugger does to a process that did not ask for it.
const PTRACE_OF_OTHERS: [u32; 2] = [16, 0x4206];

/// Numbers at and above this mark are x86_64's x32 calls, which no distribution enables.
#[cfg(target_arch = "x86_64")]
const FIRST_X32: u32 = 0x4000_0000;

/// Calls that have the same number on every architecture, as all since Linux 5.1: `open_tree`,
/// `move_mount`, `fsopen`, `fsconfig`, `fsmount`, `fspick`, `pidfd_getfd`, `mount_setattr` and
/// `open_tree_attr`.
const COMMON: [u32; 9] = [428, 429, 430, 431, 432, 433, 438, 442, 467];

/// Calls of this architecture, by the library's names.
const NATIVE: [c_long; 18] = [
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
];

#[cfg(target_arch = "x86_64")]
mod machine {
    /// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_I386`.
    pub(super) const NATIVE_ARCH: u32 = 0xc000_003e;
    pub(super) const OTHER_ARCH: u32 = 0x4000_0003;
    pub(super) const OTHER_PTRACE: u32 = 26;
    /// The same calls on i386, and its older `umount`.
    pub(super) const OTHER: &[u32] = &[
        128, 350, 129, 283, 347, 348, 357, 336, 21, 22, 52, 217, 88, 87, 115, 286, 287, 288,
    ];
}

#[cfg(target_arch = "aarch64")]
mod machine {
    /// `AUDIT_ARCH_AARCH64` and `AUDIT_ARCH_ARM`.
    pub(super) const NATIVE_ARCH: u32 = 0xc000_00b7;
    pub(super) const OTHER_ARCH: u32 = 0x4000_0028;
    pub(super) const OTHER_PTRACE: u32 = 26;
    /// The same calls on 32-bit ARM.
    pub(super) const OTHER: &[u32] = &[
        128, 379, 129, 347, 401, 376, 377, 386, 364, 21, 52, 218, 88, 87, 115, 309, 310, 311,
    ];
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the deny list of system calls knows x86_64 and aarch64 only");

/// A filter program, ready to be installed.
pub(super) struct Filter(Vec<sock_filter>);

impl Filter {
    /// The deny list. Never longer than a few dozen steps.
    pub(super) fn deny_list() -> Self {
        let native = NATIVE.iter().filter_map(|n| u32::try_from(*n).ok());
        let native: Vec<u32> = native.chain(COMMON).collect();
        let other: Vec<u32> = machine::OTHER.iter().copied().chain(COMMON).collect();
        let ptrace = u32::try_from(libc::SYS_ptrace).unwrap_or(u32::MAX);
        let native = section(&native, ptrace);
        let mut program = vec![load(ARCH)];
        // Over the next step, into this machine's own section; else over it, to the other's.
        program.push(jump_if_equal(machine::NATIVE_ARCH, 1, 0));
        program.push(jump_over(native.len()));
        program.extend(native);
        program.push(jump_if_equal(machine::OTHER_ARCH, 1, 0));
        program.push(deny());
        program.extend(section(&other, machine::OTHER_PTRACE));
        Self(program)
    }

    pub(super) fn steps(&self) -> &[sock_filter] {
        &self.0
    }
}

/// Decides every call of one architecture: its last steps allow or deny.
fn section(denied: &[u32], ptrace: u32) -> Vec<sock_filter> {
    let mut steps = vec![load(NUMBER)];
    #[cfg(target_arch = "x86_64")]
    steps.extend([jump_if_at_least(FIRST_X32, 0, 1), deny()]);
    for number in denied {
        steps.extend([jump_if_equal(*number, 0, 1), deny()]);
    }
    let [attach, seize] = PTRACE_OF_OTHERS;
    steps.extend([
        jump_if_equal(ptrace, 1, 0),
        allow(),
        load(FIRST_ARGUMENT),
        jump_if_equal(attach, 1, 0),
        jump_if_equal(seize, 0, 1),
        deny(),
        allow(),
    ]);
    steps
}

fn step(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    // All codes below are combinations of eight bits.
    let code = u16::try_from(code).unwrap_or_default();
    sock_filter { code, jt, jf, k }
}

fn load(offset: u32) -> sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn jump_if_equal(value: u32, then: u8, otherwise: u8) -> sock_filter {
    let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    step(code, value, then, otherwise)
}

#[cfg(target_arch = "x86_64")]
fn jump_if_at_least(value: u32, then: u8, otherwise: u8) -> sock_filter {
    let code = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    step(code, value, then, otherwise)
}

fn jump_over(steps: usize) -> sock_filter {
    let steps = u32::try_from(steps).unwrap_or(u32::MAX);
    step(libc::BPF_JMP | libc::BPF_JA, steps, 0, 0)
}

fn allow() -> sock_filter {
    step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0)
}

fn deny() -> sock_filter {
    let eperm = libc::EPERM.unsigned_abs() & libc::SECCOMP_RET_DATA;
    let answer = libc::SECCOMP_RET_ERRNO | eperm;
    step(libc::BPF_RET | libc::BPF_K, answer, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's reading of these few instructions, to ask about calls that cannot be made here.
    fn verdict(arch: u32, number: u32, argument: u32) -> u32 {
        let filter = Filter::deny_list();
        let (mut at, mut a) = (0_usize, 0_u32);
        loop {
            let s = &filter.0[at];
            at += 1;
            let class = u32::from(s.code) & 0x07;
            let jump = |yes: bool| usize::from(if yes { s.jt } else { s.jf });
            match (class, u32::from(s.code) & 0xf0) {
                (libc::BPF_LD, _) => {
                    a = match s.k {
                        ARCH => arch,
                        NUMBER => number,
                        _ => argument,
                    }
                }
                (libc::BPF_JMP, libc::BPF_JEQ) => at += jump(a == s.k),
                (libc::BPF_JMP, libc::BPF_JGE) => at += jump(a >= s.k),
                (libc::BPF_JMP, _) => at += s.k as usize,
                _ => return s.k,
            }
        }
    }

    const DENIED: u32 = libc::SECCOMP_RET_ERRNO | 1;
    const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;

    #[test]
    fn every_listed_call_is_denied_on_both_architectures() {
        for number in NATIVE
            .map(|n| u32::try_from(n).unwrap())
            .iter()
            .chain(&COMMON)
        {
            assert_eq!(
                verdict(machine::NATIVE_ARCH, *number, 0),
                DENIED,
                "{number}"
            );
        }
        for number in machine::OTHER.iter().chain(&COMMON) {
            assert_eq!(verdict(machine::OTHER_ARCH, *number, 0), DENIED, "{number}");
        }
    }

    #[test]
    fn all_other_calls_are_allowed() {
        let listed = |n: &u32| NATIVE.contains(&c_long::from(*n)) || COMMON.contains(n);
        for number in (0..600).filter(|n| !listed(n)) {
            assert_eq!(
                verdict(machine::NATIVE_ARCH, number, 0),
                ALLOWED,
                "{number}"
            );
        }
        let listed = |n: &u32| machine::OTHER.contains(n) || COMMON.contains(n);
        for number in (0..600).filter(|n| !listed(n)) {
            assert_eq!(verdict(machine::OTHER_ARCH, number, 0), ALLOWED, "{number}");
        }
    }

    #[test]
    fn only_the_tracing_of_others_is_denied() {
        let ptrace = u32::try_from(libc::SYS_ptrace).unwrap();
        for (arch, number) in [
            (machine::NATIVE_ARCH, ptrace),
            (machine::OTHER_ARCH, machine::OTHER_PTRACE),
        ] {
            assert_eq!(verdict(arch, number, 0), ALLOWED, "PTRACE_TRACEME");
            assert_eq!(verdict(arch, number, 16), DENIED);
            assert_eq!(verdict(arch, number, 0x4206), DENIED);
        }
    }

    #[test]
    fn an_unknown_architecture_may_do_nothing() {
        assert_eq!(verdict(0x1234, 1, 0), DENIED);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_x32_numbers_lead_nowhere() {
        assert_eq!(verdict(machine::NATIVE_ARCH, FIRST_X32 | 165, 0), DENIED);
    }
}
