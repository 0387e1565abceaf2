// SPDX-License-Identifier: MIT OR Apache-2.0

//! Settings as immutable code, in a code space.

use crate::thunk::Thunk;
use jitfd::Error;
use jitfd::space::{CodeSpace, Function, Request};

impl Thunk {
    /// Publishes the code under a name, where a direct jump reaches the target if
    /// the code space has such a place.
    ///
    /// A direct jump needs no data, so publishing it flushes nothing; it is also
    /// what a CPU predicts best. Settings to targets in the program itself get one
    /// if the code space has its regions near it.
    ///
    /// ```
    /// use jitfd::space::SpaceOptions;
    /// use jitfd::Register;
    /// use jitfd_trampoline::Thunk;
    /// use jitfd::{Fallback, RegionOptions, Window};
    ///
    /// extern "C" fn multiply(first: u64, second: u64) -> u64 {
    ///     first * second
    /// }
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let target = multiply as *const () as usize;
    /// let region = RegionOptions::new().fallback(Fallback::Any);
    /// let near = SpaceOptions::new().region(region).window(Window::reaching(target));
    /// let space = near.create()?;
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
    /// # Errors
    /// As [`code`](Self::code) and [`CodeSpace::publish_with`].
    pub fn publish(&self, space: &CodeSpace, name: &str) -> Result<Function, Error> {
        let (len, align) = self.most()?;
        let request = Request::new(len).align(align).name(name);
        space.publish_with(&request, |address| self.code_at(address))
    }

    /// Publishes many thunks, up to 1024, each under its name, in one step: with
    /// one system call, and one flush, for all of them.
    ///
    /// ```
    /// # use jitfd::{Fallback, RegionOptions, space::SpaceOptions};
    /// use jitfd::Register;
    /// use jitfd_trampoline::Thunk;
    ///
    /// extern "C" fn add(first: u64, second: u64) -> u64 {
    ///     first + second
    /// }
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let region = RegionOptions::new().fallback(Fallback::Any);
    /// # let space = SpaceOptions::new().region(region).create()?;
    /// let target = Thunk::to(add as *const () as usize);
    /// let [one, two] = [1, 2].map(|number| target.clone().set(Register::Rsi, number));
    /// let functions = Thunk::publish_all(&space, &[("add 1", &one), ("add 2", &two)])?;
    /// // SAFETY: as in the example of `publish`.
    /// let add_2 = unsafe { space.entry::<extern "C" fn(u64) -> u64>(functions[1])? };
    /// assert_eq!(add_2(40), 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`code`](Self::code) and [`CodeSpace::publish_all`]. Nothing is published
    /// then.
    pub fn publish_all(space: &CodeSpace, batch: &[(&str, &Self)]) -> Result<Vec<Function>, Error> {
        let chunks: Result<Vec<_>, Error> = batch.iter().map(|(_, thunk)| thunk.code()).collect();
        let chunks = chunks?;
        let names = batch.iter().map(|&(name, _)| name);
        space.publish_all(&Vec::from_iter(names.zip(&chunks)))
    }
}

#[cfg(test)]
mod tests {
    use crate::Thunk;
    use crate::assemble::tests::CHECKED;
    use jitfd::space::SpaceOptions;
    use jitfd::{Fallback, RegionOptions, Register, Window};

    /// Checking takes longer than all else that the program does for one.
    #[test]
    fn what_is_published_is_checked_once() {
        let target = what_is_published_is_checked_once as *const () as usize;
        let region = RegionOptions::new().fallback(Fallback::Any);
        let near = SpaceOptions::new()
            .region(region)
            .window(Window::reaching(target));
        let far = SpaceOptions::new().region(region);
        for (space, pushes, len) in [(near, 0, 14), (far.clone(), 0, 24), (far, 20, 64)] {
            let space = space.create().unwrap();
            // What no jump reaches.
            let target = if len == 14 { target } else { 1 };
            let thunk = Thunk::to(target).set(Register::Rsi, 6);
            let thunk = (0..pushes).fold(thunk, |thunk, _| thunk.push(1 << 40));
            let code = thunk.code().unwrap();
            let before = CHECKED.get();
            let function = thunk.publish(&space, "one").unwrap();
            assert_eq!(CHECKED.get() - before, 1);
            assert!(function.len >= len);
            assert_eq!(thunk.most(), Ok((code.len(), code.align())));
        }
    }
}
