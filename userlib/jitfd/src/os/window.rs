// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ranges of addresses in which a region may lie, and where in such a range
//! there is room. Pure: the list of mappings comes as text.

use std::ops::Range;

/// How far a signed 32-bit displacement reaches, in bytes.
const REACH: usize = 1 << 31;
/// What the displacement is counted from can lie this far behind the
/// instruction's first byte, and the operand can be this wide.
const SLACK: usize = 4096;
/// The lowest address used, well above `vm.mmap_min_addr`.
const LOWEST: usize = 1 << 20;
/// The end of the addresses that a program gets without asking for more.
const HIGHEST: usize = (1 << 47) - 4096;
/// Kept free below the stack and above the heap, which both grow.
const GROWTH: usize = 128 << 20;

/// A range of addresses in which a region must lie, and the address in it that
/// it should be close to.
///
/// ```
/// use jitfd::Window;
///
/// let window = Window::reaching(0x5555_0000_0000);
/// assert!(window.contains(0x5555_1000_0000, 4096));
/// assert!(!window.contains(0x5556_0000_0000, 4096));
/// // The program's own code, from its first byte to its last.
/// let program = Window::reaching_all(0x5555_4000_0000, 0x5555_4100_0000);
/// // Both reach: less than either.
/// assert!(!window.and(program).contains(0x5554_c000_0000, 4096));
/// assert!(window.contains(0x5554_c000_0000, 4096));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    low: usize,
    high: usize,
    close_to: usize,
    /// A place in it that was free a moment ago, for what is mapped next.
    seen: Option<usize>,
}

/// What there is room for in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// In bytes, whole pages.
    pub(crate) len: usize,
    pub(crate) at: usize,
}

impl Window {
    /// Every place from which `address` can be reached by a 32-bit displacement,
    /// and which can be reached from `address`.
    #[must_use]
    pub const fn reaching(address: usize) -> Self {
        Self::reaching_all(address, address)
    }

    /// The same for every address from `first` to `last`, whichever is lower.
    /// Nothing fits into it if those are more than 2 GiB apart.
    #[must_use]
    pub const fn reaching_all(first: usize, last: usize) -> Self {
        let (lowest, highest) = if first < last {
            (first, last)
        } else {
            (last, first)
        };
        let low = highest.saturating_sub(REACH - SLACK);
        let high = lowest.saturating_add(REACH - SLACK);
        Self {
            low: if low < LOWEST { LOWEST } else { low },
            high: if high > HIGHEST { HIGHEST } else { high },
            close_to: first,
            seen: None,
        }
    }

    /// What lies in both windows; close to what `self` is close to.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            low: if self.low > other.low {
                self.low
            } else {
                other.low
            },
            high: if self.high < other.high {
                self.high
            } else {
                other.high
            },
            close_to: self.close_to,
            seen: None,
        }
    }

    /// The same, with a place of which [`largest`](Self::largest) has just told.
    pub(crate) const fn seen(self, at: usize) -> Self {
        Self {
            seen: Some(at),
            ..self
        }
    }

    /// That place.
    pub(crate) const fn last_seen(self) -> Option<usize> {
        self.seen
    }

    /// Whether `len` bytes at `address` lie in the window.
    #[must_use]
    pub const fn contains(self, address: usize, len: usize) -> bool {
        match address.checked_add(len) {
            Some(end) => self.low <= address && end <= self.high,
            None => false,
        }
    }

    /// The page-aligned address for `len` bytes, a multiple of the page size, in
    /// a gap between the mappings of `maps`, as `/proc/self/maps` lists them, as
    /// close as can be to where it should be.
    pub(crate) fn find(self, maps: &str, len: usize) -> Option<usize> {
        gaps(maps)
            .filter_map(|gap| self.place_in(&gap, len))
            .min_by_key(|at| at.abs_diff(self.close_to))
    }

    /// Room for `most` bytes, or for the most that there is in one gap and `least` at
    /// least; both are multiples of the page size. `maps` is as in [`find`](Self::find).
    pub(crate) fn largest(self, maps: &str, least: usize, most: usize) -> Option<Room> {
        let inside = |gap: Range<usize>| {
            let low = gap.start.max(self.low).checked_next_multiple_of(PAGE)?;
            let high = gap.end.min(self.high) / PAGE * PAGE;
            high.checked_sub(low)
        };
        let longest = gaps(maps).filter_map(inside).max()?;
        let len = longest.min(most);
        let at = self.find(maps, len).filter(|_| len >= least)?;
        Some(Room { len, at })
    }

    fn place_in(self, gap: &Range<usize>, len: usize) -> Option<usize> {
        let low = gap.start.max(self.low).checked_next_multiple_of(PAGE)?;
        let high = gap.end.min(self.high).checked_sub(len)? / PAGE * PAGE;
        (low <= high).then(|| (self.close_to / PAGE * PAGE).clamp(low, high))
    }
}

const PAGE: usize = crate::abi::PAGE_SIZE;

/// What is free between the mappings, ascending.
fn gaps(maps: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let end = std::iter::once(HIGHEST..usize::MAX);
    let taken = maps.lines().filter_map(taken).chain(end);
    taken
        .scan(LOWEST, |free, taken| {
            let gap = *free..taken.start;
            *free = taken.end.max(*free);
            Some(gap)
        })
        .filter(|gap| !gap.is_empty())
}

/// The range of one line, with room for what grows.
fn taken(line: &str) -> Option<Range<usize>> {
    let (start, rest) = line.split_once('-')?;
    let (end, rest) = rest.split_once(' ')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    Some(match rest.rsplit(' ').next() {
        Some("[stack]") => start.saturating_sub(GROWTH)..end,
        Some("[heap]") => start..end.saturating_add(GROWTH),
        _ => start..end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAPS: &str = "\
555500000000-555500002000 r-xp 00000000 08:01 1 /bin/program
555500003000-555500005000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000100000 r-xp 00000000 08:01 2 /lib/libc.so.6
7ffffff00000-7ffffffff000 rw-p 00000000 00:00 0 [stack]
";

    #[test]
    fn the_nearest_gap_that_is_large_enough_is_taken() {
        let near = Window::reaching(0x5555_0000_1000);
        assert_eq!(near.find(MAPS, 4096), Some(0x5555_0000_2000));
        assert_eq!(near.find(MAPS, 8192), Some(0x5554_ffff_e000));
        let library = Window::reaching(0x7f00_0000_0000);
        assert_eq!(library.find(MAPS, 4096), Some(0x7eff_ffff_f000));
    }

    #[test]
    fn heap_and_stack_can_grow() {
        let heap = Window::reaching(0x5555_0000_4000);
        let below = heap.find(MAPS, 1 << 20).unwrap();
        assert!(below < 0x5555_0000_0000);
        let stack = Window::reaching(0x7fff_fff0_0000);
        assert_eq!(
            stack.find(MAPS, 4096),
            Some(0x7fff_fff0_0000 - GROWTH - 4096)
        );
    }

    #[test]
    fn what_does_not_fit_is_not_found() {
        let full = "10000-7fffffffffff r--p 00000000 00:00 0\n";
        assert_eq!(Window::reaching(1 << 40).find(full, 4096), None);
        let apart = Window::reaching_all(1 << 32, 1 << 40);
        assert_eq!(apart.find("", 4096), None);
        let turned = Window::reaching_all(1 << 40, 1 << 32);
        assert_eq!(turned.find("", 4096), None);
        assert_eq!(Window::reaching(0).find("", 1 << 31), None);
        assert_eq!(Window::reaching(usize::MAX).find("", 4096), None);
    }

    #[test]
    fn lines_that_make_no_sense_are_passed_over() {
        let odd = "\n-\nzz-zz r\n10000000 r\n";
        assert!(Window::reaching(1 << 32).find(odd, 4096).is_some());
    }

    fn render(taken: &[Range<usize>]) -> String {
        let line = |range: &Range<usize>| format!("{:x}-{:x} r--p 0 0 0\n", range.start, range.end);
        taken.iter().map(line).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Against trying every page of a small address space.
        #[test]
        fn the_place_is_free_inside_and_the_nearest(
            sizes in prop::collection::vec((0_usize..6, 1_usize..6), 0..12),
            close in 0_usize..80,
            pages in 1_usize..8,
            span in 8_usize..64,
        ) {
            let mut at = LOWEST;
            let mut taken = Vec::new();
            for (gap, len) in sizes {
                let start = at + gap * PAGE;
                at = start + len * PAGE;
                taken.push(start..at);
            }
            let window = Window {
                low: LOWEST + close.saturating_sub(span) * PAGE,
                high: LOWEST + (close + span) * PAGE,
                close_to: LOWEST + close * PAGE,
                seen: None,
            };
            let len = pages * PAGE;
            let all = render(&taken);
            let fits = |len| window.find(&all, len).is_some();
            let room = window.largest(&all, len, 9 * PAGE);
            prop_assert_eq!(room.is_some(), fits(len));
            if let Some(Room { len, at }) = room {
                prop_assert_eq!(window.find(&all, len), Some(at));
                prop_assert!(len == 9 * PAGE || !fits(len + PAGE));
            }
            let free = |at: usize| {
                window.contains(at, len) && taken.iter().all(|t| t.end <= at || at + len <= t.start)
            };
            let best = (0..200)
                .map(|page| LOWEST + page * PAGE)
                .filter(|&at| free(at))
                .map(|at| at.abs_diff(window.close_to))
                .min();
            let found = window.find(&render(&taken), len);
            prop_assert!(found.is_none_or(free));
            prop_assert_eq!(found.map(|at| at.abs_diff(window.close_to)), best);
        }
    }
}
