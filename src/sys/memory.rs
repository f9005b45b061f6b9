//! Memory that the kernel is pointed at: at addresses that do not change, reached through pointers only.

use libc::c_uint;

/// Objects at addresses that do not change, reached through pointers only.
pub(super) struct Fixed<T>(*mut [T]);

impl<T> Fixed<T> {
    pub(super) fn new(items: Vec<T>) -> Self {
        Self(Box::into_raw(items.into_boxed_slice()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn at(&self, index: usize) -> *mut T {
        assert!(index < self.len(), "slot {index} of {}", self.len());
        // SAFETY: the index was checked against the length of this one allocation.
        unsafe { self.0.cast::<T>().add(index) }
    }

    /// The items from `from` on and how many they are, for a call that is to reach no further.
    pub(super) fn run(&self, from: usize, count: usize) -> (*mut T, c_uint) {
        let end = from.checked_add(count);
        assert!(
            end.is_some_and(|end| end <= self.len()),
            "{count} slots from {from} on of {}",
            self.len()
        );
        (self.at(from), length(count))
    }
}

// SAFETY: it owns its items, and nothing else has a pointer to them but other `Fixed` of the same batch, which
// goes from thread to thread as a whole.
unsafe impl<T> Send for Fixed<T> {}

impl<T> Drop for Fixed<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `Box::into_raw` and is given back once.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

pub(super) fn length(value: usize) -> c_uint {
    c_uint::try_from(value).expect("a batch has a few hundred slots at most, a datagram 64 KiB")
}
