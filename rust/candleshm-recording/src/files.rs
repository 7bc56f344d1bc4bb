//! The files of a recording on their way to disk: rotated, and bounded together.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use zstd::bulk::Compressor;

use crate::format::{HEAD_BYTES, SUFFIX, frame, head};
use crate::record::{Record, Run};

/// Parts of the whole of which a file may be one.
const FILES_MIN: u64 = 16;
const FILE_AGE_MAX: Duration = Duration::from_hours(1);
const LEVEL: i32 = 3;

/// Where to record, and how much.
#[derive(Debug, Clone)]
pub struct Place {
    /// An existing directory, for this block only.
    pub directory: PathBuf,
    /// Bytes of all files there; the oldest go first.
    pub bytes_max: u64,
    /// Names the run; no other run in that directory has the same number.
    pub run: u64,
}

/// The files of one run; belongs to one thread.
pub(crate) struct Files {
    place: Place,
    current: Option<Current>,
    /// How many files this run has begun.
    begun: u64,
    /// Bytes written since the start.
    pub(crate) written_bytes: u64,
    /// Old files removed since the start.
    pub(crate) removed: u64,
    /// Whether records were lost on the disk, so that series have to be checkpointed again.
    pub(crate) has_lost: bool,
}

struct Current {
    path: PathBuf,
    file: File,
    /// Up to here everything is whole.
    bytes: u64,
    since: Instant,
}

impl Files {
    pub(crate) fn new(place: Place) -> Self {
        Self { place, current: None, begun: 0, written_bytes: 0, removed: 0, has_lost: false }
    }

    /// Begins a file.
    pub(crate) fn begin(&mut self, run: &Run, boot_ms: u64) -> io::Result<()> {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        // Names in order of time, also when the clock was set back between two files of a run.
        let name = format!("{now_ms:013}-{:016x}-{:06}.{SUFFIX}", self.place.run, self.begun);
        let path = self.place.directory.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let mut bytes = head(self.place.run).to_vec();
        bytes.extend(compressed(&[Record::Run(run.clone()).pack(boot_ms)])?);
        if let Err(error) = file.write_all(&bytes) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        self.begun += 1;
        self.written_bytes += bytes.len() as u64;
        self.current = Some(Current { path, file, bytes: bytes.len() as u64, since: Instant::now() });
        self.make_room();
        Ok(())
    }

    /// Writes records behind the others, all of them or none.
    pub(crate) fn write(&mut self, batch: &[Vec<u8>], run: &Run, boot_ms: u64) -> io::Result<()> {
        let file_bytes_max = (self.place.bytes_max / FILES_MIN).max(HEAD_BYTES as u64);
        if let Some(current) = &mut self.current
            && (current.bytes >= file_bytes_max || current.since.elapsed() > FILE_AGE_MAX)
        {
            // Without it a reader finds that this file was cut, which is all that would be lost.
            let _ = current.append(&compressed(&[Record::Continued.pack(boot_ms)])?);
            self.current = None;
        }
        if self.current.as_ref().is_some_and(|current| !current.path.exists()) {
            // Somebody removed it, with all that was in it.
            self.current = None;
            self.has_lost = true;
        }
        if self.current.is_none() {
            self.begin(run, boot_ms)?;
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        let bytes = compressed(batch)?;
        if let Err(error) = current.append(&bytes) {
            if current.cut_back().is_err() {
                // Half a frame would hide whatever came behind it.
                self.current = None;
                self.has_lost = true;
            }
            return Err(error);
        }
        self.written_bytes += bytes.len() as u64;
        self.make_room();
        Ok(())
    }

    /// Removes the oldest files until all together are within the bound. The one that is being written stays.
    fn make_room(&mut self) {
        let mut files = files_of(&self.place.directory).unwrap_or_default();
        let mut total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        files.reverse();
        while total > self.place.bytes_max
            && let Some((path, bytes)) = files.pop()
        {
            if self.current.as_ref().is_some_and(|current| current.path == path) {
                break;
            }
            if fs::remove_file(&path).is_ok() {
                self.removed += 1;
                total -= bytes;
            }
        }
    }
}

impl Current {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Takes half a frame away.
    fn cut_back(&mut self) -> io::Result<()> {
        self.file.set_len(self.bytes)?;
        self.file.seek(SeekFrom::Start(self.bytes)).map(drop)
    }
}

/// Returns the files of a recording and their sizes, the oldest first.
pub(crate) fn files_of(directory: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_some_and(|suffix| suffix == SUFFIX)
            && let Ok(about) = entry.metadata()
            && about.is_file()
        {
            found.push((path, about.len()));
        }
    }
    found.sort();
    Ok(found)
}

/// Returns a zstd frame of records.
fn compressed(bodies: &[Vec<u8>]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for body in bodies {
        frame(body, &mut bytes);
    }
    let mut compressor = Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    compressor.compress(&bytes)
}
