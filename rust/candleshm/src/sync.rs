//! The one door to atomics: the standard ones normally, loom's under `cfg(loom)`.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// Copies words that a writer may be changing: each word is whole, the words together may be torn.
///
/// Relaxed loads, one by one: the portable form, and the one that loom judges. Whoever calls it checks afterwards,
/// behind an acquire fence, that nothing moved. On x86-64 `segment.rs` holds a faster twin for long runs.
#[inline]
pub fn copy_words(source: &[AtomicU64], target: &mut [f64]) {
    for (to, from) in target.iter_mut().zip(source) {
        *to = f64::from_bits(from.load(Ordering::Relaxed));
    }
}
