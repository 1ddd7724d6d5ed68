//! The threads that kernels share: rayon's global pool.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::Yield;

use crate::error::{Error, Result};

/// How many threads kernels use, in the whole process [default: as many as there are cores]. Only before the first call.
///
/// # Errors
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when kernels have run already, or the system gives no threads.
pub fn set_threads(count: usize) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build_global();
    pool.map_err(|e| Error::unsupported(format!("cannot compute on {count} threads: {e}")))
}

/// So often a thread looks for work in vain before it sleeps after all: some milliseconds.
const PATIENCE: usize = 10_000;

/// A flag that is up for as long as this lives.
struct Up<'a>(&'a AtomicBool);

impl<'a> Up<'a> {
    /// Raises the flag, unless it is up.
    fn raise(flag: &'a AtomicBool) -> Option<Self> {
        (!flag.swap(true, Ordering::AcqRel)).then_some(Up(flag))
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Runs `work` on a thread of the pool and keeps the others awake meanwhile: a token of a language model is hundreds of
/// short kernels, and to wake a sleeping thread takes as long as one of them.
///
/// One call at a time in the process; another one that comes meanwhile runs as it is.
pub(super) fn awake<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    static HELD: AtomicBool = AtomicBool::new(false);
    let Some(_held) = Up::raise(&HELD) else { return work() };
    let busy = AtomicBool::new(false);
    rayon::scope(|scope| {
        // Down again when the work is done, and when it panics.
        let _up = Up::raise(&busy);
        for _ in 1..rayon::current_num_threads() {
            scope.spawn(|_| {
                let mut idle = 0;
                while busy.load(Ordering::Acquire) && idle < PATIENCE {
                    match rayon::yield_now() {
                        Some(Yield::Executed) => idle = 0,
                        _ => {
                            idle += 1;
                            // Who has something to do goes first.
                            std::thread::yield_now();
                        }
                    }
                }
            });
        }
        work()
    })
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    #[test]
    fn work_within_work_and_beside_it_ends() {
        let sum = || (0..1000u64).into_par_iter().sum::<u64>();
        let all = awake(|| (sum(), awake(sum), std::thread::scope(|s| s.spawn(|| awake(sum)).join().unwrap())));
        assert_eq!(all, (499_500, 499_500, 499_500));
    }

    #[test]
    fn a_panic_passes_through_and_lets_the_threads_go() {
        let caught = std::panic::catch_unwind(|| awake(|| -> u64 { panic!("as told") }));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"as told"));
        assert_eq!(awake(|| (0..10u64).into_par_iter().sum::<u64>()), 45);
    }
}
