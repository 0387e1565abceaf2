// SPDX-License-Identifier: MIT OR Apache-2.0

//! An image's way into a code space: place, relocate, validate, publish.

use super::CodeSpace;
use super::area::Part;
use super::image::{Image, Item, Layout};
use crate::error::{Call, Error};
use crate::os::fallible::{no_memory, room};
use crate::os::window::Window;
use crate::region::slot::{Published, Slot};
use jitfd_code::{Align, validate_owned};

impl CodeSpace {
    /// Publishes items that refer to each other as one, an *image*, relocated for the
    /// addresses they get; in `window`, if there is one. Returns one function for each
    /// item.
    ///
    /// The order is: room is reserved, the records are resolved for it, the
    /// result is validated, and those very bytes are published. Branches between
    /// items are checked like any others.
    ///
    /// It is validated by the rules of [`SpaceOptions::rules`]. If those ask
    /// for entries, each item that begins with code has one at its start; if they
    /// ask for lines of 64 bytes, each item starts with one.
    ///
    /// [`SpaceOptions::rules`]: super::SpaceOptions::rules
    ///
    /// # Errors
    /// Nothing is published then. Room that was reserved already counts as wasted: if a
    /// record does not reach, validation refuses, or publishing fails.
    /// * [`Error::Argument`] if the image or an item is empty;
    /// * [`Error::Code`] of an item, if its data is not inside of it, it ends inside an
    ///   instruction, a record can't be resolved, or validation refuses it;
    /// * else as [`reserve`](Self::reserve) and [`fill`](Self::fill).
    ///
    /// # Example
    /// ```
    /// use jitfd::space::{Item, Reloc, RelocKind, Target};
    ///
    /// # use jitfd::space::SpaceOptions;
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let jit = jitfd::Jit::open(jitfd::Fallback::Any)?;
    /// # let space = jit.space(jitfd::space::SpaceOptions::default())?;
    /// let mut image = Vec::new();
    /// // mov eax, 42; ret
    /// let callee = image.len();
    /// image.push(Item::new("callee", vec![0xb8, 42, 0, 0, 0, 0xc3]));
    /// // jmp callee
    /// let jump = Reloc::new(1, RelocKind::Rel32, Target::Item(callee), -4);
    /// let caller = image.len();
    /// image.push(Item { relocs: vec![jump], ..Item::new("caller", vec![0xe9, 0, 0, 0, 0]) });
    /// let functions = space.link(&image, None)?;
    /// // SAFETY: the code is such a function, and `space` outlives the call.
    /// let answer = unsafe { space.entry::<extern "C" fn() -> i32>(functions[caller])? };
    /// assert_eq!(answer(), 42);
    /// # Ok(())
    /// # }
    /// ```
    pub fn link(&self, items: &[Item], window: Option<Window>) -> Result<Vec<Published>, Error> {
        let image = Image(items);
        let layout = image.layout(self.least_align())?;
        let parts = image.parts(&layout)?;
        let mut functions = room(parts.len()).ok_or(no_memory(Call::Reserve))?;
        let slot = self.reserve_parts(layout.len, layout.align, window, &parts)?;
        if let Err(error) = self.link_into(&slot, &image, &layout, &parts) {
            self.abandon(slot);
            return Err(image.blame(&layout, error));
        }
        let function = |part: &Part<'_>| Published {
            offset: slot.offset + part.offset,
            address: slot.address + part.offset,
            len: part.len,
        };
        functions.extend(parts.iter().map(function));
        Ok(functions)
    }

    /// What the rules ask of code in this space.
    pub(super) const fn least_align(&self) -> Align {
        if self.options.rules.keeps_within_lines() {
            Align::LINE
        } else {
            Align::NONE
        }
    }

    fn link_into(
        &self,
        slot: &Slot,
        image: &Image<'_>,
        layout: &Layout,
        parts: &[Part<'_>],
    ) -> Result<(), Error> {
        let bytes = image.relocated(layout, slot.address)?;
        let options = image.options(layout, &self.options.rules)?;
        let chunk = validate_owned(bytes, &options)?;
        image.check_ends(layout, &chunk)?;
        self.fill_parts(slot, &chunk, parts)
    }
}
