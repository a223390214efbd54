//! How much of the processors a thread gets while bids want them.
//!
//! A thread that is merely nice still keeps a core for a slice of some milliseconds when a bid arrives on it. One of the
//! kernel's idle class leaves at once, and is given next to nothing where nothing is idle: a version that must be rolled back
//! while the machine is saturated could wait for an hour. So what bids must not wait for runs in that class where there is
//! something idle when it begins, and is nice otherwise.
//!
//! `unsafe` is needed because a thread's scheduling class has no safe form.

#![allow(unsafe_code)]

use std::hint::black_box;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The niceness of threads that answer: below bids, but a probe of a saturated bidder is still heard in time.
pub(crate) const ANSWERING: i32 = 2;
/// The niceness of the thread that takes updates of people.
pub(crate) const TAKING: i32 = 5;
/// The niceness of decoding, building and verifying where nothing is idle; bid threads and the storage thread have 0.
pub(crate) const WORKING: i32 = 10;
/// The niceness of what nobody waits for, where there is no idle class.
const HOUSEKEEPING: i32 = 19;

/// How long a little work of the idle class may take where something is idle.
const PATIENCE: Duration = Duration::from_millis(100);
/// That work: about a millisecond.
const SOME_WORK: u32 = 1 << 20;

/// Lowers the calling thread's priority. On Linux niceness belongs to the thread, and its children inherit it; hence a fixed
/// value, where a step would add up from parent to child.
pub(crate) fn lower(nice: i32) {
    let lowered = rustix::process::getpriority_process(None)
        .and_then(|now| rustix::process::setpriority_process(None, now.max(nice)));
    if let Err(error) = lowered {
        tracing::warn!(%error, "admin threads run at the same priority as bid threads");
    }
}

/// For the calling thread, which is about to do much, and those it starts: they get what is idle, or where nothing is, little.
/// There is no way back: for threads that end with the work.
pub(crate) fn give_way() {
    lower(WORKING);
    if is_something_idle()
        && let Err(error) = become_idle()
    {
        tracing::warn!(%error, "what builds and verifies versions may keep bids waiting for milliseconds");
    }
}

/// For the calling thread, whose work nobody waits for: it gets what is idle.
pub(crate) fn stand_back() {
    lower(HOUSEKEEPING);
    if let Err(error) = become_idle() {
        tracing::warn!(%error, "housekeeping may keep bids waiting for milliseconds");
    }
}

/// Whether a thread of the idle class gets to do anything.
fn is_something_idle() -> bool {
    let (done, when_done) = mpsc::channel();
    let probe = thread::Builder::new().name("kith-probe".to_owned());
    let probing = probe.spawn(move || {
        if become_idle().is_ok() {
            for step in 0..SOME_WORK {
                black_box(step);
            }
            // Whoever asked may have given up.
            let _ = done.send(());
        }
    });
    probing.is_ok() && when_done.recv_timeout(PATIENCE).is_ok()
}

fn become_idle() -> io::Result<()> {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads one `sched_param` at the address, and changes the standing of the calling thread (0) alone.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class() -> i32 {
        // SAFETY: it takes no memory; 0 is the calling thread.
        unsafe { libc::sched_getscheduler(0) }
    }

    fn nice() -> i32 {
        rustix::process::getpriority_process(None).expect("known")
    }

    #[test]
    fn niceness_is_of_the_thread_and_does_not_add_up() {
        let before = nice();
        let lowered = thread::spawn(|| {
            lower(WORKING);
            let child = thread::spawn(|| {
                lower(WORKING);
                nice()
            });
            (nice(), child.join().expect("no panic"))
        });
        let expected = before.max(WORKING);
        assert_eq!(lowered.join().expect("no panic"), (expected, expected));
        assert_eq!(nice(), before, "the caller's stays");
    }

    #[test]
    fn what_gives_way_is_of_the_idle_class_and_so_are_its_children() {
        let before = class();
        let gave_way = thread::spawn(|| {
            become_idle().expect("anybody may");
            let child = thread::spawn(class);
            (class(), child.join().expect("no panic"))
        });
        let idle = libc::SCHED_IDLE;
        assert_eq!(gave_way.join().expect("no panic"), (idle, idle));
        assert_eq!(class(), before, "the caller's stays");
        // Whichever it is, it is nice.
        let gave_way = thread::spawn(|| {
            give_way();
            nice()
        });
        assert!(gave_way.join().expect("no panic") >= WORKING);
    }
}
