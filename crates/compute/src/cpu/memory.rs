//! Memory of the CPU device: zeroed, aligned to a cache line, never touched until it is written.
//!
//! What belongs here: allocation and the typed views on it. What does not: what the elements mean.

use crate::{Error, Result};
use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    marker::PhantomData,
    ops::{Deref, DerefMut, Range},
    ptr::NonNull,
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

impl Memory<u8> {
    /// The same on huge pages where the system has them: address translation costs a quarter of the memory bandwidth
    /// otherwise.
    pub(crate) fn zeroed_huge(len: usize, what: &str) -> Result<Self> {
        let memory = Self::zeroed(len, what)?;
        #[cfg(target_os = "linux")]
        {
            const HUGE: usize = 2 << 20;
            let skip = memory.base.as_ptr().align_offset(4096);
            let bytes = memory.layout.size().saturating_sub(skip) & !4095;
            if bytes >= HUGE {
                // SAFETY: whole pages inside our own allocation; the advice changes no contents and may fail freely.
                unsafe { libc::madvise(memory.base.as_ptr().add(skip).cast(), bytes, libc::MADV_HUGEPAGE) };
            }
        }
        Ok(memory)
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
    fn scratch_only_grows() {
        let mut scratch = Scratch::<f32>::default();
        assert_eq!(scratch.take(0).unwrap().len(), 0);
        let first = scratch.take(100).unwrap().as_ptr();
        assert_eq!(scratch.take(10).unwrap().as_ptr(), first);
    }
}
