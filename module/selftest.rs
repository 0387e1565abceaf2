// SPDX-License-Identifier: GPL-2.0

//! KUnit tests: the parts of the module that keep the protocol's state, in the
//! kernel that runs them. They run when the module is loaded into a kernel with
//! KUnit. What needs a CPU's TLB is tested from userspace (tests/).

use kernel::{
    alloc::{KVVec, KVec},
    prelude::*,
    sync::{Arc, UniqueArc},
};

use crate::{
    file_mapping::SomeMms,
    page::{Blank, Effort, Still, Version},
    pages::{Pages, Ranges, Rest, Shared},
    plan::{
        abi::{self, FILL, PAGE_SIZE},
        ledger::CpuSet,
        lifecycle::PageState,
        span::{Descending, Span},
        stale::{verdict, Bytes, Source, Verdict, PATIENCE},
    },
    pool::{self, Pool},
    region::{Publishers, Region},
    reserved::{self, Reserved, Room, Spare},
    tlb::Cpus,
    trap,
    user::{Account, Charge, What},
};

fn pages(count: usize) -> Result<Arc<Pages>> {
    Arc::pin_init(Pages::new(count)?, GFP_KERNEL)
}

fn blank() -> Result<Blank> {
    Blank::new(&Account::new()?, Effort::Full)
}

/// A seen version with `bytes` at `offset`.
fn seen(offset: usize, bytes: &[u8]) -> Result<Arc<Version>> {
    let mut blank = blank()?;
    blank.write(offset, bytes);
    let version = blank.into_version();
    version.set_seen();
    Ok(version)
}

fn still(version: &Version) -> Result<Still<'_>> {
    Still::seen(version).ok_or(EINVAL)
}

fn span(start: u64, len: u64) -> Span {
    Span { start, len }
}

#[kunit_tests(jit)]
mod tests {
    use super::*;

    #[test]
    fn blank_is_all_fill() -> Result {
        let version = seen(0, &[])?;
        let mut bytes: KVec<u8> = KVec::from_elem(0, PAGE_SIZE, GFP_KERNEL)?;
        still(&version)?.read(0, &mut bytes);
        assert!(bytes.iter().all(|&byte| byte == FILL));
        Ok(())
    }

    #[test]
    fn recycled_blank_is_all_fill() -> Result {
        let version = seen(100, &[1, 2, 3])?;
        version.set_replaced(7);
        // SAFETY: No page-table entry ever pointed to it.
        let again = unsafe { Blank::recycle(version) }.ok_or(EINVAL)?;
        let again = again.into_version();
        assert!(!again.is_seen());
        assert_eq!(again.replaced(), 0);
        again.set_seen();
        assert_eq!(still(&again)?.byte(101), FILL);
        Ok(())
    }

    #[test]
    fn reset_blank_is_all_fill() -> Result {
        let mut blank = blank()?;
        blank.write(0, &[9; 200]);
        blank.fill_all();
        blank.write(0, &[8; 100]);
        blank.reset();
        blank.write(50, &[7]);
        let version = blank.into_version();
        version.set_seen();
        let still = still(&version)?;
        assert_eq!(
            [0, 49, 50, 51, 99, 199].map(|at| still.byte(at)),
            [FILL, FILL, 7, FILL, FILL, FILL]
        );
        Ok(())
    }

    #[test]
    fn pool_keeps_what_fits_until_it_is_emptied() -> Result {
        let account = Account::new()?;
        let pool = Pool::new(&account)?;
        pool.keep(blank()?);
        assert_eq!(pool.len(), 0);
        pool.make_room(PageState::Unseen);
        for _ in 0..100 {
            pool.keep(blank()?);
        }
        assert!((1..100).contains(&pool.len()));
        pool::trim(account.user());
        assert_eq!(pool.len(), 0);
        assert!(pool.take().is_none());
        Ok(())
    }

    #[test]
    fn shrinker_looks_at_a_bounded_number_of_pools() -> Result {
        let account = Account::new()?;
        let mut pools = KVVec::with_capacity(pool::LOOKS + 1, GFP_KERNEL)?;
        for _ in 0..=pool::LOOKS {
            pools.push(Pool::new(&account)?, GFP_KERNEL)?;
        }
        let last = pools.last().ok_or(EINVAL)?;
        last.make_room(PageState::Unseen);
        last.keep(Blank::new(&account, Effort::Full)?);
        // All others are before it.
        assert_eq!(pool::shrink(1), 0);
        assert_eq!(last.len(), 1);
        // It is the first now.
        assert_eq!(pool::shrink(1), 1);
        assert_eq!(last.len(), 0);
        Ok(())
    }

    #[test]
    fn shared_version_is_not_recycled() -> Result {
        let version = seen(0, &[1])?;
        let other = version.clone();
        // SAFETY: No page-table entry ever pointed to it.
        assert!(unsafe { Blank::recycle(version) }.is_none());
        assert_eq!(still(&other)?.byte(0), 1);
        Ok(())
    }

    #[test]
    fn unseen_version_is_not_still() -> Result {
        assert!(Still::seen(&*blank()?.into_version()).is_none());
        Ok(())
    }

    #[test]
    fn copy_holds_what_was_published() -> Result {
        let first = seen(10, &[7, 8])?;
        let mut second = blank()?;
        second.copy_from(still(&first)?);
        second.write(12, &[9]);
        let version = second.into_version();
        version.set_seen();
        let mut bytes = [0; 4];
        still(&version)?.read(10, &mut bytes);
        assert_eq!(bytes, [7, 8, 9, FILL]);
        Ok(())
    }

    #[test]
    fn charges_are_given_back() -> Result {
        let account = Account::new()?;
        let (before, ..) = account.user().holds();
        let mut charge = Charge::new(&account, What::Page, 3)?;
        charge.grow_to(5)?;
        charge.grow_to(2)?;
        assert_eq!(account.user().holds().0, before + 5);
        assert!(charge.grow_to(usize::MAX / 2).is_err());
        assert_eq!(account.user().holds().0, before + 5);
        drop(charge);
        assert_eq!(account.user().holds().0, before);
        Ok(())
    }

    #[test]
    fn copy_of_pages_follows_changes() -> Result {
        let from = pages(1024)?;
        let mut to = UniqueArc::pin_init(Pages::new(1024)?, GFP_KERNEL)?;
        assert!(from.put_first(1, seen(0, &[1])?));
        let account = Account::new()?;
        let mut paid = Charge::new(&account, What::Page, 0)?;
        let (before, ..) = account.user().holds();
        let since = from.share(0, to.as_mut(), &mut paid)?;
        assert_eq!(to.byte(0x1000), Some(1));
        assert_eq!(account.user().holds().0, before + 1);
        assert!(from.put_first(600, seen(0, &[2])?));
        let (before, ..) = account.user().holds();
        from.set_cursor(77);
        from.reserve(span(100, 28), Room::new()?);
        let mut shared = Shared::with_room(Shared::GROUPS)?;
        let mut rooms = Spare::new();
        let mut rest = |ranges: Ranges<'_>| {
            from.share_rest(since, to.as_mut(), &mut shared, ranges, &mut paid)
        };
        assert!(rest(Ranges::AtMost(9, &mut rooms))? == Rest::TooMuch);
        rooms.reserve(1)?;
        assert!(rest(Ranges::AtMost(0, &mut rooms))? == Rest::TooMuch);
        from.begin();
        assert!(rest(Ranges::AtMost(9, &mut rooms))? == Rest::HalfDone);
        from.end(128, &[], &mut Spare::new());
        assert!(rest(Ranges::AtMost(9, &mut rooms))? == Rest::Copied);
        assert_eq!(account.user().holds().0, before + 1);
        assert_eq!(to.byte(600 * PAGE_SIZE as u64), Some(2));
        assert_eq!(to.cursor(), 128);
        assert_eq!(to.holes(), 1);
        Ok(())
    }

    #[test]
    fn listed_ranges_are_copied_if_they_are_still_the_same() -> Result {
        const MANY: u64 = 3 * reserved::A_FEW as u64 + 7;
        let from = pages(1)?;
        let mut to = UniqueArc::pin_init(Pages::new(1)?, GFP_KERNEL)?;
        for index in 0..MANY {
            from.reserve(span(2 * index, 1), Room::new()?);
        }
        let mut rooms = Spare::new();
        rooms.reserve(2 * MANY as usize + 1)?;
        let early = Ranges::Listed(from.list_reserved(&mut rooms)?);
        from.reserve(span(2 * MANY, 1), Room::new()?);
        let late = Ranges::Listed(from.list_reserved(&mut rooms)?);
        let mut few = Spare::new();
        few.reserve(reserved::A_FEW)?;
        let short = Ranges::Listed(from.list_reserved(&mut few)?);
        let mut shared = Shared::with_room(Shared::GROUPS)?;
        let mut paid = Charge::new(&Account::new()?, What::Page, 0)?;
        let mut rest =
            |ranges: Ranges<'_>| from.share_rest(0, to.as_mut(), &mut shared, ranges, &mut paid);
        assert!(rest(early)? == Rest::TooMuch);
        assert!(rest(short)? == Rest::TooMuch);
        assert!(rest(late)? == Rest::Copied);
        assert_eq!(to.holes() as u64, MANY + 1);
        let fills = [span(0, 1), span(2 * MANY, 1)];
        to.check_reserved(&fills)?;
        assert!(to.check_reserved(&[span(1, 1)]).is_err());
        Ok(())
    }

    #[test]
    fn page_goes_from_absent_to_unseen_to_live() -> Result {
        let pages = pages(2)?;
        assert_eq!(pages.with(1, |state, _| state), PageState::Absent);
        assert!(pages.byte(PAGE_SIZE as u64).is_none());
        let version = blank()?.into_version();
        assert!(pages.put_first(1, version.clone()));
        assert!(!pages.put_first(1, blank()?.into_version()));
        assert!(!pages.put_first(2, blank()?.into_version()));
        assert_eq!(pages.with(1, |state, _| state), PageState::Unseen);
        version.set_seen();
        assert_eq!(pages.with(1, |state, _| state), PageState::Live);
        assert_eq!(pages.with(2, |state, _| state), PageState::Absent);
        Ok(())
    }

    #[test]
    fn live_page_is_not_written_in_place() -> Result {
        let pages = pages(1)?;
        let version = blank()?.into_version();
        pages.put_first(0, version.clone());
        assert!(pages.append_unseen(0, 1, |version| version.write(0, &[0x90])));
        assert_eq!(pages.cursor(), 1);
        version.set_seen();
        assert!(!pages.append_unseen(0, 2, |version| version.write(1, &[0x90])));
        assert_eq!(pages.cursor(), 1);
        assert_eq!(pages.byte(0), Some(0x90));
        assert_eq!(pages.byte(1), Some(FILL));
        Ok(())
    }

    #[test]
    fn replaced_version_lives_until_it_is_released() -> Result {
        let pages = pages(1)?;
        let version = seen(0, &[1])?;
        pages.put_first(0, version.clone());
        let old = pages.replace(0, seen(0, &[2])?).ok_or(EINVAL)?;
        assert_eq!(pages.byte(0), Some(2));
        // Nobody but the slot and this test had it.
        // SAFETY: No page-table entry ever pointed to it.
        let old = unsafe { old.release() };
        assert!(Arc::ptr_eq(&old, &version));
        drop(version);
        // SAFETY: As above.
        assert!(unsafe { Blank::recycle(old) }.is_some());
        Ok(())
    }

    #[test]
    fn read_shows_fill_where_nothing_is_published() -> Result {
        let pages = pages(2)?;
        let mut code = blank()?;
        code.write(PAGE_SIZE - 1, &[0xc3]);
        pages.put_first(0, code.into_version());
        let mut bytes = [0; 3];
        pages.read(PAGE_SIZE as u64 - 2, &mut bytes);
        assert_eq!(bytes, [FILL, 0xc3, FILL]);
        Ok(())
    }

    #[test]
    fn hole_is_split_by_a_fill() -> Result {
        let mut holes = Reserved::new();
        holes.add(span(0, 100), Room::new()?);
        holes.add(span(200, 50), Room::new()?);
        let fills = [span(10, 20), span(200, 50)];
        holes.check(&fills)?;
        let mut spare = Spare::new();
        spare.reserve(fills.len())?;
        holes.take(&fills, &mut spare);
        assert_eq!(holes.len(), 2);
        assert!(holes.check(&[span(10, 1)]).is_err());
        assert!(holes.check(&[span(9, 2)]).is_err());
        assert!(holes.check(&[span(249, 1)]).is_err());
        holes.check(&[span(0, 10), span(30, 70)])?;
        Ok(())
    }

    #[test]
    fn rooms_of_earlier_fills_are_enough() -> Result {
        let mut spare = Spare::new();
        spare.reserve(1)?;
        let mut holes = Reserved::new();
        for round in 0..20 {
            let start = round * 200;
            holes.add(span(start, 100), Room::new()?);
            holes.add(span(start + 100, 100), Room::new()?);
            // The first leaves nothing, or two parts; the second two.
            let whole = round % 2 == 0;
            let first = if whole {
                span(start, 100)
            } else {
                span(start + 10, 10)
            };
            if !spare.is_enough(2) {
                spare.reserve(2)?;
            }
            let before = holes.len();
            holes.take(&[first, span(start + 110, 10)], &mut spare);
            assert_eq!(holes.len(), if whole { before } else { before + 2 });
        }
        Ok(())
    }

    #[test]
    fn refused_fill_leaves_the_holes() -> Result {
        let mut holes = Reserved::new();
        holes.add(span(0, 8), Room::new()?);
        assert!(holes.check(&[span(0, 4), span(4, 5)]).is_err());
        holes.check(&[span(0, 8)])
    }

    #[test]
    fn region_counts_and_seals() -> Result {
        let region: Arc<_> = Region::new(None, 0, 4 * PAGE_SIZE as u64, Publishers::Any)?.into();
        let ask = abi::Reserve {
            len: 10,
            align_log2: 4,
            ..Default::default()
        };
        assert_eq!(region.reserve(&ask)?, 0);
        assert_eq!(region.reserve(&ask)?, 16);
        assert_eq!(region.stats().cursor, 26);
        region.seal()?;
        assert!(region.reserve(&ask) == Err(EROFS));
        assert_eq!(region.stats().cursor, 26);
        Ok(())
    }

    #[test]
    fn nobody_publishes_into_created_code() -> Result {
        let region = Region::new(None, 0, PAGE_SIZE as u64, Publishers::Nobody)?;
        let ask = abi::Reserve {
            len: 1,
            ..Default::default()
        };
        assert!(region.reserve(&ask) == Err(EPERM));
        Ok(())
    }

    #[test]
    fn pages_are_published_from_the_last_to_the_first() {
        let spans = [span(0, 10), span(4090, 10), span(12288, 1)];
        let order = Descending::new(&spans).map(|touched| touched.page);
        assert!(order.eq([3, 1, 0]));
    }

    #[test]
    fn cpu_set_keeps_what_it_is_told() {
        let mut set: CpuSet<4> = CpuSet::new(200);
        set.insert(3);
        set.insert(199);
        set.retain(|cpu| cpu != 3);
        assert!(set.iter().eq([199]));
        assert!(!set.is_empty());
    }

    #[test]
    fn flush_of_no_cpu_sends_nothing() {
        assert_eq!(Cpus::none().interrupt(&SomeMms::none()), 0);
    }

    #[test]
    fn verdict_tells_stale_traps_from_real_ones() {
        let at = |before_last, last| {
            verdict(Source::Authoritative(Bytes {
                before_last: Some(before_last),
                last: Some(last),
            }))
        };
        assert_eq!(at(0x90, 0xc3), Verdict::Resume);
        assert_eq!(at(0x90, FILL), Verdict::Deliver);
        assert_eq!(at(0xcd, 0x03), Verdict::Deliver);
        assert_eq!(at(0x90, 0x03), Verdict::Resume);
        assert_eq!(verdict(Source::Contended), Verdict::Later);
    }

    #[test]
    fn a_thread_is_sent_back_without_a_sleep_a_few_times() {
        let mut trap = 0x1000;
        while trap::count_retry(trap) {
            // A number that another thread has left here.
            trap += 1;
        }
        assert!((2..PATIENCE).all(|_| !trap::count_retry(trap)));
        assert!(trap::count_retry(trap));
        assert!(trap::count_retry(trap));
        assert!(!trap::count_retry(trap + 1));
    }
}
