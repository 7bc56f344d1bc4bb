//! `Recorder`: takes records from any thread, and writes them in a thread of its own.
//!
//! Whoever merges candles only puts bytes into a queue. When the queue is full, because the disk is, records are dropped
//! and counted; the recording says so at that place, and goes on with checkpoints of all series when there is room.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::files::Files;
pub use crate::files::Place;
use crate::record::{Record, Run};

/// Bytes that wait for the disk at most.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Bytes at which the thread is woken before its time.
const BATCH_BYTES: usize = 1 << 20;
/// How long records wait in memory, where a killed process loses them.
const WRITE_PAUSE: Duration = Duration::from_millis(200);
/// How long after a failure the disk is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Part of the whole recording after which all series are checkpointed again, so that a recording whose oldest files are
/// gone can be replayed.
const CHECKPOINT_PART: u64 = 4;

/// What was recorded so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Bytes written since the start.
    pub written_bytes: u64,
    /// Records dropped since the start.
    pub missing_records: u64,
    /// Old files removed since the start, to stay below the bound.
    pub removed_files: u64,
    /// Why nothing can be written now.
    pub error: Option<String>,
}

struct Queue {
    bodies: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Records and bytes dropped since the queue was full.
    missing: (u64, u64),
    run: Run,
    ending: bool,
    ended: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    status: Mutex<Status>,
    checkpoints_due: AtomicBool,
    /// Place of the series that is checkpointed next.
    next_checkpoint: AtomicUsize,
    queue_bytes_max: usize,
    is_forgotten: AtomicBool,
}

/// See the module. All methods may be called from any thread.
pub struct Recorder {
    shared: Arc<Shared>,
}

impl Recorder {
    /// Starts the thread. `boot_ms` is `CLOCK_BOOTTIME`.
    ///
    /// # Errors
    ///
    /// The first file cannot be written, or the system gives no thread.
    pub fn start(place: Place, run: Run, boot_ms: u64) -> io::Result<Self> {
        Self::start_with(place, run, boot_ms, QUEUE_BYTES_MAX)
    }

    /// As [`Self::start`], with a queue of so many bytes.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with(place: Place, mut run: Run, boot_ms: u64, queue_bytes_max: usize) -> io::Result<Self> {
        let checkpoint_bytes = place.bytes_max / CHECKPOINT_PART;
        let is_whole = run.is_whole;
        let mut files = Files::new(place);
        files.begin(&run, boot_ms)?;
        run.is_whole = false;
        let queue = Queue { bodies: VecDeque::new(), bytes: 0, missing: (0, 0), run, ending: false, ended: false };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            status: Mutex::new(Status::default()),
            checkpoints_due: AtomicBool::new(!is_whole),
            next_checkpoint: AtomicUsize::new(0),
            queue_bytes_max,
            is_forgotten: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("candleshm-record".into()).spawn(move || {
            theirs.write_all(&mut files, checkpoint_bytes, boot_ms);
            lock(&theirs.queue).ended = true;
            theirs.wake.notify_all();
        })?;
        Ok(Self { shared })
    }

    /// Puts a record into the queue, or drops it when that is full. Never waits for the disk.
    pub fn push(&self, record: &Record<'_>, boot_ms: u64) {
        self.push_body(record.pack(boot_ms), boot_ms);
    }

    /// As [`Self::push`], of a record that was packed before.
    pub fn push_body(&self, body: Vec<u8>, boot_ms: u64) {
        let shared = &*self.shared;
        let mut queue = lock(&shared.queue);
        if queue.ending {
            return;
        }
        // Once it was full, half of it has to be free before it counts as having room.
        let most = if queue.missing.0 > 0 { shared.queue_bytes_max / 2 } else { shared.queue_bytes_max };
        if queue.bytes + body.len() > most {
            queue.missing.0 += 1;
            queue.missing.1 += body.len() as u64;
            drop(queue);
            lock(&shared.status).missing_records += 1;
            return;
        }
        if queue.missing.0 > 0 {
            let (records, bytes) = std::mem::take(&mut queue.missing);
            let mark = Record::Missing { records, bytes }.pack(boot_ms);
            queue.bytes += mark.len();
            queue.bodies.push_back(mark);
            shared.want_checkpoints();
        }
        queue.bytes += body.len();
        queue.bodies.push_back(body);
        if queue.bytes > BATCH_BYTES {
            shared.wake.notify_all();
        }
    }

    /// Tells which symbols and places there are, for the beginnings of files to come.
    pub fn set_symbols(&self, symbols: Vec<String>, capacity: u64) {
        let mut queue = lock(&self.shared.queue);
        queue.run.symbols = symbols;
        queue.run.capacity = capacity;
    }

    /// Returns the place of the series that is to be checkpointed next, `None` while none is due, or while there is no
    /// room for so many bytes.
    #[must_use]
    pub fn next_checkpoint(&self, bytes: usize) -> Option<usize> {
        let shared = &*self.shared;
        let has_room = || lock(&shared.queue).bytes + bytes < shared.queue_bytes_max / 2;
        (shared.checkpoints_due.load(Relaxed) && has_room()).then(|| shared.next_checkpoint.load(Relaxed))
    }

    /// Notes that the series at that place was checkpointed, one of `count`. To be called by the thread that pushed it,
    /// before any other record.
    pub fn checkpointed(&self, place: usize, count: usize) {
        // Another round may have begun meanwhile.
        let next = &self.shared.next_checkpoint;
        if next.compare_exchange(place, place + 1, Relaxed, Relaxed).is_ok() && place + 1 >= count {
            self.shared.checkpoints_due.store(false, Relaxed);
        }
    }

    /// Returns what was recorded so far.
    #[must_use]
    pub fn status(&self) -> Status {
        lock(&self.shared.status).clone()
    }

    /// Writes what waits and ends the recording; returns whether all of it was written within `most`.
    pub fn end(&self, boot_ms: u64, most: Duration) -> bool {
        self.push(&Record::End, boot_ms);
        let mut queue = lock(&self.shared.queue);
        queue.ending = true;
        self.shared.wake.notify_all();
        let deadline = Instant::now() + most;
        while !queue.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = self.shared.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.bodies.is_empty() && lock(&self.shared.status).error.is_none()
    }
}

impl Recorder {
    /// Lets go in a forked child, which has no thread that writes: nothing is done at the end.
    pub fn forget(&self) {
        self.shared.is_forgotten.store(true, Relaxed);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.shared.is_forgotten.load(Relaxed) {
            return;
        }
        lock(&self.shared.queue).ending = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn want_checkpoints(&self) {
        self.next_checkpoint.store(0, Relaxed);
        self.checkpoints_due.store(true, Relaxed);
    }

    /// Is the thread.
    fn write_all(&self, files: &mut Files, checkpoint_bytes: u64, boot_ms: u64) {
        let mut checkpointed_bytes = 0;
        loop {
            let (batch, bytes, run, ending) = {
                let mut queue = lock(&self.queue);
                if queue.bytes < BATCH_BYTES && !queue.ending {
                    queue = self.wake.wait_timeout(queue, WRITE_PAUSE).unwrap_or_else(PoisonError::into_inner).0;
                }
                let count = batch_of(&queue.bodies);
                let batch: Vec<Vec<u8>> = queue.bodies.drain(..count).collect();
                let bytes: usize = batch.iter().map(Vec::len).sum();
                (batch, bytes, queue.run.clone(), queue.ending && queue.bodies.is_empty())
            };
            if !batch.is_empty() && !self.write(files, &batch, &run, boot_ms) {
                return;
            }
            {
                let mut queue = lock(&self.queue);
                queue.bytes -= bytes;
            }
            if ending {
                return;
            }
            if std::mem::take(&mut files.has_lost) || files.written_bytes - checkpointed_bytes > checkpoint_bytes {
                checkpointed_bytes = files.written_bytes;
                self.want_checkpoints();
            }
        }
    }

    /// Writes a batch, as often as it takes; returns false when the recording ends before it could be written.
    fn write(&self, files: &mut Files, batch: &[Vec<u8>], run: &Run, boot_ms: u64) -> bool {
        loop {
            let outcome = files.write(batch, run, boot_ms);
            let mut status = lock(&self.status);
            status.written_bytes = files.written_bytes;
            status.removed_files = files.removed;
            status.error = outcome.as_ref().err().map(ToString::to_string);
            drop(status);
            if outcome.is_ok() {
                return true;
            }
            let mut queue = lock(&self.queue);
            if queue.ending {
                return false;
            }
            queue = self.wake.wait_timeout(queue, RETRY_PAUSE).unwrap_or_else(PoisonError::into_inner).0;
            drop(queue);
        }
    }
}

/// Returns how many bodies make up the next batch.
fn batch_of(bodies: &VecDeque<Vec<u8>>) -> usize {
    let mut bytes = 0;
    bodies
        .iter()
        .take_while(|body| {
            let fits = bytes < BATCH_BYTES;
            bytes += body.len();
            fits
        })
        .count()
}

/// A thread that panicked leaves nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
