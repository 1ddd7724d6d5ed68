//! What is left to do when somebody ends the command: files that are being written go.

use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// From now on, these signals remove what is unfinished before they end the process as they always do.
pub(crate) fn watch() {
    // A signal that was ignored when the process began, as those of background jobs are, stays ignored.
    let wanted: Vec<i32> = [SIGINT, SIGTERM].into_iter().filter(|&signal| !is_ignored(signal)).collect();
    // Without it, what a signal leaves behind stays; that is no reason not to begin.
    let Ok(mut signals) = Signals::new(wanted) else { return };
    thread::spawn(move || {
        for signal in &mut signals {
            etx::serializer::file::remove_unfinished();
            let _ = emulate_default_handler(signal);
        }
    });
}

/// Whether the process ignores a signal, as far as the system tells.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    u32::try_from(signal - 1).ok().and_then(|bit| mask.checked_shr(bit)).is_some_and(|bits| bits & 1 == 1)
}
