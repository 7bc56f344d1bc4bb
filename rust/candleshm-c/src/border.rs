//! The border to C: pointers become references, errors become numbers and a message, and no panic gets out.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use candleshm::error::{Error, ErrorKind};

/// The version of the header that this library implements; the soname has the same number.
const API: i32 = 1;

/// The codes of the header, from -1 down.
const NAMES: [&CStr; 14] = [
    c"CSHM_OK",
    c"CSHM_NOT_FOUND",
    c"CSHM_INCOMPATIBLE",
    c"CSHM_CORRUPT",
    c"CSHM_UNAVAILABLE",
    c"CSHM_UNKNOWN_SYMBOL",
    c"CSHM_STALE",
    c"CSHM_TIMEOUT",
    c"CSHM_GAP",
    c"CSHM_OVERWRITTEN",
    c"CSHM_ARGUMENT",
    c"CSHM_CONTENDED",
    c"CSHM_INTERNAL",
    c"CSHM_ENDED",
];
const INTERNAL: i32 = -12;

fn code_of(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::NotFound => -1,
        ErrorKind::Incompatible => -2,
        ErrorKind::Corrupt => -3,
        ErrorKind::Unavailable => -4,
        ErrorKind::UnknownSymbol => -5,
        ErrorKind::Stale => -6,
        ErrorKind::Timeout => -7,
        ErrorKind::Gap => -8,
        ErrorKind::Overwritten => -9,
        ErrorKind::Argument => -10,
        ErrorKind::Contended => -11,
        ErrorKind::Ended => -13,
        // Only writers meet the others.
        _ => INTERNAL,
    }
}

thread_local! {
    /// Whether the newest call of this thread failed. Without a destructor, so that a success costs one store.
    static HAS_FAILED: Cell<bool> = const { Cell::new(false) };
    static MESSAGE: RefCell<CString> = RefCell::default();
}

/// Runs a call from C. What it returns is what C gets; an error or a panic is remembered, and becomes its code.
#[inline]
pub(crate) fn answer<T: From<i32>>(call: impl FnOnce() -> Result<T, Error>) -> T {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => {
            HAS_FAILED.set(false);
            value
        }
        Ok(Err(error)) => T::from(failed(code_of(error.kind()), &error.to_string())),
        Err(panic) => T::from(failed(INTERNAL, &panic_text(&*panic))),
    }
}

#[cold]
#[inline(never)]
fn failed(code: i32, text: &str) -> i32 {
    let line = text.replace(['\n', '\0'], " ");
    HAS_FAILED.set(true);
    // A thread that is ending may have no message any more; it has its code.
    let _ = MESSAGE.try_with(|message| *message.borrow_mut() = CString::new(line).unwrap_or_default());
    code
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let known = panic.downcast_ref::<&str>().copied();
    let text = known.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message");
    format!("candleshm has a fault, please report it: {text}")
}

pub(crate) fn argument(text: impl Into<String>) -> Error {
    Error::Argument(text.into())
}

/// Returns what C points to.
///
/// # Safety
///
/// `pointer` is null, or points to a value that stays there, and is not changed, for the length of the call.
#[inline]
pub(crate) unsafe fn borrowed<'a, T>(pointer: *const T, what: &str) -> Result<&'a T, Error> {
    // SAFETY: upheld by the caller.
    unsafe { pointer.as_ref() }.ok_or_else(|| is_null(what))
}

/// Returns a text of C.
///
/// # Safety
///
/// `pointer` is null, or points to a text that ends with a NUL and stays there for the length of the call.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str, Error> {
    if pointer.is_null() {
        return Err(is_null(what));
    }
    // SAFETY: upheld by the caller.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|_| argument(format!("{what} must be UTF-8: `{}`", text.to_string_lossy())))
}

/// Returns memory of C that is to be filled; it may never have been set.
///
/// # Safety
///
/// `pointer` is null, or points to `count` places that nobody else uses for the length of the call.
#[inline]
pub(crate) unsafe fn memory<'a, T>(
    pointer: *mut T,
    count: usize,
    what: &str,
) -> Result<&'a mut [MaybeUninit<T>], Error> {
    if pointer.is_null() {
        return Err(is_null(what));
    }
    if !pointer.is_aligned() || count > isize::MAX as usize / size_of::<T>() {
        return Err(argument(format!("{what} cannot be {count} values at address `{pointer:p}`")));
    }
    // SAFETY: it is not null, aligned, and no larger than memory can be; the rest is upheld by the caller.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer.cast(), count) })
}

/// Returns memory of C, filled with a value.
///
/// # Safety
///
/// As [`memory`].
pub(crate) unsafe fn filled<'a, T: Copy>(
    pointer: *mut T,
    count: usize,
    value: T,
    what: &str,
) -> Result<&'a mut [T], Error> {
    // SAFETY: upheld by the caller.
    let places = unsafe { memory(pointer, count, what) }?;
    places.fill(MaybeUninit::new(value));
    // SAFETY: every place was just set.
    Ok(unsafe { &mut *(std::ptr::from_mut(places) as *mut [T]) })
}

/// Stores one value where C wants it.
///
/// # Safety
///
/// As [`memory`], for one place.
#[inline]
pub(crate) unsafe fn put<T>(pointer: *mut T, value: T, what: &str) -> Result<(), Error> {
    // SAFETY: upheld by the caller.
    unsafe { memory(pointer, 1, what) }?[0].write(value);
    Ok(())
}

/// Gives a value to C, which gives it back to [`taken_back`].
///
/// # Safety
///
/// As [`memory`], for one place.
pub(crate) unsafe fn handed_out<T>(out: *mut *mut T, value: T) -> Result<(), Error> {
    // SAFETY: upheld by the caller.
    let place = unsafe { memory(out, 1, "out") }?;
    place[0].write(Box::into_raw(Box::new(value)));
    Ok(())
}

/// Ends a value that C had, which may be null.
///
/// # Safety
///
/// `pointer` is null, or came from [`handed_out`] and is not used any more.
pub(crate) unsafe fn taken_back<T>(pointer: *mut T) {
    if !pointer.is_null() {
        // SAFETY: upheld by the caller.
        let value = unsafe { Box::from_raw(pointer) };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
    }
}

#[cold]
#[inline(never)]
fn is_null(what: &str) -> Error {
    argument(format!("{what} must not be NULL"))
}

#[unsafe(no_mangle)]
extern "C" fn cshm_error_name(error: i32) -> *const c_char {
    let place = usize::try_from(error.unsigned_abs()).ok().filter(|_| error <= 0);
    place.and_then(|place| NAMES.get(place)).unwrap_or(&c"unknown").as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn cshm_last_message() -> *const c_char {
    if !HAS_FAILED.get() {
        return c"".as_ptr();
    }
    MESSAGE.try_with(|message| message.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

#[unsafe(no_mangle)]
extern "C" fn cshm_api() -> i32 {
    API
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_code_and_a_message() {
        let code: i64 = answer(|| panic!("no way"));
        assert_eq!(code, -12);
        // SAFETY: the message stays until the next failure of this thread.
        let message = unsafe { CStr::from_ptr(cshm_last_message()) };
        assert_eq!(message, c"candleshm has a fault, please report it: no way");
        assert_eq!(answer(|| Ok(7)), 7);
        // SAFETY: as above.
        assert_eq!(unsafe { CStr::from_ptr(cshm_last_message()) }, c"");
    }

    #[test]
    fn messages_are_one_line_of_c() {
        let code: i32 = answer(|| Err(argument("two\nlines and a \0")));
        assert_eq!(code, -10);
        // SAFETY: the message stays until the next failure of this thread.
        assert_eq!(unsafe { CStr::from_ptr(cshm_last_message()) }, c"two lines and a  ");
    }

    #[test]
    fn memory_that_cannot_be_is_refused() {
        let mut value = 0_u64;
        let odd = std::ptr::from_mut(&mut value).wrapping_byte_add(1);
        // SAFETY: what is refused is never looked at.
        unsafe {
            assert!(put(std::ptr::null_mut(), 1_u64, "value").is_err());
            assert!(put(odd, 1, "value").is_err());
            assert!(memory(&raw mut value, usize::MAX / 8, "value").is_err());
            assert!(put(&raw mut value, 1, "value").is_ok());
        }
        assert_eq!(value, 1);
    }
}
