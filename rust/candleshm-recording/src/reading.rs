//! `Reading`: the records of a directory in their order, as far as they are whole.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use zstd::stream::read::Decoder;

use crate::files::files_of;
use crate::format::{BODY_BYTES_MAX, FRAME_BYTES, HEAD_BYTES, MAGIC, run_of};
use crate::record::Record;

/// Largest window of a frame that is decoded, as a power of two: what a frame can make a reader allocate.
const WINDOW_LOG_MAX: u32 = 27;

const NEXT_IS_MISSING: &str = "the file after it is missing";

/// Where a file stops before its end, or the recording behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The file.
    pub path: PathBuf,
    /// Records read from it.
    pub records: u64,
    /// Why nothing more can be read.
    pub reason: String,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A record; [`Reading::record`] returns it.
    Record,
    /// A file that ended too early, or behind which one is missing. The next step is about the next file.
    Cut(Cut),
    /// Nothing more.
    End,
}

/// A file, as far as it was read.
struct Part {
    path: PathBuf,
    run: u64,
    /// Its place in the run, as its name says.
    number: Option<u64>,
    records: u64,
    /// Whether its newest record ends it, and whether that says that the run goes on in another file.
    is_over: bool,
    is_continued: bool,
}

impl Part {
    /// Whether nothing is missing between this file and the next.
    fn is_followed_by(&self, next: &Self) -> bool {
        let (Some(number), Some(next_number)) = (self.number, next.number) else { return true };
        if self.run == next.run { next_number == number + 1 } else { !self.is_continued && next_number == 0 }
    }

    fn cut(self, reason: &str) -> Step {
        Step::Cut(Cut { path: self.path, records: self.records, reason: reason.to_owned() })
    }
}

struct Open {
    part: Part,
    decoder: Decoder<'static, BufReader<File>>,
}

/// See the module.
pub struct Reading {
    files: std::vec::IntoIter<PathBuf>,
    open: Option<Open>,
    /// The file before.
    before: Option<Part>,
    body: Vec<u8>,
}

impl Reading {
    /// Finds the files of a directory.
    ///
    /// # Errors
    ///
    /// The directory cannot be read; `NotFound` when it has no file of a recording.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let files: Vec<_> = files_of(directory)?.into_iter().map(|(path, _)| path).collect();
        if files.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it holds no file of a recording"));
        }
        Ok(Self { files: files.into_iter(), open: None, before: None, body: Vec::new() })
    }

    /// Goes to the next record.
    ///
    /// # Errors
    ///
    /// A file cannot be opened; what is damaged is a [`Step::Cut`].
    pub fn step(&mut self) -> io::Result<Step> {
        loop {
            let Some(Open { part, decoder }) = &mut self.open else {
                match self.next_file()? {
                    Some(step) => return Ok(step),
                    None => continue,
                }
            };
            let reason = match next_body(decoder, &mut self.body) {
                Ok(true) => match Record::unpack(&self.body) {
                    Some((_, record)) => {
                        part.records += 1;
                        part.is_continued = record == Record::Continued;
                        part.is_over = part.is_continued || record == Record::End;
                        return Ok(Step::Record);
                    }
                    None => "a record cannot be read".into(),
                },
                Ok(false) if part.is_over => {
                    self.before = self.open.take().map(|open| open.part);
                    continue;
                }
                Ok(false) => "it ends without an end".into(),
                Err(reason) => reason,
            };
            return Ok(self.cut(reason));
        }
    }

    /// Opens the next file. Returns what there is to say before its first record: that it is damaged, that one before
    /// it is missing, or that there is none.
    fn next_file(&mut self) -> io::Result<Option<Step>> {
        let before = self.before.take();
        let Some(path) = self.files.next() else {
            let last = before.filter(|before| before.is_continued);
            return Ok(Some(last.map_or(Step::End, |last| last.cut(NEXT_IS_MISSING))));
        };
        let open = match begin(path)? {
            Ok(open) => open,
            Err(cut) => return Ok(Some(Step::Cut(cut))),
        };
        let before = before.filter(|before| !before.is_followed_by(&open.part));
        self.open = Some(open);
        Ok(before.map(|before| before.cut(NEXT_IS_MISSING)))
    }

    /// Returns the record of the newest step, when it was made (`CLOCK_BOOTTIME`, ms), and the run that it belongs to.
    #[must_use]
    pub fn record(&self) -> Option<(u64, Record<'_>, u64)> {
        let run = self.open.as_ref()?.part.run;
        let (boot_ms, record) = Record::unpack(&self.body)?;
        Some((boot_ms, record, run))
    }

    fn cut(&mut self, reason: String) -> Step {
        let Some(Open { part, .. }) = self.open.take() else { return Step::End };
        let cut = Cut { path: part.path.clone(), records: part.records, reason };
        self.before = Some(Part { is_continued: false, ..part });
        Step::Cut(cut)
    }
}

/// Opens a file behind its head.
fn begin(path: PathBuf) -> io::Result<Result<Open, Cut>> {
    let mut file = File::open(&path)?;
    let mut head = [0; HEAD_BYTES];
    let cut = |path: PathBuf, reason: String| Ok(Err(Cut { path, records: 0, reason }));
    match file.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return cut(path, "it ends within its head".into());
        }
        Err(error) => return Err(error),
    }
    let Some(run) = run_of(&head) else {
        return cut(path, format!("it does not begin with {}", MAGIC.escape_ascii()));
    };
    let mut decoder = Decoder::new(file)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    let number = path.file_stem().and_then(|stem| stem.to_str()?.rsplit('-').next()?.parse().ok());
    Ok(Ok(Open { part: Part { path, run, number, records: 0, is_over: false, is_continued: false }, decoder }))
}

/// Reads the body of the next record; returns false at the end of a file that ends behind one.
///
/// # Errors
///
/// Why there is no whole record.
pub fn next_body(from: &mut impl Read, body: &mut Vec<u8>) -> Result<bool, String> {
    let mut frame = [0; FRAME_BYTES];
    match fill(from, &mut frame)? {
        0 => return Ok(false),
        FRAME_BYTES => {}
        _ => return Err("it ends within a record".into()),
    }
    let (length, checksum) = frame.split_at(4);
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte));
    let length = number(length) as usize;
    if length > BODY_BYTES_MAX {
        return Err(format!("a record of {length} bytes cannot be"));
    }
    body.clear();
    from.take(length as u64).read_to_end(body).map_err(|error| reason_of(&error))?;
    if body.len() < length {
        return Err("it ends within a record".into());
    }
    if crc32fast::hash(body) != number(checksum) {
        return Err("a record differs from its checksum".into());
    }
    Ok(true)
}

/// Fills a buffer as far as there are bytes, and returns how far.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> Result<usize, String> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(reason_of(&error)),
        }
    }
    Ok(filled)
}

fn reason_of(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        "it ends within a record".into()
    } else {
        format!("it is damaged: {error}")
    }
}
