//! A list that grows on the stack and moves into the arena once, at its exact size: nearly all lists of a request are short.

use arrayvec::ArrayVec;
use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;

/// Elements kept on the stack.
const FEW: usize = 16;

pub(super) struct List<'a, T> {
    few: ArrayVec<T, FEW>,
    /// All before `few`, once they were too many.
    before: ArenaVec<'a, T>,
}

impl<'a, T: Copy> List<'a, T> {
    pub(super) fn new_in(arena: &'a Bump) -> Self {
        Self {
            few: ArrayVec::new(),
            before: ArenaVec::new_in(arena),
        }
    }

    #[inline]
    pub(super) fn push(&mut self, element: T) {
        if self.few.is_full() {
            self.before.extend_from_slice_copy(&self.few);
            self.few.clear();
        }
        self.few.push(element);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.few.is_empty()
    }

    #[inline(always)]
    pub(super) fn slice(&mut self) -> &'a [T] {
        if self.before.is_empty() {
            return self.before.bump().alloc_slice_copy(&self.few);
        }
        self.before.extend_from_slice_copy(&self.few);
        let bump = self.before.bump();
        std::mem::replace(&mut self.before, ArenaVec::new_in(bump)).into_bump_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_or_short_it_holds_what_was_pushed() {
        for length in [0, 1, FEW - 1, FEW, FEW + 1, 2 * FEW, 2 * FEW + 1, 100] {
            let arena = Bump::new();
            let mut list = List::new_in(&arena);
            assert!(list.is_empty());
            for n in 0..length {
                list.push(n);
                assert!(!list.is_empty());
            }
            assert!(list.slice().iter().copied().eq(0..length));
        }
    }
}
