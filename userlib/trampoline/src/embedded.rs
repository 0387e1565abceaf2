// SPDX-License-Identifier: MIT OR Apache-2.0

//! Settings as immutable code, in a code space.

use crate::setting::Setting;
use jitfd::Error;
use jitfd::space::{CodeSpace, Function, Request};

impl Setting {
    /// Publishes the code under a name, where a direct jump reaches the target if
    /// the code space has such a place.
    ///
    /// A direct jump needs no data, so publishing it flushes nothing; it is also
    /// what a CPU predicts best. Settings to targets in the program itself get one
    /// if the code space has its regions near it.
    ///
    /// ```
    /// use jitfd::space::SpaceOptions;
    /// use jitfd_trampoline::{Gpr, Setting};
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
    /// let setting = Setting::to(target).set(Gpr::Rsi, 6);
    /// let function = setting.publish(&space, "times six")?;
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
    /// As [`code`](Self::code) and [`CodeSpace::emit`].
    pub fn publish(&self, space: &CodeSpace, name: &str) -> Result<Function, Error> {
        let most = self.code()?;
        let request = Request::new(most.len()).align(most.align()).name(name);
        space.emit(&request, |address| self.code_at(address))
    }

    /// Publishes many settings, up to 1024, each under its name, in one step: with
    /// one system call, and one flush, for all of them.
    ///
    /// ```
    /// # use jitfd::{Fallback, RegionOptions, space::SpaceOptions};
    /// use jitfd_trampoline::{Gpr, Setting};
    ///
    /// extern "C" fn add(first: u64, second: u64) -> u64 {
    ///     first + second
    /// }
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// # let region = RegionOptions::new().fallback(Fallback::Any);
    /// # let space = SpaceOptions::new().region(region).create()?;
    /// let target = Setting::to(add as *const () as usize);
    /// let [one, two] = [1, 2].map(|number| target.clone().set(Gpr::Rsi, number));
    /// let functions = Setting::publish_all(&space, &[("add 1", &one), ("add 2", &two)])?;
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
        let chunks: Result<Vec<_>, Error> =
            batch.iter().map(|(_, setting)| setting.code()).collect();
        let chunks = chunks?;
        let names = batch.iter().map(|&(name, _)| name);
        space.publish_all(&Vec::from_iter(names.zip(&chunks)))
    }
}
