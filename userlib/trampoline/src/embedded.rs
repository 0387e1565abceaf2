// SPDX-License-Identifier: MIT OR Apache-2.0

//! Thunks as immutable code, in a code space.

use crate::thunk::Thunk;
use jitfd::Error;
use jitfd::Published;
use jitfd::space::{CodeSpace, Request};

impl Thunk {
    /// Publishes the code under a name, where a direct jump reaches the target if
    /// the code space has such a place.
    ///
    /// A direct jump needs no data, so publishing it flushes nothing; it is also
    /// what a CPU predicts best. Thunks to targets in the program itself get one
    /// if the code space has its regions near it.
    ///
    /// ```
    /// use jitfd::space::SpaceOptions;
    /// use jitfd::{Fallback, Jit, RegionOptions, Register, Window};
    /// use jitfd_trampoline::Thunk;
    ///
    /// extern "C" fn multiply(first: u64, second: u64) -> u64 {
    ///     first * second
    /// }
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let target = multiply as *const () as usize;
    /// let region = RegionOptions {
    ///     window: Some(Window::reaching(target)),
    ///     ..Default::default()
    /// };
    /// let near = SpaceOptions { region, ..Default::default() };
    /// let space = Jit::open(Fallback::Any)?.space(near)?;
    /// let thunk = Thunk::to(target).set(Register::Rsi, 6);
    /// let function = thunk.publish(&space, "times six")?;
    /// // SAFETY: the code calls `multiply` with a second argument; `space` outlives
    /// // the call.
    /// let times_six = unsafe { space.entry::<extern "C" fn(u64) -> u64>(function)? };
    /// assert_eq!(times_six(7), 42);
    /// // endbr64; mov esi, 6; jmp multiply
    /// assert_eq!(function.len, 14);
    /// assert_eq!(space.lookup(function.address).unwrap().name, "times six");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// To publish many in one step, give their [`code`](Self::code) to
    /// [`CodeSpace::publish_all`].
    ///
    /// # Errors
    /// As [`code`](Self::code) and [`CodeSpace::publish_with`].
    pub fn publish(&self, space: &CodeSpace, name: &str) -> Result<Published, Error> {
        let (len, align) = self.most()?;
        let request = Request {
            align,
            name,
            ..Request::new(len)
        };
        space.publish_with(&request, |address| self.code(Some(address)))
    }
}

#[cfg(test)]
mod tests {
    use crate::Thunk;
    use crate::assemble::tests::CHECKED;
    use jitfd::space::SpaceOptions;
    use jitfd::{Fallback, Jit, RegionOptions, Register, Window};

    /// Checking takes longer than all else that the program does for one.
    #[test]
    fn what_is_published_is_checked_once() {
        let target = what_is_published_is_checked_once as *const () as usize;
        let jit = Jit::open(Fallback::Any).unwrap();
        let region = RegionOptions {
            window: Some(Window::reaching(target)),
            ..Default::default()
        };
        let far = SpaceOptions::default();
        let near = SpaceOptions {
            region,
            ..far.clone()
        };
        for (space, pushes, len) in [(near, 0, 14), (far.clone(), 0, 24), (far, 20, 64)] {
            let space = jit.space(space).unwrap();
            // What no jump reaches.
            let target = if len == 14 { target } else { 1 };
            let thunk = Thunk::to(target).set(Register::Rsi, 6);
            let thunk = (0..pushes).fold(thunk, |thunk, _| thunk.push(1 << 40));
            let code = thunk.code(None).unwrap();
            let before = CHECKED.get();
            let function = thunk.publish(&space, "one").unwrap();
            assert_eq!(CHECKED.get() - before, 1);
            assert!(function.len >= len);
            assert_eq!(thunk.most(), Ok((code.len(), code.align())));
        }
    }
}
