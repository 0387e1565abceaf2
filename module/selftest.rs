// SPDX-License-Identifier: GPL-2.0

//! KUnit tests: the parts of the module that keep the protocol's state, in the
//! kernel that runs them. They run when the module is loaded into a kernel with
//! KUnit. What needs a CPU's TLB is tested from userspace (tests/).

use kernel::{alloc::KVec, prelude::*, sync::Arc};

use crate::{
    holes::{Holes, Room, Spare},
    page::{Blank, Effort},
    pages::Pages,
    plan::{
        abi::{self, FILL, PAGE_SIZE},
        ledger::CpuSet,
        lifecycle::PageState,
        span::{Descending, Span},
        stale::{verdict, Bytes, Source, Verdict},
    },
    pool::{self, Pool},
    region::{Publishers, Region},
    tlb::Cpus,
    user::{User, What},
};

fn pages(count: usize) -> Result<Arc<Pages>> {
    Arc::pin_init(Pages::new(count)?, GFP_KERNEL)
}

fn blank() -> Result<Blank> {
    let (user, _charge) = User::charged(What::Region)?;
    Blank::new(&user, Effort::Full)
}

fn span(start: u64, len: u64) -> Span {
    Span { start, len }
}

#[kunit_tests(jit)]
mod tests {
    use super::*;

    #[test]
    fn blank_is_all_fill() -> Result {
        let version = blank()?.into_version();
        let mut bytes: KVec<u8> = KVec::from_elem(0, PAGE_SIZE, GFP_KERNEL)?;
        version.read(0, &mut bytes);
        assert!(bytes.iter().all(|&byte| byte == FILL));
        Ok(())
    }

    #[test]
    fn recycled_blank_is_all_fill() -> Result {
        let mut written = blank()?;
        written.write(100, &[1, 2, 3]);
        let version = written.into_version();
        version.set_seen();
        let again = Blank::recycle(version).ok_or(EINVAL)?.into_version();
        assert_eq!(again.byte(101), FILL);
        assert!(!again.is_seen());
        Ok(())
    }

    #[test]
    fn pool_keeps_what_fits_until_it_is_emptied() -> Result {
        let (user, _charge) = User::charged(What::Region)?;
        let pool = Pool::new(&user)?;
        pool.keep(blank()?);
        assert_eq!(pool.len(), 0);
        pool.make_room(PageState::Unseen);
        for _ in 0..100 {
            pool.keep(blank()?);
        }
        assert!((1..100).contains(&pool.len()));
        pool::trim(&user);
        assert_eq!(pool.len(), 0);
        assert!(pool.take().is_none());
        Ok(())
    }

    #[test]
    fn shared_version_is_not_recycled() -> Result {
        let version = blank()?.into_version();
        let other = version.clone();
        assert!(Blank::recycle(version).is_none());
        assert_eq!(other.byte(0), FILL);
        Ok(())
    }

    #[test]
    fn copy_holds_what_was_published() -> Result {
        let mut first = blank()?;
        first.write(10, &[7, 8]);
        let mut second = blank()?;
        second.copy_from(&first.into_version());
        second.write(12, &[9]);
        let version = second.into_version();
        let mut bytes = [0; 4];
        version.read(10, &mut bytes);
        assert_eq!(bytes, [7, 8, 9, FILL]);
        Ok(())
    }

    #[test]
    fn page_goes_from_absent_to_unseen_to_live() -> Result {
        let pages = pages(2)?;
        assert_eq!(pages.with(1, |state, _| state), PageState::Absent);
        assert!(pages.byte(PAGE_SIZE as u64).is_none());
        let version = blank()?.into_version();
        assert!(pages.put(1, version.clone()).is_none());
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
        pages.put(0, version.clone());
        assert!(pages.write_unseen(0, |version| version.write_unseen(0, &[0x90])));
        version.set_seen();
        assert!(!pages.write_unseen(0, |version| version.write_unseen(1, &[0x90])));
        assert_eq!(pages.byte(0), Some(0x90));
        assert_eq!(pages.byte(1), Some(FILL));
        Ok(())
    }

    #[test]
    fn read_shows_fill_where_nothing_is_published() -> Result {
        let pages = pages(2)?;
        let mut code = blank()?;
        code.write(PAGE_SIZE - 1, &[0xc3]);
        pages.put(0, code.into_version());
        let mut bytes = [0; 3];
        pages.read(PAGE_SIZE as u64 - 2, &mut bytes);
        assert_eq!(bytes, [FILL, 0xc3, FILL]);
        Ok(())
    }

    #[test]
    fn hole_is_split_by_a_fill() -> Result {
        let mut holes = Holes::new();
        holes.add(span(0, 100), Room::new()?);
        holes.add(span(200, 50), Room::new()?);
        let fills = [span(10, 20), span(200, 50)];
        holes.check(&fills)?;
        holes.take(&fills, Spare::new(fills.len())?);
        assert!(holes.check(&[span(10, 1)]).is_err());
        assert!(holes.check(&[span(9, 2)]).is_err());
        assert!(holes.check(&[span(249, 1)]).is_err());
        holes.check(&[span(0, 10), span(30, 70)])?;
        Ok(())
    }

    #[test]
    fn refused_fill_leaves_the_holes() -> Result {
        let mut holes = Holes::new();
        holes.add(span(0, 8), Room::new()?);
        assert!(holes.check(&[span(0, 4), span(4, 5)]).is_err());
        holes.check(&[span(0, 8)])
    }

    #[test]
    fn region_counts_and_seals() -> Result {
        let region = Region::new(None, 0, 4 * PAGE_SIZE as u64, Publishers::Any)?;
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
        assert_eq!(Cpus::none().interrupt(), 0);
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
    }
}
