//! Named shared memory: files in `/dev/shm`, mapped. The only file of the crate with `unsafe`.
//!
//! The names are those of `shm_open`, so `multiprocessing.shared_memory.SharedMemory(name)` finds the same block.
//! A new block is built in a file without a name and only then linked under its name: a creator that dies leaves
//! nothing behind, and nobody can open a block that is half written.
#![allow(unsafe_code)]

use std::ops::Deref;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{self, AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{self, MapFlags, ProtFlags};
use rustix::thread::futex;

use crate::error::{Corruption, Error};
use crate::layout::{MAGIC, PAGE_BYTES, header};
use crate::sync::{AtomicU64, Target, copy_words};

const DIRECTORY: &str = "/dev/shm";
/// The group that shares the blocks of this process, as [`share_with`] set it: its number and this bit, else zero.
static GROUP: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);
const GROUP_SET: u64 = 1 << 32;
/// What the group may do with a block: read it.
const GROUP_MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP);
const NAME_BYTES_MAX: usize = 200;
/// Runs shorter than this are copied word by word: `rep movsb` takes some tens of cycles to start.
const STRING_COPY_WORDS_MIN: usize = 64;
/// How often and how far apart a lock is tried that a reader may hold for a moment, in [`is_owned`].
const LOCK_TRIES: usize = 20;
const LOCK_TRY_APART: std::time::Duration = std::time::Duration::from_millis(5);

fn os(action: &'static str, name: &str) -> impl Fn(Errno) -> Error {
    let name = name.to_owned();
    move |errno| Error::Os { action, name: name.clone(), errno: errno.raw_os_error() }
}

/// Checks that `name` can name a block.
///
/// # Errors
///
/// `Name` when it is empty, longer than 200 bytes, begins with a dot, or holds anything but `A-Z a-z 0-9 . _ -`.
pub fn check_name(name: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('.') || !name.bytes().all(allowed) {
        return Err(Error::Name { name: name.into() });
    }
    Ok(())
}

fn not_a_file(name: &str) -> Error {
    Error::Corrupt { name: name.into(), what: Corruption::NotAFile }
}

/// Shares the blocks of this process with a group, `None` for nobody: blocks made from here on have mode 0640 and that
/// group, and those of other users that have this mode and group are believed by readers.
pub fn share_with(group: Option<u32>) {
    let word = group.map_or(0, |gid| GROUP_SET | u64::from(gid));
    GROUP.store(word, core::sync::atomic::Ordering::Relaxed);
}

fn group() -> Option<u32> {
    let word = GROUP.load(core::sync::atomic::Ordering::Relaxed);
    (word & GROUP_SET != 0).then_some(word as u32)
}

/// Whether members of the group wrote the file, and nobody else could.
fn is_shared(stat: &fs::Stat) -> bool {
    group() == Some(stat.st_gid) && Mode::from_raw_mode(stat.st_mode) == GROUP_MODE
}

fn of_another(name: &str, stat: &fs::Stat) -> Error {
    Error::Owner { name: name.into(), uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 }
}

/// Returns the error for a file that its mode keeps from this user: whose it is says more than a refusal.
fn refused(name: &str) -> Error {
    match fs::lstat(path(name)) {
        Ok(stat) if stat.st_uid != rustix::process::geteuid().as_raw() => of_another(name, &stat),
        _ => os("open block", name)(Errno::ACCESS),
    }
}

fn path(name: &str) -> String {
    format!("{DIRECTORY}/{name}")
}

/// Where a block waits to take the place of the one that has its name. Files in `/dev/shm` that begin with a dot are no
/// blocks, so nobody attaches to it there. Where something stands in the way that cannot be removed, as a directory or
/// the file of another user, the next one is taken.
fn next_paths(name: &str) -> impl Iterator<Item = String> {
    ["next", "next-1", "next-2"].into_iter().map(move |ending| path(&format!(".{name}.{ending}")))
}

/// Which file it is, whatever its name. No other has the same for as long as somebody holds it open or maps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

/// Returns which file stands under a name, a link or a directory for itself; `None` when there is nothing.
///
/// # Errors
///
/// `Os` when it cannot be looked at.
pub fn standing(name: &str) -> Result<Option<FileId>, Error> {
    match fs::lstat(path(name)) {
        Ok(stat) => Ok(Some(FileId { device: stat.st_dev, inode: stat.st_ino })),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(os("look at block", name)(errno)),
    }
}

/// Returns the names of all files that may be blocks, sorted.
///
/// # Errors
///
/// `Os` when the directory cannot be read.
pub fn names() -> Result<Vec<String>, Error> {
    let failed = |error: std::io::Error| Error::Os {
        action: "list",
        name: DIRECTORY.into(),
        errno: error.raw_os_error().unwrap_or(0),
    };
    let mut names: Vec<String> = std::fs::read_dir(DIRECTORY)
        .map_err(failed)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| check_name(name).is_ok())
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// An open block file. Its advisory lock, taken through this descriptor, is the ownership of the block; the kernel
/// gives it back on any kind of death.
#[derive(Debug)]
pub struct BlockFile {
    descriptor: OwnedFd,
    name: String,
}

impl BlockFile {
    /// Creates a file of `bytes` zeroes without a name, locked. The memory is taken at once: a small `/dev/shm` is an
    /// error here and never a SIGBUS later.
    ///
    /// # Errors
    ///
    /// `NoMemory`, `Name`, `Os`.
    pub fn create_unnamed(name: &str, bytes: usize) -> Result<Self, Error> {
        check_name(name)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let descriptor =
            fs::open(DIRECTORY, flags, Mode::RUSR | Mode::WUSR).map_err(os("create a block in /dev/shm for", name))?;
        let file = Self { descriptor, name: name.into() };
        file.share()?;
        file.try_lock()?;
        loop {
            match fs::fallocate(&file.descriptor, FallocateFlags::empty(), 0, bytes as u64) {
                Err(Errno::INTR) => {}
                Err(Errno::NOSPC) => return Err(Error::NoMemory { name: name.into(), bytes }),
                other => break other.map_err(os("reserve memory in /dev/shm for block", name))?,
            }
        }
        Ok(file)
    }

    /// Gives the file the mode that this process shares its blocks with, whatever the umask took away.
    ///
    /// # Errors
    ///
    /// `Os` when this user is not in the group.
    pub fn share(&self) -> Result<(), Error> {
        let failed = os("give its mode and group to block", &self.name);
        let Some(gid) = group() else {
            return fs::fchmod(&self.descriptor, Mode::RUSR | Mode::WUSR).map_err(failed);
        };
        fs::fchown(&self.descriptor, None, Some(fs::Gid::from_raw(gid))).map_err(&failed)?;
        fs::fchmod(&self.descriptor, GROUP_MODE).map_err(failed)
    }

    /// Opens the block of that name. Root may open everything, so the owner of the file is checked here and not left to
    /// its mode: what another user wrote is not to be believed, unless it is shared with the group of [`share_with`].
    ///
    /// # Errors
    ///
    /// `NotFound`, `Name`, `Owner` when it belongs to another user, `Corrupt` when it is a link, a directory, a pipe or
    /// a device, `Os` (not permitted, for one).
    pub fn open(name: &str, writable: bool) -> Result<Self, Error> {
        check_name(name)?;
        let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let descriptor = fs::open(path(name), flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => Error::NotFound { name: name.into() },
            // A symbolic link, a directory, a socket.
            Errno::LOOP | Errno::ISDIR | Errno::NXIO => not_a_file(name),
            Errno::ACCESS => refused(name),
            other => os("open block", name)(other),
        })?;
        let stat = fs::fstat(&descriptor).map_err(os("look at block", name))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(not_a_file(name));
        }
        let is_ours = stat.st_uid == rustix::process::geteuid().as_raw();
        if !is_ours && (writable || !is_shared(&stat)) {
            return Err(of_another(name, &stat));
        }
        Ok(Self { descriptor, name: name.into() })
    }

    /// Takes the lock if no owner holds it; returns whether it is held now. A reader that calls [`is_owned`] holds it
    /// for a moment, so it is tried for a tenth of a second.
    ///
    /// # Errors
    ///
    /// `Os` when locking is not possible at all.
    pub fn try_lock(&self) -> Result<bool, Error> {
        for _ in 0..LOCK_TRIES {
            if self.flock(FlockOperation::NonBlockingLockExclusive)? {
                return Ok(true);
            }
            std::thread::sleep(LOCK_TRY_APART);
        }
        Ok(false)
    }

    fn flock(&self, operation: FlockOperation) -> Result<bool, Error> {
        match fs::flock(&self.descriptor, operation) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(os("lock block", &self.name)(errno)),
        }
    }

    /// Returns which file it is.
    ///
    /// # Errors
    ///
    /// `Os` when it cannot be looked at.
    pub fn id(&self) -> Result<FileId, Error> {
        let stat = fs::fstat(&self.descriptor).map_err(os("look at block", &self.name))?;
        Ok(FileId { device: stat.st_dev, inode: stat.st_ino })
    }

    /// Returns whether this very file still stands under the name.
    ///
    /// # Errors
    ///
    /// `Os` when the file cannot be looked at.
    pub fn is_named(&self) -> Result<bool, Error> {
        Ok(standing(&self.name)? == Some(self.id()?))
    }

    /// Refuses a file that is no block of ours, in whatever state it may be. Read, not mapped: it may be truncated.
    ///
    /// # Errors
    ///
    /// `Corrupt`.
    pub fn check_magic(&self) -> Result<(), Error> {
        if self.word(header::MAGIC) == MAGIC {
            return Ok(());
        }
        Err(Error::Corrupt { name: self.name.clone(), what: Corruption::Foreign })
    }

    /// Takes the lock.
    ///
    /// # Errors
    ///
    /// `InUse` when a live collector holds it, `Os` when locking is not possible at all.
    pub fn lock(&self) -> Result<(), Error> {
        if self.try_lock()? {
            return Ok(());
        }
        Err(Error::InUse { name: self.name.clone(), pid: self.word(header::PID) })
    }

    /// Returns a word of the file, zero when it is too short.
    fn word(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        let read = rustix::io::pread(&self.descriptor, &mut bytes, 8 * offset as u64);
        if read == Ok(8) { u64::from_le_bytes(bytes) } else { 0 }
    }

    /// Gives an unnamed file its name; returns false when the name is taken.
    ///
    /// # Errors
    ///
    /// `Os` when linking fails for another reason.
    pub fn link(&self) -> Result<bool, Error> {
        match self.link_as(&path(&self.name)) {
            Ok(()) => {
                self.remove_next();
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(os("name block", &self.name)(errno)),
        }
    }

    /// Gives an unnamed file its name in place of the file that has it, in one step. Only for the owner of that one.
    ///
    /// # Errors
    ///
    /// `Os` when linking or renaming fails.
    pub fn link_over(&self) -> Result<(), Error> {
        self.remove_next();
        let mut refused = Errno::EXIST;
        for waiting in next_paths(&self.name) {
            match self.link_as(&waiting) {
                Ok(()) => {
                    return fs::rename(&waiting, path(&self.name)).map_err(|errno| {
                        let _ = fs::unlink(&waiting);
                        os("name block", &self.name)(errno)
                    });
                }
                Err(errno) => refused = errno,
            }
        }
        Err(os("name block", &self.name)(refused))
    }

    fn link_as(&self, path: &str) -> Result<(), Errno> {
        let descriptor = format!("/proc/self/fd/{}", self.descriptor.as_raw_fd());
        fs::linkat(CWD, descriptor, CWD, path, AtFlags::SYMLINK_FOLLOW)
    }

    /// Removes what a collector left that died between the two steps of [`Self::link_over`]: memory that nobody finds.
    /// Only for the owner of the block that has the name: nobody else takes these steps, so a process that did is dead.
    /// What cannot be removed is in nobody's way.
    pub fn remove_next(&self) {
        for waiting in next_paths(&self.name) {
            let _ = fs::unlink(waiting);
        }
    }

    /// Removes the block's name if it still leads to this file. The memory lives on as long as anybody maps it.
    ///
    /// # Errors
    ///
    /// `Os` when it cannot be removed.
    pub fn unlink(&self) -> Result<(), Error> {
        if self.is_named()? {
            match fs::unlink(path(&self.name)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(os("remove block", &self.name)(errno)),
            }
        }
        Ok(())
    }

    /// Maps the whole file.
    ///
    /// # Errors
    ///
    /// `Corrupt` when it is shorter than a header, `Os` when mapping fails.
    pub fn map(&self, writable: bool) -> Result<Mapping, Error> {
        let stat = fs::fstat(&self.descriptor).map_err(os("look at block", &self.name))?;
        let bytes = usize::try_from(stat.st_size).unwrap_or(0);
        if bytes < PAGE_BYTES || !bytes.is_multiple_of(8) {
            self.check_magic()?;
            return Err(Error::Corrupt { name: self.name.clone(), what: Corruption::Truncated { bytes } });
        }
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of this process. That the file
        // keeps its size is upheld by every owner: blocks are never truncated, only unlinked.
        let address =
            unsafe { mm::mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, &self.descriptor, 0) }
                .map_err(os("map block", &self.name))?;
        let address = NonNull::new(address.cast()).ok_or_else(|| os("map block", &self.name)(Errno::NOMEM))?;
        Ok(Mapping { address, words: bytes / 8 })
    }
}

/// Where a file lies that belongs to a block without being one.
fn beside(name: &str, ending: &str) -> String {
    path(&format!(".{name}.{ending}"))
}

/// Creates a file without a name, for [`link_beside`]: for its user alone.
///
/// # Errors
///
/// As [`BlockFile::create_unnamed`].
pub fn create_beside(name: &str, ending: &str, bytes: usize) -> Result<BlockFile, Error> {
    let file = BlockFile::create_unnamed(name, bytes)?;
    fs::fchmod(&file.descriptor, Mode::RUSR | Mode::WUSR).map_err(os("give its mode to", &beside(name, ending)))?;
    Ok(file)
}

/// Gives a file the name that belongs to a block, in place of what a dead owner left there. Only for the owner of the
/// block.
///
/// # Errors
///
/// `Os`.
pub fn link_beside(file: &BlockFile, name: &str, ending: &str) -> Result<(), Error> {
    let target = beside(name, ending);
    match file.link_as(&target) {
        Err(Errno::EXIST) => {
            fs::unlink(&target).map_err(os("remove", &target))?;
            file.link_as(&target).map_err(os("name", &target))
        }
        linked => linked.map_err(os("name", &target)),
    }
}

/// Opens a file that belongs to a block, to read and write it. It is this user's own, or it is refused.
///
/// # Errors
///
/// `NotFound`, `Owner`, `Corrupt` for what is no file, `Os` (not permitted, for one).
pub fn open_beside(name: &str, ending: &str) -> Result<BlockFile, Error> {
    check_name(name)?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let target = beside(name, ending);
    let descriptor = fs::open(&target, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => Error::NotFound { name: name.into() },
        Errno::LOOP | Errno::ISDIR | Errno::NXIO => not_a_file(&format!(".{name}.{ending}")),
        other => os("open", &target)(other),
    })?;
    let stat = fs::fstat(&descriptor).map_err(os("look at", &target))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(not_a_file(&format!(".{name}.{ending}")));
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(of_another(name, &stat));
    }
    Ok(BlockFile { descriptor, name: name.into() })
}

/// Removes the name of a file that belongs to a block, if it leads to that file. What cannot be removed is in nobody's
/// way.
pub fn unlink_beside(name: &str, ending: &str, id: FileId) {
    let target = beside(name, ending);
    if fs::lstat(&target).is_ok_and(|stat| FileId { device: stat.st_dev, inode: stat.st_ino } == id) {
        let _ = fs::unlink(&target);
    }
}

/// A mapped block, lent out as atomic words.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping is plain memory that belongs to nobody's thread, and all access goes through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Deref for Mapping {
    type Target = [AtomicU64];

    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `map` made `words` words at this page-aligned address, they stay until `drop`, and other processes
        // change them only by atomic stores of whole words (the block's format). A read-only mapping is only ever
        // loaded from: `Writer` alone stores, and it maps writable.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.words) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `map` made the mapping, and no slice of it outlives the borrow of `self`. Arrays handed to Python
        // hold the mapping's owner alive (see the binding's `array.rs`).
        unsafe {
            let _ = mm::munmap(self.address.as_ptr().cast(), self.words * 8);
        }
    }
}

/// Copies a run of words that a writer may be changing, at the speed of memcpy. As with [`copy_words`] the caller
/// checks afterwards that nothing moved.
///
/// A racing `memcpy` would be undefined behaviour; a string instruction in inline assembly is not, because to the
/// compiler it is an opaque access like that of another thread, and each aligned word comes over untorn or is
/// rejected with the rest by the caller's check.
///
/// # Panics
///
/// When the lengths differ.
#[inline]
pub fn copy_run<T: Target>(source: &[AtomicU64], target: &mut [T]) {
    assert_eq!(source.len(), target.len());
    #[cfg(target_arch = "x86_64")]
    if source.len() >= STRING_COPY_WORDS_MIN {
        const { assert!(size_of::<T>() == size_of::<AtomicU64>()) };
        // SAFETY: both slices are valid for their equal length of words, any of which may go to a `Target`, the target
        // is borrowed exclusively, they cannot overlap, and the direction flag is clear by the ABI. Racing stores by
        // the writer are checked by the caller.
        unsafe {
            core::arch::asm!(
                "rep movsb",
                inout("rcx") source.len() * 8 => _,
                inout("rsi") source.as_ptr() => _,
                inout("rdi") target.as_mut_ptr() => _,
                options(nostack, preserves_flags)
            );
        }
        return;
    }
    copy_words(source, target);
}

/// The futex is the low half of a word: the half at the word's own address, as blocks are little endian.
fn futex_half(word: &AtomicU64) -> &core::sync::atomic::AtomicU32 {
    // SAFETY: a `&AtomicU64` is valid and aligned for four bytes; only the kernel and `futex::wait` look at the half,
    // and only to compare it.
    unsafe { &*std::ptr::from_ref(word).cast() }
}

/// Sleeps until the low half of `word` differs from `seen`, a wake-up, a signal, or `timeout`.
pub fn futex_wait(word: &AtomicU64, seen: u32, timeout: std::time::Duration) {
    let timeout = futex::Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
    // Every outcome means "look again", a refusal included: callers loop, and bound the loop by the clock.
    let _ = futex::wait(futex_half(word), futex::Flags::empty(), seen, Some(&timeout));
}

/// Wakes all threads that sleep on `word`, in every process.
pub fn futex_wake(word: &AtomicU64) {
    // Without sleepers there is nothing to do, and waking cannot fail for a mapped word.
    let _ = futex::wake(futex_half(word), futex::Flags::empty(), i32::MAX as u32);
}

/// Returns whether a process owns the block that has this name now.
///
/// A shared lock is tried and given back at once: the kernel frees an owner's lock on any kind of death, and knows of
/// owners in other PID namespaces. Readers that check at the same time do not disturb each other, and a collector that
/// starts in this moment tries again, see [`BlockFile::try_lock`].
///
/// # Errors
///
/// As [`BlockFile::open`]; `Os` when locking is not possible at all.
pub fn is_owned(name: &str) -> Result<bool, Error> {
    // Closing the file gives the lock back.
    Ok(!BlockFile::open(name, false)?.flock(FlockOperation::NonBlockingLockShared)?)
}
