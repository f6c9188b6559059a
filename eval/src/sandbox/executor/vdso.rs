//! Makes programs ask the kernel for times and random numbers.
//!
//! The kernel maps code into every program, the vDSO, that tells the time without a system call, past every filter.
//! Here its functions are overwritten by plain system calls, in the memory of a program that has just started.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags, openat};

use super::super::operations::Supervision;
use super::system;

const AT_RANDOM: u64 = 25;
const AT_SYSINFO_EHDR: u64 = 33;

/// What to write where.
pub(super) struct Patches {
    /// Offsets into the vDSO and code.
    code: Vec<(u64, Vec<u8>)>,
    /// `/proc`, writable: only there can code be overwritten that is mapped read-only.
    processes: OwnedFd,
}

impl Patches {
    /// Finds the functions in this process's own vDSO, which every process of this kernel shares.
    pub(super) fn find(wanted: &Supervision, processes: OwnedFd) -> io::Result<Self> {
        let (clock, random) = (wanted.has_clock(), wanted.random.is_some());
        let base = auxiliary(&processes, "self")?.0.ok_or_else(|| unsupported("this kernel has no vDSO"))?;
        let image = own_image(base)?;
        let mut patches = Vec::new();
        for (name, code) in replacements(clock, random)? {
            // Older kernels have fewer functions; what is absent needs no patch.
            patches.extend(symbol(&image, name).map(|offset| (offset, code)));
        }
        if clock && patches.is_empty() {
            return Err(unsupported("the vDSO of this kernel has no functions to replace"));
        }
        Ok(Self { code: patches, processes })
    }

    /// Applies them to a process that waits; also replaces the random bytes it was started with, if given.
    pub(super) fn apply(&self, process: i32, random: Option<[u8; 16]>) -> io::Result<()> {
        let (vdso, random_at) = auxiliary(&self.processes, &process.to_string())?;
        let memory = open(&self.processes, &format!("{process}/mem"), OFlags::WRONLY)?;
        if let Some(base) = vdso {
            for (offset, code) in &self.code {
                // A program may have been told a false place, so this sum may be any.
                memory.write_all_at(code, base.wrapping_add(*offset))?;
            }
        }
        if let (Some(at), Some(bytes)) = (random_at, random) {
            memory.write_all_at(&bytes, at)?;
        }
        Ok(())
    }
}

fn unsupported(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}

/// Where a process has its vDSO and its random bytes.
fn auxiliary(processes: &OwnedFd, process: &str) -> io::Result<(Option<u64>, Option<u64>)> {
    let mut bytes = Vec::new();
    open(processes, &format!("{process}/auxv"), OFlags::RDONLY)?.read_to_end(&mut bytes)?;
    let words: Vec<u64> = bytes.chunks_exact(8).map(word).collect();
    let find = |key| words.chunks_exact(2).find(|pair| pair[0] == key).map(|pair| pair[1]);
    Ok((find(AT_SYSINFO_EHDR), find(AT_RANDOM)))
}

fn open(processes: &OwnedFd, path: &str, access: OFlags) -> io::Result<fs::File> {
    Ok(openat(processes, path, access | OFlags::CLOEXEC, Mode::empty())?.into())
}

fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

#[cfg(target_arch = "x86_64")]
fn replacements(clock: bool, random: bool) -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    // mov eax, number; syscall; ret
    let call = |number: libc::c_long| {
        let number = u32::try_from(number).expect("system call numbers are small and positive");
        [&[0xb8][..], &number.to_le_bytes(), &[0x0f, 0x05, 0xc3]].concat()
    };
    let mut list = Vec::new();
    if clock {
        list.push(("__vdso_clock_gettime", call(libc::SYS_clock_gettime)));
        list.push(("__vdso_gettimeofday", call(libc::SYS_gettimeofday)));
        list.push(("__vdso_time", call(libc::SYS_time)));
    }
    if random {
        // cmp r8, -1; je over: the question for the size of a state is answered with ENOSYS, so that libraries fall
        // back to the system call.
        let refuse = [0xb8, 0xda, 0xff, 0xff, 0xff, 0xc3];
        let code = [&[0x49, 0x83, 0xf8, 0xff, 0x74, 0x08][..], &call(libc::SYS_getrandom), &refuse].concat();
        list.push(("__vdso_getrandom", code));
    }
    Ok(list)
}

#[cfg(not(target_arch = "x86_64"))]
fn replacements(_clock: bool, _random: bool) -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    Err(unsupported("clocks and random numbers can be chosen on x86_64 only"))
}

/// This process's vDSO: as much as its first loaded segment says.
fn own_image(base: u64) -> io::Result<Vec<u8>> {
    let process = system::own_number();
    let mut header = [0; 4096];
    system::read_memory(process, base, &mut header)?;
    let size = program_headers(&header).filter(|header| header[0] == 1).map(|header| header[5]).max();
    let mut image = vec![0; usize::try_from(size.unwrap_or(0).min(1 << 20)).map_err(io::Error::other)?];
    system::read_memory(process, base, &mut image)?;
    Ok(image)
}

/// The program headers of an ELF image: type, offset, address, …, as words; the first holds the type.
fn program_headers(image: &[u8]) -> impl Iterator<Item = [u64; 7]> + '_ {
    let field = |at: usize| image.get(at..at + 8).map_or(0, word);
    let start = usize::try_from(field(0x20)).unwrap_or(usize::MAX);
    let count = usize::try_from(field(0x38) & 0xffff).unwrap_or(0);
    (0..count).filter_map(move |index| {
        let header = image.get(start.checked_add(index * 56)?..)?.get(..56)?;
        let mut words = [0; 7];
        words.iter_mut().zip(header.chunks_exact(8)).for_each(|(to, from)| *to = word(from));
        words[0] &= 0xffff_ffff;
        Some(words)
    })
}

/// The offset of a function of an ELF image, looked up in its dynamic symbols.
fn symbol(image: &[u8], name: &str) -> Option<u64> {
    let dynamic = program_headers(image).find(|header| header[0] == 2)?;
    let (start, size) = (usize::try_from(dynamic[1]).ok()?, usize::try_from(dynamic[4]).ok()?);
    let entries = image.get(start..start.checked_add(size)?)?;
    let entry = |tag| {
        let pair = entries.chunks_exact(16).find(|pair| word(&pair[..8]) == tag)?;
        usize::try_from(word(&pair[8..])).ok()
    };
    // The image is linked at zero, and its names follow its symbols.
    let (names, symbols) = (entry(5)?, entry(6)?);
    let wanted = [name.as_bytes(), b"\0"].concat();
    image.get(symbols..names)?.chunks_exact(24).find_map(|symbol| {
        let at = names + usize::try_from(word(&symbol[..8]) & 0xffff_ffff).ok()?;
        let value = word(&symbol[8..16]);
        image.get(at..)?.starts_with(&wanted).then_some(value).filter(|value| *value != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::spec::Clock;
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_clock_of_this_kernel_is_found() {
        let processes = openat(rustix::fs::CWD, "/proc", OFlags::PATH, Mode::empty()).unwrap();
        let patches = Patches::find(
            &Supervision { clock: Clock::StartAt(1), random: Some(1), ..Supervision::default() },
            processes,
        )
        .unwrap();
        assert!(patches.code.len() >= 3, "{}", patches.code.len());
    }

    #[test]
    fn nonsense_has_no_symbols() {
        for image in [&[][..], &[0xff; 64], &[0xff; 4096], &[0; 4096]] {
            assert_eq!(symbol(image, "__vdso_time"), None);
        }
    }
}
