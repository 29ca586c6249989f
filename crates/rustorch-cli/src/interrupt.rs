//! Signals of the whole program (specification S6): Ctrl-C, SIGTERM, SIGHUP. `main` calls [`watch`] once, before it loads.
//!
//! A thread waits for signals and does three things: it counts presses of Ctrl-C, it cancels the request in progress, and
//! it remembers a wish to terminate. What follows is decided by the code that asks. While the line editor reads, the
//! terminal is in raw mode and Ctrl-C arrives there as a key; a wish to terminate wakes the editor with a SIGINT, which
//! it takes for Ctrl-C, and the REPL then looks here.

use std::sync::{
    Mutex, MutexGuard, Once, PoisonError,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

static PRESSES: AtomicU32 = AtomicU32::new(0);
static TERMINATE: AtomicBool = AtomicBool::new(false);
static ON_SIGNAL: Mutex<Option<engine::Canceller>> = Mutex::new(None);
static WATCH: Once = Once::new();

/// Starts to watch; later calls do nothing. A program that cannot watch still works: signals then end it as usual.
pub(crate) fn watch() {
    WATCH.call_once(|| {
        if let Err(error) = start() {
            tracing::warn!("signals cannot be watched: {error}");
        }
    });
}

#[cfg(unix)]
fn start() -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if signal == SIGINT {
                press();
            } else {
                TERMINATE.store(true, Ordering::SeqCst);
                cancel();
                // The editor may only just be starting to read, so it is woken until the program is gone.
                std::thread::spawn(|| {
                    loop {
                        let _ = signal_hook::low_level::raise(SIGINT);
                        std::thread::sleep(std::time::Duration::from_millis(100));
                    }
                });
            }
        }
    })?;
    Ok(())
}

#[cfg(not(unix))]
fn start() -> std::io::Result<()> {
    ctrlc::set_handler(press).map_err(std::io::Error::other)
}

fn press() {
    if !terminated() {
        PRESSES.fetch_add(1, Ordering::SeqCst);
        cancel();
    }
}

fn cancel() {
    if let Some(canceller) = armed().as_ref() {
        canceller.cancel();
    }
}

fn armed() -> MutexGuard<'static, Option<engine::Canceller>> {
    ON_SIGNAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Presses of Ctrl-C since the last [`reset`].
pub(crate) fn presses() -> u32 {
    PRESSES.load(Ordering::SeqCst)
}

/// Forgets presses: something new begins.
pub(crate) fn reset() {
    PRESSES.store(0, Ordering::SeqCst);
}

/// Whether SIGTERM or SIGHUP asked the program to end.
pub(crate) fn terminated() -> bool {
    TERMINATE.load(Ordering::SeqCst)
}

/// Whether what is going on should stop: Ctrl-C was pressed or the program is to end.
pub(crate) fn wanted() -> bool {
    presses() > 0 || terminated()
}

/// As long as it lives, a signal cancels the request.
pub(crate) struct Armed(());

/// Lets signals cancel a request.
pub(crate) fn arm(canceller: engine::Canceller) -> Armed {
    // A press just before counts too.
    if wanted() {
        canceller.cancel();
    }
    *armed() = Some(canceller);
    Armed(())
}

impl Drop for Armed {
    fn drop(&mut self) {
        *armed() = None;
    }
}
