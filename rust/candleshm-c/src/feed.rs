//! Blocks: attaching, and the symbols that a block carries.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

use candleshm::Feed;
use candleshm::error::Error;
use candleshm::feed::{Attached, max_age_of, names};

use crate::border::{answer, argument, borrowed, handed_out, memory, put, taken_back, text};
use crate::environment;

/// Bytes of a symbol's name and its NUL.
const SYMBOL_BYTES: usize = 65;

/// What C knows as `cshm_feed`.
pub(crate) struct CFeed {
    pub(crate) feed: Feed,
    /// The symbols that C was told last, in their places: it has room for so many.
    known: Mutex<Vec<String>>,
}

impl CFeed {
    /// For how many symbols C has room.
    pub(crate) fn places(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Remembers the symbols of a block; returns how many there are.
    fn remember(&self, attached: &Attached) -> usize {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_alike(attached, &known) || attached.block().symbol_count() != known.len() {
            *known = attached.symbols();
        }
        known.len()
    }

    /// Refuses a block that has other symbols in the places that C knows.
    pub(crate) fn check_places(&self, attached: &Attached) -> Result<(), Error> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if is_alike(attached, &known) {
            return Ok(());
        }
        Err(Error::Places { name: attached.block().name().to_owned() })
    }
}

/// Whether a block has these symbols in these places, as far as it has so many.
fn is_alike(attached: &Attached, known: &[String]) -> bool {
    attached.symbols().iter().zip(known).all(|(symbol, known)| symbol == known)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_attach(name: *const c_char, max_age_s: f64, out: *mut *mut CFeed) -> i32 {
    answer(|| {
        // SAFETY: the header asks for a place that nobody else uses.
        unsafe { put(out, std::ptr::null_mut(), "out") }?;
        // SAFETY: the header asks for a text.
        let name = unsafe { text(name, "name") }?;
        environment::take();
        let max_age = if max_age_s <= 0.0 { None } else { Some(max_age_of(max_age_s)?) };
        let feed = Feed::attach(name, max_age)?;
        let known = Mutex::new(feed.attached()?.symbols());
        // SAFETY: as above.
        unsafe { handed_out(out, CFeed { feed, known }) }?;
        Ok(0)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_detach(feed: *mut CFeed) {
    // SAFETY: the header asks for a feed that is not used any more, or NULL.
    unsafe { taken_back(feed) };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_names(out: *mut c_char, bytes: usize) -> i32 {
    answer(|| {
        environment::take();
        // Other programs keep their shared memory in the same place.
        let blocks = names()?.into_iter().filter(|name| Feed::attach(name, None).is_ok());
        let mut lines: String = blocks.flat_map(|name| [name, "\n".into()]).collect();
        lines.push('\0');
        if bytes > 0 {
            // SAFETY: the header asks for memory of this size.
            put_text(&lines, unsafe { memory(out, bytes, "out") }?);
        }
        Ok(i32::try_from(lines.len()).unwrap_or(i32::MAX))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_symbol_count(feed: *const CFeed) -> i64 {
    answer(|| {
        // SAFETY: the header asks for a feed.
        let feed = unsafe { borrowed(feed, "feed") }?;
        Ok(feed.remember(&*feed.feed.attached()?) as i64)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cshm_symbol_name(feed: *const CFeed, place: usize, out: *mut c_char) -> i32 {
    answer(|| {
        // SAFETY: the header asks for a feed, and for memory of this size.
        let (feed, out) = unsafe { (borrowed(feed, "feed")?, memory(out, SYMBOL_BYTES, "out")?) };
        let attached = feed.feed.attached()?;
        let count = attached.block().symbol_count();
        if place >= count {
            return Err(no_place(place, count));
        }
        put_text(&attached.block().symbol(place), out);
        Ok(0)
    })
}

fn no_place(place: usize, count: usize) -> Error {
    argument(format!("place must be below {count}, the number of symbols: `{place}`"))
}

/// Stores as much of a text as there is room for, and a NUL; the room is not empty.
pub(crate) fn put_text(text: &str, out: &mut [MaybeUninit<c_char>]) {
    let room = out.len() - 1;
    out.fill(MaybeUninit::new(0));
    for (place, byte) in out[..room].iter_mut().zip(text.bytes()) {
        place.write(byte as c_char);
    }
}
