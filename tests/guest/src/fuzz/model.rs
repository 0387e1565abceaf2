// SPDX-License-Identifier: GPL-2.0
//! What each call does to the [`World`], and what it must return. The order in
//! which causes are looked at is that of Documentation/userspace-api/jit.rst.
//!
//! A bound on a user is the one thing that can't be predicted to the page: where
//! it may be met, a call that returned EDQUOT is believed.

use jitfd_plan::abi;

use super::arena::{Cell, Mapped};
use super::call::{At, Call, Code, CodeAt, Map, Place, Publication, Segment};
use super::region::{Placed, Region};
use super::world::{File, Quota, Role, World};
use crate::suite::sys::{PAGE, RX};

/// What a call that succeeds returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    Exactly(i64),
    /// A descriptor, or an address of the kernel's choice.
    Any,
}

/// What a call must return: a value or an errno.
pub type Predicted = Result<Value, i32>;

const DONE: Predicted = Ok(Value::Exactly(0));

/// EINVAL unless `condition`.
fn require(condition: bool) -> Result<(), i32> {
    if condition { Ok(()) } else { Err(libc::EINVAL) }
}

impl World {
    /// Predicts the call's result and does to the model what it does.
    /// `errno`: what the call returned, if it did.
    pub fn step(&mut self, call: &Call, errno: Option<i32>) -> Predicted {
        match *call {
            Call::Open { slot, mode } => self.open(slot, mode),
            Call::Duplicate { from, to } => self.duplicate(from, to),
            Call::Close { slot } => self.close(slot),
            Call::Create {
                device,
                to,
                at,
                size,
                flags,
                reserved,
            } => {
                self.device(device)?;
                World::check_argument(at)?;
                require(flags & !abi::CREATE_ANY_MM == 0 && reserved.is_none())?;
                let pages = PAGE as u64;
                require((1..=abi::MAX_REGION).contains(&size) && size % pages == 0)?;
                self.check_fresh(device)?;
                self.region_bound(errno)?;
                let any = flags & abi::CREATE_ANY_MM != 0;
                self.become_region(device, to, Region::new(size as usize, any))
            }
            Call::Clone {
                device,
                to,
                at,
                source,
                flags,
                reserved,
            } => {
                self.device(device)?;
                World::check_argument(at)?;
                require(flags & !abi::CREATE_ANY_MM == 0 && reserved.is_none())?;
                self.check_fresh(device)?;
                let source = self.clone_source(source)?;
                self.region_bound(errno)?;
                let copy = self.regions[source].copy(flags & abi::CREATE_ANY_MM != 0);
                self.become_region(device, to, copy)
            }
            Call::Publish { slot, at, ref what } => self.publish(slot, at, what, errno),
            Call::Reserve {
                slot,
                at,
                len,
                align_log2,
                reserved,
            } => {
                let region = self.append(slot)?;
                World::check_argument(at)?;
                require(reserved.is_none() && align_log2 <= abi::MAX_ALIGN_LOG2)?;
                require((1..=abi::MAX_REGION).contains(&len))?;
                self.reserve(region, len, align_log2)
            }
            Call::Seal { slot } => self.seal(slot),
            Call::Stats { slot, at } => {
                self.shown(slot)?;
                match at {
                    At::Memory => DONE,
                    _ => Err(libc::EFAULT),
                }
            }
            Call::Code {
                device,
                at,
                ref what,
            } => self.create_code(device, at, what, errno),
            Call::Unknown { slot, .. } => self.file(slot).and(Err(libc::ENOTTY)),
            Call::Map(map) => self.map(map),
            Call::Memory { page, pages, byte } => {
                let prot = libc::PROT_READ | libc::PROT_WRITE;
                self.arena.fill(page, pages, Cell::Memory { byte, prot });
                Ok(Value::Any)
            }
            Call::Unmap { page, pages } => {
                self.arena.fill(page, pages, Cell::Hole);
                DONE
            }
            Call::Protect { page, pages, prot } => self.arena.protect(page, pages, prot).and(DONE),
            Call::Remap(remap) => self.arena.remap(remap).and(Ok(Value::Any)),
            Call::Advise {
                page,
                pages,
                advice,
            } => self.advise(page, pages, advice),
            Call::Settle { slot } => {
                let region = self.shown(slot)?;
                self.regions[region].settle();
                DONE
            }
            Call::Look(_) | Call::Fork { .. } => DONE,
        }
    }

    fn open(&mut self, slot: usize, mode: i32) -> Predicted {
        let role = Role::Device(None);
        self.slots[slot] = Some(self.add_file(File { mode, role }));
        Ok(Value::Any)
    }

    fn duplicate(&mut self, from: usize, to: usize) -> Predicted {
        self.slots[to] = Some(self.slots[from].ok_or(libc::EBADF)?);
        Ok(Value::Any)
    }

    fn close(&mut self, slot: usize) -> Predicted {
        self.slots[slot].take().ok_or(libc::EBADF)?;
        DONE
    }

    fn check_fresh(&self, device: usize) -> Result<(), i32> {
        match self.device(device)? {
            None => Ok(()),
            Some(_) => Err(libc::EBUSY),
        }
    }

    /// EDQUOT, if it must or may be and is.
    fn bound(quota: Quota, errno: Option<i32>) -> Result<(), i32> {
        let met = quota == Quota::Always || quota == Quota::Maybe && errno == Some(libc::EDQUOT);
        if met { Err(libc::EDQUOT) } else { Ok(()) }
    }

    fn region_bound(&mut self, errno: Option<i32>) -> Result<(), i32> {
        self.sweep();
        World::bound(self.region_quota(), errno)
    }

    fn clone_source(&self, slot: usize) -> Result<usize, i32> {
        match self.device(slot) {
            Err(_) => Err(libc::EBADF),
            Ok(None) => Err(libc::ENODATA),
            Ok(Some(region)) => Ok(region),
        }
    }

    fn become_region(&mut self, device: usize, to: usize, region: Region) -> Predicted {
        let region = self.add_region(region);
        if let Some(file) = self.slots[device] {
            self.files[file].role = Role::Device(Some(region));
        }
        let file = File {
            mode: libc::O_RDWR,
            role: Role::Append(region),
        };
        self.slots[to] = Some(self.add_file(file));
        Ok(Value::Any)
    }

    fn publish(
        &mut self,
        slot: usize,
        at: At,
        what: &Publication,
        errno: Option<i32>,
    ) -> Predicted {
        let region = self.append(slot)?;
        World::check_argument(at)?;
        check_publication(what)?;
        World::check_argument(what.array)?;
        what.segments
            .iter()
            .try_for_each(|segment| check_segment(segment, what.fill))?;
        let bytes = self.collect(region, what, errno)?;
        let placed = self.place(region, what)?;
        World::bound(
            self.page_quota(Region::touched(&what.segments, &placed)),
            errno,
        )?;
        let hard = what.flags != 0;
        self.regions[region].publish(&what.segments, &placed, &bytes, hard);
        let value = if what.fill { 0 } else { placed.starts[0] };
        Ok(Value::Exactly(value as i64))
    }

    /// The bytes of all segments: ENOSPC if they are more than the region has, EPERM or
    /// EROFS if they can't be published.
    /// They are copied into pages of the user: EDQUOT where these end, unless a byte
    /// before can't be read.
    fn collect(
        &self,
        region: usize,
        what: &Publication,
        errno: Option<i32>,
    ) -> Result<Vec<u8>, i32> {
        let total: u64 = what.segments.iter().map(|segment| segment.len).sum();
        if total > self.regions[region].capacity() {
            return Err(libc::ENOSPC);
        }
        self.regions[region].check_publisher(self.owner)?;
        let quota = self.page_quota((total as usize).div_ceil(PAGE));
        if quota != Quota::Never && errno == Some(libc::EDQUOT) {
            return Err(libc::EDQUOT);
        }
        let mut bytes = Vec::new();
        for segment in &what.segments {
            let more = self.bytes(&what.payload.0, segment.source, segment.len)?;
            bytes.extend(more.expect("the choice was of certain bytes"));
        }
        World::bound(quota, errno)?;
        Ok(bytes)
    }

    fn place(&self, region: usize, what: &Publication) -> Result<Placed, i32> {
        let region = &self.regions[region];
        if what.fill {
            return region.place_fill(&what.segments);
        }
        let fresh = what.flags & abi::PUBLISH_FRESH != 0;
        region.place_append(&what.segments, fresh, what.expect)
    }

    fn reserve(&mut self, region: usize, len: u64, align_log2: u32) -> Predicted {
        let region = &mut self.regions[region];
        region.check_publisher(self.owner)?;
        let start = region.place_reservation(len, align_log2)?;
        region.reserve(start, len);
        Ok(Value::Exactly(start as i64))
    }

    fn seal(&mut self, slot: usize) -> Predicted {
        let region = self.append(slot)?;
        let region = &mut self.regions[region];
        if !region.any_mm && !self.owner {
            return Err(libc::EPERM);
        }
        region.sealed = true;
        DONE
    }

    fn create_code(&mut self, device: usize, at: At, what: &Code, errno: Option<i32>) -> Predicted {
        self.device(device)?;
        self.check_fresh(device)?;
        World::check_argument(at)?;
        check_code(what)?;
        self.region_bound(errno)?;
        let pages = (what.len as usize).div_ceil(PAGE);
        World::bound(self.page_quota(pages), errno)?;
        let bytes = self.bytes(&what.payload.0, what.source, what.len)?;
        let bytes = bytes.expect("the choice was of certain bytes");
        let file = self.slots[device].ok_or(libc::EBADF)?;
        let page = match what.addr {
            CodeAt::Anywhere(page) => page,
            CodeAt::Fixed(page) => self.check_replaceable(page, pages).map(|()| page)?,
            CodeAt::FixedNowhere(_) | CodeAt::Hint(_) => return Err(libc::EINVAL),
        };
        if self.files[file].mode == libc::O_WRONLY {
            return Err(libc::EACCES);
        }
        if at == At::ReadOnlyMemory && matches!(what.addr, CodeAt::Anywhere(_)) {
            return Err(libc::EFAULT);
        }
        let region = self.add_region(Region::of_code(&bytes, what.answer));
        self.arena.map(page, pages, first_page(region, file, 0, RX));
        DONE
    }

    fn check_replaceable(&self, page: usize, pages: usize) -> Result<(), i32> {
        let cells = self.arena.range(page, pages);
        require(cells.iter().all(|cell| self.is_replaceable(cell)))
    }

    fn map(&mut self, map: Map) -> Predicted {
        require(map.offset % PAGE as u64 == 0)?;
        let file = self.file(map.slot)?;
        let there = self.arena.range(map.page, map.pages);
        let taken = there.iter().any(|cell| *cell != Cell::Hole);
        if map.place == Place::FixedNoReplace && taken {
            return Err(libc::EEXIST);
        }
        check_mode(file, map)?;
        require(!map.private)?;
        if map.prot & libc::PROT_WRITE != 0 {
            return Err(libc::EACCES);
        }
        let Role::Device(Some(region)) = file.role else {
            return Err(libc::ENODATA);
        };
        let first = map.offset as usize / PAGE;
        require(first + map.pages <= self.regions[region].pages())?;
        let number = self.slots[map.slot].ok_or(libc::EBADF)?;
        let first = first_page(region, number, first, map.prot);
        self.arena.map(map.page, map.pages, first);
        Ok(Value::Any)
    }

    /// On code and holes only.
    fn advise(&mut self, page: usize, pages: usize, advice: i32) -> Predicted {
        if advice == libc::MADV_DONTFORK {
            return self.arena.keep_from_children(page, pages).and(DONE);
        }
        let cells = self.arena.range(page, pages);
        let code = cells.iter().any(|cell| *cell != Cell::Hole);
        match advice {
            libc::MADV_POPULATE_READ if cells[0] == Cell::Hole => Err(libc::ENOMEM),
            libc::MADV_REMOVE if code => Err(libc::EACCES),
            _ if code => Err(libc::EINVAL),
            _ => Err(libc::ENOMEM),
        }
    }
}

fn first_page(region: usize, file: usize, page: usize, prot: i32) -> Mapped {
    Mapped {
        region,
        file,
        page,
        prot,
        in_child: true,
        area: 0,
    }
}

/// What the kernel itself refuses, for any file.
fn check_mode(file: File, map: Map) -> Result<(), i32> {
    let writes = map.prot & libc::PROT_WRITE != 0 && !map.private;
    let refused = writes && file.mode == libc::O_RDONLY || file.mode == libc::O_WRONLY;
    if refused {
        return Err(libc::EACCES);
    }
    match file.role {
        Role::Append(_) if map.prot & libc::PROT_EXEC != 0 => Err(libc::EPERM),
        Role::Append(_) => Err(libc::ENODEV),
        Role::Device(_) => Ok(()),
    }
}

fn check_publication(what: &Publication) -> Result<(), i32> {
    let allowed = match what.fill {
        true => abi::PUBLISH_SYNC,
        false => abi::PUBLISH_SYNC | abi::PUBLISH_FRESH,
    };
    let count = what.count.unwrap_or(what.segments.len() as u32);
    require(what.flags & !allowed == 0 && what.reserved.is_none())?;
    require((1..=abi::MAX_SEGMENTS).contains(&count))?;
    require(!what.fill || what.expect == abi::ANY_OFFSET)
}

fn check_segment(segment: &Segment, fill: bool) -> Result<(), i32> {
    require(segment.reserved == 0)?;
    require((1..=abi::MAX_REGION).contains(&segment.len))?;
    require(!World::overflows(segment.source, segment.len))?;
    match fill {
        true => require(segment.align_log2 == 0 && segment.offset < abi::MAX_REGION),
        false => require(segment.offset == 0 && segment.align_log2 <= abi::MAX_ALIGN_LOG2),
    }
}

fn check_code(what: &Code) -> Result<(), i32> {
    require(what.flags & !abi::CREATE_CODE_FIXED == 0 && what.reserved.is_none())?;
    require((1..=abi::MAX_CODE).contains(&what.len))?;
    require(!World::overflows(what.source, what.len))?;
    match what.addr {
        CodeAt::Hint(_) => Err(libc::EINVAL),
        CodeAt::FixedNowhere(addr) => {
            let len = what.len.next_multiple_of(PAGE as u64);
            require(addr != 0 && addr % PAGE as u64 == 0 && addr.checked_add(len).is_some())
        }
        CodeAt::Anywhere(_) | CodeAt::Fixed(_) => Ok(()),
    }
}
