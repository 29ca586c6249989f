//! Memory of the CPU device: zeroed, aligned to a cache line, never touched until it is written.
//!
//! Weights come out of an [`Arena`] on huge pages: address translation costs a quarter of the memory bandwidth otherwise,
//! and tensors one after another leave no small pages at their ends.
//!
//! What belongs here: allocation and the typed views on it. What does not: what the elements mean.

use crate::{Error, Result};
use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    marker::PhantomData,
    ops::{Deref, DerefMut, Range},
    ptr::NonNull,
    sync::{Arc, Weak},
};

/// Alignment of the first element: one cache line, one AVX-512 register.
const ALIGN: usize = 64;
/// What the system's `calloc` aligns to. A larger alignment would make the allocator clear the memory itself, which
/// touches every page.
const CALLOC_ALIGN: usize = 16;

/// Element types for which all zero bits are a value.
///
/// # Safety
/// Every bit pattern is valid, there is no padding and no drop glue, and the alignment is at most 64.
pub(crate) unsafe trait Plain: Copy + Send + Sync + 'static {}
// SAFETY: plain numbers.
unsafe impl Plain for f32 {}
// SAFETY: plain numbers.
unsafe impl Plain for i32 {}
// SAFETY: plain numbers.
unsafe impl Plain for u16 {}
// SAFETY: plain numbers.
unsafe impl Plain for i8 {}
// SAFETY: plain numbers.
unsafe impl Plain for u8 {}

/// A fixed number of elements that start as zero.
pub(crate) struct Memory<T: Plain> {
    base: NonNull<u8>,
    layout: Layout,
    first: NonNull<T>,
    len: usize,
}

// SAFETY: owns its memory; elements are plain numbers.
unsafe impl<T: Plain> Send for Memory<T> {}
// SAFETY: shared access is only through `&[T]`.
unsafe impl<T: Plain> Sync for Memory<T> {}

impl<T: Plain> Memory<T> {
    /// `len` zeros. `what` names them in the error.
    pub(crate) fn zeroed(len: usize, what: &str) -> Result<Self> {
        let refused = |bytes| Error::OutOfMemory { device: "cpu", bytes, what: what.to_owned() };
        let bytes = len.checked_mul(size_of::<T>()).and_then(|b| b.checked_add(ALIGN));
        let bytes = bytes.ok_or_else(|| refused(usize::MAX))?;
        let layout = Layout::from_size_align(bytes, CALLOC_ALIGN).map_err(|_| refused(bytes))?;
        // SAFETY: the size is at least ALIGN, so not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(|| refused(bytes))?;
        let skip = base.as_ptr().align_offset(ALIGN).min(ALIGN);
        // SAFETY: skip <= ALIGN and `bytes` counts ALIGN spare bytes, so all `len` elements lie inside.
        let first = unsafe { base.add(skip) }.cast();
        Ok(Self { base, layout, first, len })
    }
}

/// A page that is worth asking for.
pub(crate) const HUGE_PAGE: usize = 2 << 20;
/// Bytes of address space that an arena takes at once; what is not used of it is never touched.
const SLAB: usize = 256 << 20;

/// Hands out memory for weights from few large allocations. Each is freed with the last part of it.
#[derive(Default)]
pub(crate) struct Arena {
    slab: Weak<Memory<u8>>,
    /// Bytes of the slab that are handed out.
    used: usize,
    /// Bytes of it that were written or asked for before: whole huge pages.
    present: usize,
}

/// Bytes of an arena, zero at first, aligned to a cache line.
pub(crate) struct Part {
    first: NonNull<u8>,
    len: usize,
    /// Where huge pages begin that nobody touched before, relative to `first`.
    untouched: usize,
    slab: Arc<Memory<u8>>,
}

// SAFETY: a part is the only way to its bytes, which the slab keeps alive.
unsafe impl Send for Part {}
// SAFETY: shared access is only through `&[u8]`.
unsafe impl Sync for Part {}

impl Arena {
    /// `len` zeros. `what` names them in the error.
    pub(crate) fn take(&mut self, len: usize, what: &str) -> Result<Part> {
        let slab = match self.slab.upgrade().filter(|slab| slab.len() - self.used >= len) {
            Some(slab) => slab,
            None => {
                let slab = match new_slab(len.max(SLAB), what) {
                    Err(_) if len < SLAB => new_slab(len, what)?,
                    slab => slab?,
                };
                let slab = Arc::new(slab);
                (self.slab, self.used, self.present) = (Arc::downgrade(&slab), 0, 0);
                slab
            }
        };
        // SAFETY: `used + len` is at most the slab's length.
        let first = unsafe { slab.first.add(self.used) };
        let untouched = self.present.saturating_sub(self.used).min(len);
        self.used = (self.used + len).next_multiple_of(ALIGN).min(slab.len());
        self.present = self.present.max(self.used.next_multiple_of(HUGE_PAGE));
        Ok(Part { first, len, untouched, slab })
    }
}

/// At least `len` bytes from the beginning of a huge page on.
fn new_slab(len: usize, what: &str) -> Result<Memory<u8>> {
    let mut slab = Memory::<u8>::zeroed(len.saturating_add(HUGE_PAGE), what)?;
    let skip = slab.as_ptr().align_offset(HUGE_PAGE).min(HUGE_PAGE);
    // SAFETY: HUGE_PAGE spare bytes were asked for.
    slab.first = unsafe { slab.first.add(skip) };
    slab.len = len;
    #[cfg(target_os = "linux")]
    if len >= HUGE_PAGE {
        // SAFETY: whole pages inside our own allocation; the advice changes no contents and may fail freely.
        unsafe { libc::madvise(slab.first.as_ptr().cast(), len & !4095, libc::MADV_HUGEPAGE) };
    }
    Ok(slab)
}

/// Huge pages of a part that nobody touched before.
#[derive(Clone, Copy)]
pub(crate) struct Untouched {
    /// Where the first of them begins in the part.
    pub(crate) start: usize,
    /// How many there are.
    pub(crate) count: usize,
    /// Addresses of the first and of the slab's end.
    addresses: (usize, usize),
}

impl Part {
    /// Each of these pages is best touched first by one thread alone: two that meet a missing page both clear one.
    pub(crate) fn untouched(&self) -> Untouched {
        let slab_end = self.slab.first.as_ptr() as usize + self.slab.len;
        Untouched {
            start: self.untouched,
            count: (self.len - self.untouched).div_ceil(HUGE_PAGE),
            addresses: (self.first.as_ptr() as usize + self.untouched, slab_end),
        }
    }
}

impl Untouched {
    /// Makes page `page` present. Advice: where the system does not take it, the first write does that.
    pub(crate) fn touch(&self, page: usize) {
        #[cfg(target_os = "linux")]
        if page < self.count {
            const MADV_POPULATE_WRITE: libc::c_int = 23; // since Linux 5.14
            let first = self.addresses.0 + page * HUGE_PAGE;
            let len = HUGE_PAGE.min(self.addresses.1 - first) & !4095;
            // SAFETY: present pages keep their contents, whosever they are.
            unsafe { libc::madvise(first as *mut _, len, MADV_POPULATE_WRITE) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (page, self.addresses);
    }
}

impl Deref for Part {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: inside the slab, handed out once, initialized.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl DerefMut for Part {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and self is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }
}

impl<T: Plain> Drop for Memory<T> {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout and not freed before.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

impl<T: Plain> Deref for Memory<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements are initialized (zero at first) and owned by self.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for Memory<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and self is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }
}

/// Memory that an operation keeps between calls and that only grows; what it holds is left over from before.
pub(crate) struct Scratch<T: Plain> {
    memory: Option<Memory<T>>,
}

impl<T: Plain> Default for Scratch<T> {
    fn default() -> Self {
        Self { memory: None }
    }
}

impl<T: Plain> Scratch<T> {
    /// The first `len` elements, of unspecified value.
    pub(crate) fn take(&mut self, len: usize) -> Result<&mut [T]> {
        if self.memory.as_ref().is_none_or(|m| m.len() < len) {
            self.memory = None;
            self.memory = Some(Memory::zeroed(len, "scratch")?);
        }
        match &mut self.memory {
            Some(memory) => Ok(&mut memory[..len]),
            None => Ok(&mut []),
        }
    }
}

/// The memory of floats, to be used as bytes.
pub(crate) fn as_bytes(floats: &mut [f32]) -> &mut [u8] {
    // SAFETY: every bit pattern is a byte and a float; bytes need no alignment.
    unsafe { floats.align_to_mut().1 }
}

/// A slice that several threads write at once, each its own part.
pub(crate) struct SharedMut<'a, T> {
    first: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

impl<T> Clone for SharedMut<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for SharedMut<'_, T> {}

// SAFETY: it is only a pointer; whoever makes references from it promises that they are disjoint.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { first: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    /// A part of it, still shared; panics when it lies outside.
    pub(crate) fn part(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "range outside the shared slice");
        // SAFETY: inside the slice by the assertion.
        Self { first: unsafe { self.first.add(range.start) }, len: range.len(), borrow: PhantomData }
    }

    /// Part of the slice; panics when it lies outside.
    ///
    /// # Safety
    /// No other reference to any element of `range` lives at the same time.
    pub(crate) unsafe fn range(self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "range outside the shared slice");
        // SAFETY: inside the slice by the assertion; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_and_aligned() {
        for len in [0, 1, 15, 4097] {
            let mut memory = Memory::<f32>::zeroed(len, "test").unwrap();
            assert_eq!(memory.as_ptr().align_offset(ALIGN), 0);
            assert!(memory.len() == len && memory.iter().all(|v| *v == 0.0));
            memory.fill(1.0);
        }
    }

    #[test]
    fn impossible_sizes_are_errors() {
        assert!(matches!(Memory::<f32>::zeroed(usize::MAX, "x"), Err(Error::OutOfMemory { .. })));
        assert!(matches!(Memory::<f32>::zeroed(isize::MAX as usize / 4, "x"), Err(Error::OutOfMemory { .. })));
    }

    #[test]
    fn parts_of_an_arena() {
        let mut arena = Arena::default();
        let sizes = [10, 3 * HUGE_PAGE + 5, 64, HUGE_PAGE, SLAB, 0, 7];
        let mut parts: Vec<Part> = sizes.iter().map(|len| arena.take(*len, "test").unwrap()).collect();
        let untouched: Vec<usize> = parts.iter().map(|part| part.untouched().count).collect();
        assert_eq!(untouched, [1, 3, 0, 1, SLAB / HUGE_PAGE, 0, 1]);
        for (i, part) in parts.iter_mut().enumerate() {
            if i != 4 {
                (0..=part.untouched().count).for_each(|page| part.untouched().touch(page));
                assert_eq!(part.as_ptr().align_offset(ALIGN), 0);
                assert!(part.iter().all(|byte| *byte == 0));
                part.fill(i as u8 + 1);
            }
        }
        for (i, part) in parts.iter().enumerate().filter(|(i, _)| *i != 4) {
            assert!(part.iter().all(|byte| *byte == i as u8 + 1), "{i}");
        }
        drop(parts);
        assert!(arena.slab.upgrade().is_none(), "freed with its last part");
        assert!(matches!(arena.take(usize::MAX / 2, "x"), Err(Error::OutOfMemory { .. })));
    }

    #[test]
    fn scratch_only_grows() {
        let mut scratch = Scratch::<f32>::default();
        assert_eq!(scratch.take(0).unwrap().len(), 0);
        let first = scratch.take(100).unwrap().as_ptr();
        assert_eq!(scratch.take(10).unwrap().as_ptr(), first);
    }
}
