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

/// Where a file stops before its end.
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
    /// A file that ended too early. The next step is about the next file.
    Cut(Cut),
    /// Nothing more.
    End,
}

struct Open {
    path: PathBuf,
    decoder: Decoder<'static, BufReader<File>>,
    run: u64,
    records: u64,
    is_over: bool,
}

/// See the module.
pub struct Reading {
    files: std::vec::IntoIter<PathBuf>,
    open: Option<Open>,
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
        Ok(Self { files: files.into_iter(), open: None, body: Vec::new() })
    }

    /// Goes to the next record.
    ///
    /// # Errors
    ///
    /// A file cannot be opened; what is damaged is a [`Step::Cut`].
    pub fn step(&mut self) -> io::Result<Step> {
        loop {
            let Some(open) = &mut self.open else {
                let Some(path) = self.files.next() else { return Ok(Step::End) };
                match begin(path)? {
                    Ok(open) => self.open = Some(open),
                    Err(cut) => return Ok(Step::Cut(cut)),
                }
                continue;
            };
            match next_body(&mut open.decoder, &mut self.body) {
                Ok(true) => match Record::unpack(&self.body) {
                    Some((_, record)) => {
                        open.records += 1;
                        open.is_over = matches!(record, Record::Continued | Record::End);
                        return Ok(Step::Record);
                    }
                    None => return Ok(Step::Cut(self.cut("a record cannot be read"))),
                },
                Ok(false) if open.is_over => self.open = None,
                Ok(false) => return Ok(Step::Cut(self.cut("it ends without an end"))),
                Err(reason) => return Ok(Step::Cut(self.cut(&reason))),
            }
        }
    }

    /// Returns the record of the newest step, when it was made (`CLOCK_BOOTTIME`, ms), and the run that it belongs to.
    #[must_use]
    pub fn record(&self) -> Option<(u64, Record<'_>, u64)> {
        let run = self.open.as_ref()?.run;
        let (boot_ms, record) = Record::unpack(&self.body)?;
        Some((boot_ms, record, run))
    }

    fn cut(&mut self, reason: &str) -> Cut {
        let (path, records) = self.open.take().map_or_else(Default::default, |open| (open.path, open.records));
        Cut { path, records, reason: reason.to_owned() }
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
    Ok(Ok(Open { path, decoder, run, records: 0, is_over: false }))
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
