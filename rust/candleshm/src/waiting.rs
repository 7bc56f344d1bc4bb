//! The loop of every wait: take what is announced, look, and only then sleep until something newer is announced.

use std::ops::ControlFlow;

use crate::announce;
use crate::sync::AtomicU64;

/// The number that a word of the header had when a waiter took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen(u32);

impl Seen {
    /// Takes the number. Rows that are read afterwards are at least as new.
    #[inline]
    #[must_use]
    pub fn of(word: &AtomicU64) -> Self {
        Self(announce::load(word) as u32)
    }

    /// A number that was taken before.
    #[must_use]
    pub fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number, which a sleeper compares with the low half of the word.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

/// Returns what `look` finds. `take` takes what is announced before each look; `sleep` is given that, and what the look
/// found wanting. So whatever is published after a look in vain ends the sleep at once. What was taken for a sleep stays
/// until the look after it is over, and is given to the next sleep.
///
/// # Errors
///
/// What the three return.
pub fn until<N, T, W, E>(
    mut take: impl FnMut() -> Result<N, E>,
    mut look: impl FnMut(&N) -> Result<ControlFlow<T, W>, E>,
    mut sleep: impl FnMut(&N, W, Option<N>) -> Result<(), E>,
) -> Result<T, E> {
    let mut slept = None;
    loop {
        let news = take()?;
        match look(&news)? {
            ControlFlow::Break(found) => return Ok(found),
            ControlFlow::Continue(wanting) => {
                sleep(&news, wanting, slept.take())?;
                slept = Some(news);
            }
        }
    }
}
