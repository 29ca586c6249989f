//! The worker threads: parallel regions over dynamically handed out chunks.
//!
//! A region is one `Fn(chunk, thread)`. Workers wait for it spinning for some microseconds, then parked; a worker that
//! comes late finds the region closed and is not waited for, so a thread that the system has put aside for a neighbour
//! costs its share of the work and not a stall. Which thread runs a chunk never changes what the chunk computes.
//!
//! Each thread begins with chunks that follow one another, so that what it reads ahead is its own; who has none left takes
//! half of what another still has (Blumofe & Leiserson 1999 call that stealing).
//!
//! What belongs here: threads, waiting, handing out, panics. What does not: what a chunk does.

use std::{
    any::Any,
    cell::UnsafeCell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long a thread spins before it gives its core away.
const SPIN: Duration = Duration::from_micros(30);

/// The gate word: region number in the high half, then the open bit, then how many workers are inside.
const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const REGION: u64 = 1 << 32;

/// What a region runs: `(chunk, thread)`.
type Job<'a> = dyn Fn(usize, usize) + Sync + 'a;

struct Shared {
    gate: AtomicU64,
    /// Only read between passing the open gate and leaving it.
    job: UnsafeCell<Option<*const Job<'static>>>,
    /// Chunks that each thread still has.
    left: Vec<Chunks>,
    stop: AtomicBool,
    parked: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
    owner_parked: AtomicBool,
    done: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only while the gate is closed and nobody is inside, and read only inside; everything else
// is atomic or locked. The job itself is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

/// Chunks that a thread still has: the first in the high half, the end in the low one. A chunk is in one such range at a time
/// and in none after it was taken, so a value never comes back during a region and can be exchanged safely.
#[repr(align(64))] // threads write to theirs all the time
#[derive(Default)]
struct Chunks(AtomicU64);

impl Chunks {
    fn unpack(value: u64) -> (u64, u64) {
        (value >> 32, value & u64::from(u32::MAX))
    }

    fn set(&self, first: u64, end: u64) {
        self.0.store(first << 32 | end, Relaxed);
    }

    /// Takes the first chunk.
    fn take(&self) -> Option<u64> {
        let next = |value| {
            let (first, end) = Self::unpack(value);
            (first < end).then_some((first + 1) << 32 | end)
        };
        self.0.fetch_update(Relaxed, Relaxed, next).ok().map(|value| Self::unpack(value).0)
    }

    /// Takes the last half.
    fn steal(&self) -> Option<(u64, u64)> {
        let middle = |(first, end): (u64, u64)| first + (end - first) / 2;
        let rest = |value| {
            let (first, end) = Self::unpack(value);
            (first < end).then(|| first << 32 | middle((first, end)))
        };
        let had = Self::unpack(self.0.fetch_update(Relaxed, Relaxed, rest).ok()?);
        Some((middle(had), had.1))
    }
}

/// A fixed number of threads; the thread that calls [`Pool::run`] is one of them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// `threads - 1` workers. Error: the system gives no thread.
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            left: (0..threads.max(1)).map(|_| Chunks::default()).collect(),
            stop: AtomicBool::new(false),
            parked: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            owner_parked: AtomicBool::new(false),
            done: Condvar::new(),
            panic: Mutex::new(None),
        });
        let mut pool = Self { shared, workers: Vec::new() };
        for thread in 1..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            let name = format!("compute-{thread}");
            pool.workers.push(std::thread::Builder::new().name(name).spawn(move || shared.work(thread))?);
        }
        Ok(pool)
    }

    /// Threads that run chunks, the caller included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(chunk, thread)` once for every chunk and waits. A panic inside a chunk becomes a panic here, after
    /// all threads have left the region.
    pub(crate) fn run(&mut self, chunks: usize, job: &Job<'_>) {
        let n_chunks = u32::try_from(chunks).map_or(0, u64::from);
        if chunks <= 1 || self.workers.is_empty() || n_chunks == 0 {
            (0..chunks).for_each(|chunk| job(chunk, 0));
            return;
        }
        let shared = &*self.shared;
        let job: *const Job<'_> = job;
        // SAFETY: only the lifetime changes; the pointer is cleared before this function returns or unwinds.
        let erased: *const Job<'static> = unsafe { std::mem::transmute(job) };
        let n_threads = shared.left.len() as u64;
        for (thread, left) in (0..).zip(&shared.left) {
            left.set(n_chunks * thread / n_threads, n_chunks * (thread + 1) / n_threads);
        }
        // SAFETY: the gate is closed and nobody is inside (`&mut self`, and the last run waited for that).
        unsafe { *shared.job.get() = Some(erased) };
        let region = (shared.gate.load(Relaxed) & !(REGION - 1)).wrapping_add(REGION);
        shared.gate.store(region | OPEN, SeqCst);
        if shared.parked.load(SeqCst) > 0 {
            drop(shared.locked());
            shared.wake.notify_all();
        }
        // SAFETY: `job` outlives this call.
        shared.chunks(unsafe { &*erased }, 0);
        shared.gate.fetch_and(!OPEN, SeqCst);
        shared.wait_empty();
        // SAFETY: closed and empty.
        unsafe { *shared.job.get() = None };
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        drop(self.shared.locked());
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join(); // jobs' panics are caught, so there is nothing to hear
        }
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs chunks until none are left: the thread's own, then those of the others.
    fn chunks(&self, job: &Job<'_>, thread: usize) {
        let own = &self.left[thread];
        let others = || self.left[thread + 1..].iter().chain(&self.left[..thread]);
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                while let Some(chunk) = own.take() {
                    job(chunk as usize, thread);
                }
                // Nobody else changes a range without chunks, so what was taken may be put there.
                let Some((first, end)) = others().find_map(Chunks::steal) else { break };
                own.set(first, end);
            }
        }));
        if let Err(payload) = result {
            self.left.iter().for_each(|left| left.set(0, 0)); // nobody needs to start another chunk
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
        }
    }

    fn work(&self, thread: usize) {
        let mut seen = 0;
        while let Some(region) = self.enter(seen) {
            seen = region;
            // SAFETY: inside the gate: the job was stored before it opened and stays until we leave.
            if let Some(job) = unsafe { *self.job.get() } {
                // SAFETY: as above.
                self.chunks(unsafe { &*job }, thread);
            }
            let left = self.gate.fetch_sub(1, SeqCst) - 1;
            if left & (OPEN | INSIDE) == 0 && self.owner_parked.load(SeqCst) {
                drop(self.locked());
                self.done.notify_all();
            }
        }
    }

    /// Waits for an open region other than `seen` and enters it. `None`: the pool ends.
    fn enter(&self, seen: u64) -> Option<u64> {
        let try_enter = || {
            let gate = self.gate.load(SeqCst);
            let region = gate & !(REGION - 1);
            (gate & OPEN != 0 && region != seen && self.gate.compare_exchange(gate, gate + 1, SeqCst, Relaxed).is_ok())
                .then_some(region)
        };
        let start = Instant::now();
        loop {
            for _ in 0..16 {
                if let Some(region) = try_enter() {
                    return Some(region);
                }
                std::hint::spin_loop();
            }
            if self.stop.load(SeqCst) {
                return None;
            }
            if start.elapsed() > SPIN {
                break;
            }
        }
        self.parked.fetch_add(1, SeqCst);
        let mut guard = self.locked();
        let entered = loop {
            if self.stop.load(SeqCst) {
                break None;
            }
            // The gate is looked at after `parked` was raised: either we see it open or its opener sees us parked.
            if let Some(region) = try_enter() {
                break Some(region);
            }
            let gate = self.gate.load(SeqCst);
            if gate & OPEN == 0 || gate & !(REGION - 1) == seen {
                guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
        };
        drop(guard);
        self.parked.fetch_sub(1, SeqCst);
        entered
    }

    /// Waits until all workers have left the closed region.
    fn wait_empty(&self) {
        let empty = || self.gate.load(SeqCst) & INSIDE == 0;
        let start = Instant::now();
        while start.elapsed() < SPIN {
            for _ in 0..16 {
                if empty() {
                    return;
                }
                std::hint::spin_loop();
            }
        }
        self.owner_parked.store(true, SeqCst);
        let mut guard = self.locked();
        while !empty() {
            guard = self.done.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        self.owner_parked.store(false, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_runs_once() {
        for threads in 1..=4 {
            let mut pool = Pool::new(threads).unwrap();
            for round in 0..200 {
                let chunks = round % 23;
                let hits: Vec<_> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(chunks, &|chunk, thread| {
                    assert!(thread < threads);
                    hits[chunk].fetch_add(1, Relaxed);
                });
                assert!(hits.iter().all(|h| h.load(Relaxed) == 1));
                if round % 50 == 0 {
                    std::thread::sleep(Duration::from_millis(1)); // let the workers park
                }
            }
        }
    }

    #[test]
    fn panics_arrive_and_the_pool_lives_on() {
        let mut pool = Pool::new(3).unwrap();
        for bad in 0..8 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(8, &|chunk, _| assert!(chunk != bad, "chunk {bad}"));
            }));
            let message = result.unwrap_err();
            assert_eq!(message.downcast_ref::<String>().unwrap(), &format!("chunk {bad}"));
        }
        let count = AtomicUsize::new(0);
        pool.run(100, &|_, _| _ = count.fetch_add(1, Relaxed));
        assert_eq!(count.load(Relaxed), 100);
    }
}
