//! How much a method may take: bytes that are alive at a time, instructions of one call.
//!
//! A file of some kilobytes can ask for terabytes, and for more instructions than there will ever be time for. What is
//! allowed follows from what was given: a constant, and a multiple of the size of the file and of the inputs. Honest
//! programs stay far below; whoever has one that does not raises the limits ([`Limits`]).
//!
//! The account of a call belongs to the thread that runs it: tensors, which are made deep inside of kernels, need no handle.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Bytes that every method may have, whatever the size of its file.
const MEMORY: u64 = 1 << 30;
/// Bytes for each byte of the file and of the inputs.
const MEMORY_A_BYTE: u64 = 16;
/// Instructions that every call may take.
const STEPS: u64 = 100_000;
/// How often a call may run each of its instructions, beyond once for each element of its inputs: loops over what is in the file.
const STEPS_AN_INSTRUCTION: u64 = 1024;

/// The limits of a method; what is not set follows from the sizes of file and inputs.
///
/// By default tensors that are alive at a time, state included, may take 1 GiB and 16 bytes for each byte of the file and
/// of the inputs; weights, which stay in the file, do not count. A call may take 100 000 instructions, and each
/// instruction of the method 1024 times, and once more for each element of the inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes alive at a time.
    pub memory: Option<u64>,
    /// Instructions of one call.
    pub steps: Option<u64>,
}

/// What a method has used of its limits.
#[derive(Debug)]
pub(crate) struct Account {
    limits: Limits,
    /// Bytes for every call of the file.
    memory_base: u64,
    instructions: AtomicU64,
    memory: AtomicU64,
    alive: AtomicU64,
    steps_left: AtomicU64,
}

impl Account {
    /// For a method of a file of so many bytes, with so many instructions.
    pub(crate) fn new(limits: Limits, file: u64, instructions: u64) -> Arc<Self> {
        let memory_base = MEMORY.saturating_add(file.saturating_mul(MEMORY_A_BYTE));
        let account = Account {
            limits,
            memory_base,
            instructions: AtomicU64::new(instructions),
            memory: AtomicU64::new(0),
            alive: AtomicU64::new(0),
            steps_left: AtomicU64::new(0),
        };
        account.begin(0, 0);
        Arc::new(account)
    }

    /// The method has so many instructions more than was known.
    pub(crate) fn has(&self, instructions: u64) {
        self.instructions.fetch_add(instructions, Ordering::Relaxed);
    }

    /// A call begins, with inputs of so many bytes and elements.
    pub(crate) fn begin(&self, bytes: u64, elements: u64) {
        let memory = self.memory_base.saturating_add(bytes.saturating_mul(MEMORY_A_BYTE));
        let steps =
            STEPS.saturating_add(self.instructions.load(Ordering::Relaxed).saturating_mul(STEPS_AN_INSTRUCTION.saturating_add(elements)));
        self.memory.store(self.limits.memory.unwrap_or(memory), Ordering::Relaxed);
        self.steps_left.store(self.limits.steps.unwrap_or(steps), Ordering::Relaxed);
    }

    /// Runs `f` on this account.
    pub(crate) fn enter<R>(self: &Arc<Self>, f: impl FnOnce() -> R) -> R {
        let _back = Back(CURRENT.replace(Some(Arc::clone(self))));
        f()
    }

    /// How many elements a portable kernel may still make, at 32 bytes each: it computes with wide numbers, and copies.
    pub(crate) fn elements_left(&self) -> u64 {
        self.memory.load(Ordering::Relaxed).saturating_sub(self.alive.load(Ordering::Relaxed)) / 32
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Account>>> = const { RefCell::new(None) };
}

/// Puts the account back that was there before.
struct Back(Option<Arc<Account>>);

impl Drop for Back {
    fn drop(&mut self) {
        CURRENT.replace(self.0.take());
    }
}

/// The account of the call that this thread runs.
pub(crate) fn current() -> Option<Arc<Account>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Counts steps of the call that this thread runs.
pub(crate) fn step(count: u64) -> Result<()> {
    CURRENT.with_borrow(|current| {
        let Some(account) = current else { return Ok(()) };
        let left = account.steps_left.load(Ordering::Relaxed);
        if left < count {
            return Err(Error::limit(
                "the call takes more instructions than it may: it does not end, or needs a higher limit (--max-steps of the command)",
            ));
        }
        account.steps_left.store(left - count, Ordering::Relaxed);
        Ok(())
    })
}

/// Bytes of an account, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Option<Arc<Account>>,
    bytes: AtomicU64,
}

impl Charge {
    /// Takes the bytes from the account of the call that this thread runs; if there is none, nothing is counted.
    pub(crate) fn take(bytes: u64) -> Result<Self> {
        let account = current();
        if let Some(account) = &account {
            let most = account.memory.load(Ordering::Relaxed);
            let before = account.alive.fetch_add(bytes, Ordering::Relaxed);
            if before.checked_add(bytes).is_none_or(|all| all > most) {
                account.alive.fetch_sub(bytes, Ordering::Relaxed);
                return Err(Error::limit(format!(
                    "{bytes} bytes more than the {before} that are in use are over the limit of {most}, which follows from the sizes of \
                     file and inputs; raise it if this is meant (--max-memory of the command)"
                )));
            }
        }
        Ok(Charge { account, bytes: AtomicU64::new(bytes) })
    }

    /// Gives the bytes back before their end: they belong to the caller now.
    pub(crate) fn release(&self) {
        let bytes = self.bytes.swap(0, Ordering::Relaxed);
        if let Some(account) = &self.account {
            account.alive.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_more_than_there_are_are_refused() {
        let account = Account::new(Limits { memory: Some(100), steps: Some(3) }, 0, 0);
        account.enter(|| {
            let first = Charge::take(60).unwrap();
            assert!(Charge::take(41).unwrap_err().to_string().contains("limit of 100"));
            first.release();
            let second = Charge::take(90).unwrap();
            drop(first);
            assert_eq!(account.alive.load(Ordering::Relaxed), 90);
            drop(second);
            assert_eq!(account.alive.load(Ordering::Relaxed), 0);
            assert!(Charge::take(u64::MAX).is_err());
            assert!(step(2).is_ok() && step(2).is_err() && step(1).is_ok());
        });
        assert!(Charge::take(1000).is_ok() && step(1000).is_ok(), "nothing counts outside of a call");
    }

    #[test]
    fn limits_follow_from_file_and_inputs() {
        let account = Account::new(Limits::default(), 2 << 30, 10);
        account.begin(1 << 20, 100);
        assert_eq!(account.memory.load(Ordering::Relaxed), (1 << 30) + 16 * ((2 << 30) + (1 << 20)));
        assert_eq!(account.steps_left.load(Ordering::Relaxed), 100_000 + 10 * 1124);
    }
}
