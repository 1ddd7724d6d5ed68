//! How much may be made while a program is evaluated or lowered, so that no number in a file can ask for more memory or time
//! than there is.
//!
//! Everything is counted in elements before its memory is asked for: tensors of the evaluator, constants that lowering makes,
//! calls that formulas write, and the work of rules that do much for each element. The budget belongs to the thread for as
//! long as a call of [`within`] lasts: what is made deep inside of rules needs no handle to it. Outside there is none.

use std::cell::Cell;

use crate::error::{Error, ErrorKind};

thread_local! {
    /// Elements that may still be made.
    static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// Elements that one operator may make when nothing else is said: enough for whatever is computed while a program is lowered.
pub const CALL: u64 = 1 << 22;

/// Steps of work, such as products that are added up, that count as one element.
const STEPS: u64 = 16;

/// Puts the budget back that was there before.
struct Restore(u64);

impl Drop for Restore {
    fn drop(&mut self) {
        LEFT.set(self.0);
    }
}

/// Runs `f`, in which at most so many elements may be made, and no more than whoever calls this has left.
pub fn within<R>(elements: u64, f: impl FnOnce() -> R) -> R {
    let before = LEFT.get();
    let _restore = Restore(before);
    LEFT.set(elements.min(before));
    f()
}

#[cold]
fn over(what: &str, n: u64, left: u64) -> Error {
    let help = "if this is meant, a higher limit lets it through (--max-memory of the command)";
    Error::new(ErrorKind::Evaluation, format!("{what}: {n} elements, {left} are left of what may be made")).help(help)
}

/// Fails if so many elements may not be made.
///
/// # Errors
/// [`ErrorKind::Evaluation`] if they are more than are left.
pub fn check(elements: usize) -> Result<(), Error> {
    let (n, left) = (elements as u64, LEFT.get());
    if n > left { Err(over("too large", n, left)) } else { Ok(()) }
}

/// Counts so many elements.
///
/// # Errors
/// [`ErrorKind::Evaluation`] if they are more than are left.
pub fn spend(elements: usize) -> Result<(), Error> {
    check(elements)?;
    LEFT.set(LEFT.get() - elements as u64);
    Ok(())
}

/// Counts work: what is done for each of `outer` things, `inner` times.
///
/// # Errors
/// [`ErrorKind::Evaluation`] if it comes to more elements than are left.
pub fn work(outer: usize, inner: usize) -> Result<(), Error> {
    let n = (outer as u64).saturating_mul(inner as u64) / STEPS;
    let left = LEFT.get();
    if n > left {
        return Err(over("too long a computation", n, left));
    }
    LEFT.set(left - n);
    Ok(())
}
