//! The system-call filters of a build, as programs for the kernel's classic BPF machine. Pure.
//!
//! The static filter is made from the rules in `rules`: a list of what a build may not do. Everything else that is known
//! is allowed, and the kernel caches that for the calls whose arguments the filter does not look at.

use super::operations::Supervision;
use super::rules::{FIRST_UNKNOWN, RULES, Rule, When};
use super::spec::{Clock, Order};

/// One BPF instruction, in the layout of the kernel's `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    operand: u32,
}

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const REFUSE: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;

const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// Offset of the low half of an argument; both architectures are little-endian.
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

const fn instruction(code: u16, jump_true: u8, jump_false: u8, operand: u32) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}

/// A program under construction. Every rule leaves the number of the call in the accumulator.
struct Assembler(Vec<Instruction>);

impl Assembler {
    /// Starts with what every filter needs: calls of other architectures have other numbers, so they are refused.
    fn new() -> Self {
        Self(vec![
            instruction(LOAD, 0, 0, ARCHITECTURE),
            instruction(JUMP_EQUAL, 1, 0, NATIVE),
            instruction(RETURN, 0, 0, refuse(libc::ENOSYS)),
            instruction(LOAD, 0, 0, NUMBER),
            // The x32 calls share the architecture of x86_64 and have a high bit set; what is newer than the list of
            // rules may be anything. Neither exists for a build.
            instruction(JUMP_AT_LEAST, 0, 1, FIRST_UNKNOWN),
            instruction(RETURN, 0, 0, refuse(libc::ENOSYS)),
        ])
    }

    fn add(&mut self, rule: &Rule) {
        let result = refuse(rule.errno);
        for call in rule.calls {
            match rule.when {
                When::Always => self.always(*call, result),
                When::AnyBit(index, bits) => self.if_bits(*call, index, bits, result),
                When::BothBits(first, second) => self.if_both(*call, first, second, result),
                When::OneOf(index, values) => self.if_one_of(*call, index, values, result),
                When::NoneOf(index, values) => self.unless_one_of(*call, index, values, result),
            }
        }
    }

    fn always(&mut self, number: libc::c_long, result: u32) {
        self.0.push(instruction(JUMP_EQUAL, 0, 1, nr(number)));
        self.0.push(instruction(RETURN, 0, 0, result));
    }

    /// `result` if an argument has any of these bits.
    fn if_bits(&mut self, number: libc::c_long, index: u32, bits: u32, result: u32) {
        self.0.push(instruction(JUMP_EQUAL, 0, 4, nr(number)));
        self.0.push(instruction(LOAD, 0, 0, argument(index)));
        self.0.push(instruction(JUMP_ANY_BIT, 0, 1, bits));
        self.0.push(instruction(RETURN, 0, 0, result));
        self.0.push(instruction(LOAD, 0, 0, NUMBER));
    }

    /// `result` if two arguments each have any of their bits.
    fn if_both(&mut self, number: libc::c_long, first: (u32, u32), second: (u32, u32), result: u32) {
        self.0.push(instruction(JUMP_EQUAL, 0, 6, nr(number)));
        self.0.push(instruction(LOAD, 0, 0, argument(first.0)));
        self.0.push(instruction(JUMP_ANY_BIT, 0, 3, first.1));
        self.0.push(instruction(LOAD, 0, 0, argument(second.0)));
        self.0.push(instruction(JUMP_ANY_BIT, 0, 1, second.1));
        self.0.push(instruction(RETURN, 0, 0, result));
        self.0.push(instruction(LOAD, 0, 0, NUMBER));
    }

    /// `result` if an argument is one of these values.
    fn if_one_of(&mut self, number: libc::c_long, index: u32, values: &[u32], result: u32) {
        let count = small(values.len());
        self.0.push(instruction(JUMP_EQUAL, 0, count + 3, nr(number)));
        self.0.push(instruction(LOAD, 0, 0, argument(index)));
        for (done, value) in (0..count).zip(values) {
            let last = done + 1 == count;
            self.0.push(instruction(JUMP_EQUAL, count - done - 1, u8::from(last), *value));
        }
        self.0.push(instruction(RETURN, 0, 0, result));
        self.0.push(instruction(LOAD, 0, 0, NUMBER));
    }

    /// `result` unless an argument is one of these values.
    fn unless_one_of(&mut self, number: libc::c_long, index: u32, values: &[u32], result: u32) {
        let count = small(values.len());
        self.0.push(instruction(JUMP_EQUAL, 0, count + 3, nr(number)));
        self.0.push(instruction(LOAD, 0, 0, argument(index)));
        for (done, value) in (0..count).zip(values) {
            self.0.push(instruction(JUMP_EQUAL, count - done, 0, *value));
        }
        self.0.push(instruction(RETURN, 0, 0, result));
        self.0.push(instruction(LOAD, 0, 0, NUMBER));
    }

    fn finish(mut self) -> Vec<Instruction> {
        self.0.push(instruction(RETURN, 0, 0, ALLOW));
        self.0
    }
}

fn small(count: usize) -> u8 {
    u8::try_from(count).expect("lists in this module are short")
}

fn nr(number: libc::c_long) -> u32 {
    u32::try_from(number).expect("system call numbers are small and positive")
}

fn refuse(errno: i32) -> u32 {
    REFUSE | errno.unsigned_abs()
}

/// What no build may do, and what init answers in the kernel's place: one filter, because each one that is installed costs
/// as much as ten mounts.
pub(super) fn filter(wanted: &Supervision) -> Vec<Instruction> {
    let mut program = Assembler::new();
    forbid(&mut program);
    ask(&mut program, wanted);
    program.finish()
}

fn forbid(program: &mut Assembler) {
    // Calls whose arguments matter are looked at each time, some of them often: they come first.
    let (sometimes, always): (Vec<&Rule>, Vec<&Rule>) = RULES.iter().partition(|rule| rule.when != When::Always);
    sometimes.into_iter().chain(always).for_each(|rule| program.add(rule));
}

/// What init answers: what the machine is; the wall clock, random numbers and so on if chosen, and then also the start of a
/// program.
fn ask(program: &mut Assembler, wanted: &Supervision) {
    program.always(libc::SYS_uname, NOTIFY);
    program.always(libc::SYS_sysinfo, NOTIFY);
    if wanted.has_files() {
        // Often asked, so they come early.
        program.always(libc::SYS_newfstatat, NOTIFY);
        program.always(libc::SYS_fstat, NOTIFY);
        program.always(libc::SYS_statx, NOTIFY);
        #[cfg(target_arch = "x86_64")]
        program.always(libc::SYS_stat, NOTIFY);
        #[cfg(target_arch = "x86_64")]
        program.always(libc::SYS_lstat, NOTIFY);
    }
    if wanted.has_clock() {
        ask_for_time(program, matches!(wanted.clock, Clock::Steady(_)));
    }
    if wanted.random.is_some() {
        program.always(libc::SYS_getrandom, NOTIFY);
    }
    if wanted.order != Order::AsIs {
        program.always(libc::SYS_getdents64, NOTIFY);
    }
    if wanted.processors.is_some() {
        program.always(libc::SYS_sched_getaffinity, NOTIFY);
    }
    if wanted.delays.is_some() {
        // Every new thread and process of the GNU C library calls it once.
        program.always(libc::SYS_set_robust_list, NOTIFY);
    }
    // Every program sets its thread pointer once, early: glibc, musl and Go alike. ARCH_SET_FS is 0x1002.
    #[cfg(target_arch = "x86_64")]
    if wanted.needs_patches() || wanted.delays.is_some() {
        program.if_one_of(libc::SYS_arch_prctl, 0, &[0x1002], NOTIFY);
    }
}

fn ask_for_time(program: &mut Assembler, sleeps_count: bool) {
    let wall = [libc::CLOCK_REALTIME, libc::CLOCK_REALTIME_COARSE, libc::CLOCK_TAI].map(i32::unsigned_abs);
    program.if_one_of(libc::SYS_clock_gettime, 0, &wall, NOTIFY);
    program.always(libc::SYS_gettimeofday, NOTIFY);
    #[cfg(target_arch = "x86_64")]
    program.always(libc::SYS_time, NOTIFY);
    // Waits until a wall-clock time: they must end, though the kernel's wall clock is another one.
    program.if_bits(libc::SYS_futex, 1, libc::FUTEX_CLOCK_REALTIME.unsigned_abs(), NOTIFY);
    if sleeps_count {
        program.always(libc::SYS_nanosleep, NOTIFY);
        program.always(libc::SYS_clock_nanosleep, NOTIFY);
    } else {
        program.if_one_of(libc::SYS_clock_nanosleep, 0, &wall, NOTIFY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program answers, computed by a machine written from the kernel's description of it.
    fn run(program: &[Instruction], architecture: u32, number: libc::c_long, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(nr(number).to_le_bytes());
        data.extend(architecture.to_le_bytes());
        data.extend([0; 8]);
        arguments.iter().for_each(|argument| data.extend(argument.to_le_bytes()));
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let Instruction { code, jump_true, jump_false, operand } = program[at];
            at += 1;
            let taken = match code {
                LOAD => {
                    let start = operand as usize;
                    accumulator = u32::from_le_bytes(data[start..start + 4].try_into().unwrap());
                    continue;
                }
                RETURN => return operand,
                JUMP_EQUAL => accumulator == operand,
                JUMP_AT_LEAST => accumulator >= operand,
                JUMP_ANY_BIT => accumulator & operand != 0,
                other => panic!("unknown instruction {other:#x}"),
            };
            at += usize::from(if taken { jump_true } else { jump_false });
        }
    }

    fn check(number: libc::c_long, arguments: [u64; 6], expected: Option<i32>) {
        let result = run(&filter(&Supervision::default()), NATIVE, number, arguments);
        assert_eq!(result, expected.map_or(ALLOW, refuse), "call {number} with {arguments:x?}");
    }

    #[test]
    fn ordinary_calls_pass() {
        for number in [libc::SYS_read, libc::SYS_execve, libc::SYS_futex, libc::SYS_getrandom, libc::SYS_statx] {
            check(number, [0; 6], None);
        }
        check(libc::SYS_clone, [0x3d_0f00, 0, 0, 0, 0, 0], None);
        check(libc::SYS_openat, [0, 0, 0o101, 0o644, 0, 0], None);
        // Without O_CREAT the mode is a register with any content.
        check(libc::SYS_openat, [0, 0, u64::from(libc::O_DIRECTORY.unsigned_abs()), 0o4755, 0, 0], None);
        check(libc::SYS_fchmodat, [0, 0, 0o1755, 0, 0, 0], None);
        check(libc::SYS_ioctl, [0, 0x5413, 0, 0, 0, 0], None);
    }

    #[test]
    fn every_rule_holds() {
        for rule in RULES {
            assert!(rule.why.ends_with('.'), "{}", rule.why);
            for call in rule.calls {
                let mut arguments = [0; 6];
                match rule.when {
                    When::Always => {}
                    When::AnyBit(index, bits) => arguments[index as usize] = u64::from(1_u32 << bits.trailing_zeros()),
                    When::BothBits(first, second) => {
                        for (index, bits) in [first, second] {
                            arguments[index as usize] = u64::from(1_u32 << bits.trailing_zeros());
                        }
                    }
                    When::OneOf(index, values) => arguments[index as usize] = u64::from(values[values.len() - 1]),
                    When::NoneOf(index, _) => arguments[index as usize] = 0x7fff_fffe,
                }
                check(*call, arguments, Some(rule.errno));
            }
        }
    }

    #[test]
    fn no_namespaces_can_be_made() {
        for flag in [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
            check(libc::SYS_clone, [flag | 17, 0, 0, 0, 0, 0], Some(libc::EPERM));
            check(libc::SYS_unshare, [flag, 0, 0, 0, 0, 0], Some(libc::EPERM));
        }
        check(libc::SYS_unshare, [0x80, 0, 0, 0, 0, 0], Some(libc::EPERM));
        // Files and working directories of threads may part.
        check(libc::SYS_unshare, [0x600, 0, 0, 0, 0, 0], None);
    }

    #[test]
    fn addresses_may_be_fixed_but_machines_not_pretended() {
        for allowed in [0, 0x4_0000, 0xffff_ffff] {
            check(libc::SYS_personality, [allowed, 0, 0, 0, 0, 0], None);
        }
        for refused in [8, 0x2_0000, 0x40_0000] {
            check(libc::SYS_personality, [refused, 0, 0, 0, 0, 0], Some(libc::EPERM));
        }
    }

    #[test]
    fn devices_and_whiteouts_cannot_be_made() {
        for (kind, expected) in [
            (libc::S_IFCHR, Some(libc::EPERM)),
            (libc::S_IFBLK, Some(libc::EPERM)),
            (libc::S_IFIFO, None),
            (libc::S_IFSOCK, None),
            (libc::S_IFREG, None),
        ] {
            check(libc::SYS_mknodat, [0, 0, u64::from(kind | 0o644), 0, 0, 0], expected);
        }
        check(libc::SYS_renameat2, [0, 0, 0, 0, 4, 0], Some(libc::EINVAL));
        check(libc::SYS_renameat2, [0, 0, 0, 0, 2, 0], None);
    }

    #[test]
    fn only_own_resource_limits_can_be_named() {
        check(libc::SYS_prlimit64, [0, 7, 0, 0, 0, 0], None);
        check(libc::SYS_prlimit64, [1, 7, 0, 0, 0, 0], Some(libc::EPERM));
    }

    #[test]
    fn set_id_bits_cannot_be_made() {
        for mode in [0o4755, 0o2755, 0o6000] {
            check(libc::SYS_fchmod, [0, mode, 0, 0, 0, 0], Some(libc::EPERM));
            check(libc::SYS_fchmodat, [0, 0, mode, 0, 0, 0], Some(libc::EPERM));
            check(452, [0, 0, mode, 0, 0, 0], Some(libc::EPERM));
            check(libc::SYS_mknodat, [0, 0, mode, 0, 0, 0], Some(libc::EPERM));
            for flags in [libc::O_CREAT, libc::O_TMPFILE] {
                let flags = u64::from(flags.unsigned_abs());
                check(libc::SYS_openat, [0, 0, flags, mode, 0, 0], Some(libc::EPERM));
            }
        }
    }

    #[test]
    fn only_four_socket_families_exist() {
        for family in 0..64_u64 {
            let expected = (![1, 2, 10, 16].contains(&family)).then_some(libc::EAFNOSUPPORT);
            check(libc::SYS_socket, [family, 1, 0, 0, 0, 0], expected);
            check(libc::SYS_socketpair, [family, 1, 0, 0, 0, 0], expected);
        }
    }

    #[test]
    fn foreign_architectures_are_refused() {
        let program = filter(&Supervision::default());
        assert_eq!(run(&program, 0x4000_0003, libc::SYS_read, [0; 6]), refuse(libc::ENOSYS));
        for number in [0x4000_0000, 512, libc::c_long::from(FIRST_UNKNOWN)] {
            assert_eq!(run(&program, NATIVE, number, [0; 6]), refuse(libc::ENOSYS));
        }
    }

    #[test]
    fn only_the_wall_clock_is_answered() {
        let wanted = Supervision { clock: Clock::StartAt(1), ..Supervision::default() };
        let program = filter(&wanted);
        for (clock, expected) in [(0, NOTIFY), (5, NOTIFY), (11, NOTIFY), (1, ALLOW), (7, ALLOW)] {
            assert_eq!(run(&program, NATIVE, libc::SYS_clock_gettime, [clock, 0, 0, 0, 0, 0]), expected, "{clock}");
        }
        assert_eq!(run(&program, NATIVE, libc::SYS_getrandom, [0; 6]), ALLOW);
        assert_eq!(
            run(
                &filter(&Supervision { random: Some(1), ..Supervision::default() }),
                NATIVE,
                libc::SYS_getrandom,
                [0; 6]
            ),
            NOTIFY
        );
        assert_eq!(run(&program, NATIVE, libc::SYS_futex, [0, 0x109, 0, 1, 0, 0]), NOTIFY);
        assert_eq!(run(&program, NATIVE, libc::SYS_futex, [0, 0x80, 0, 1, 0, 0]), ALLOW);
    }
}
