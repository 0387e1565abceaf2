// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a region is asked to be.

use crate::os::window::Window;

/// How [`Jit::region`](crate::Jit::region) makes a region.
///
/// ```
/// use jitfd::{Fallback, Jit, RegionOptions, Window};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// fn helper() {}
/// // From where `helper` can be called directly.
/// let near = Window::reaching(helper as *const () as usize);
/// let options = RegionOptions { capacity: 1 << 20, window: Some(near), ..Default::default() };
/// let region = Jit::open(Fallback::Any)?.region(options)?;
/// assert!(near.contains(region.mapping().address(), region.mapping().len()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionOptions {
    /// The capacity in bytes, rounded up to whole pages; 16 MiB unless set, at most
    /// 1 GiB. Memory is used only for what is published.
    pub capacity: usize,
    /// Whether every process that holds the append handle may publish; else only the
    /// one that made the region may. Of `/dev/jit` only. A forked child that publishes
    /// begins with an empty boundary map: branches between its code and its parent's
    /// are not checked.
    ///
    /// ```
    /// use jitfd::{Error, Fallback, Jit, RegionOptions, Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let options = RegionOptions { any_process: true, ..Default::default() };
    /// let region = match Jit::open(Fallback::Any)?.region(options) {
    ///     Err(Error::Unsupported { .. }) => return Ok(()), // only /dev/jit can do it
    ///     region => region?,
    /// };
    /// let chunk = validate(&[0xc3], &Rules::new())?;
    /// // A server's workers compile into one region.
    /// // SAFETY: the child publishes and ends.
    /// match unsafe { libc::fork() } {
    ///     0 => {
    ///         let failed = region.publish(&chunk).is_err();
    ///         // SAFETY: ends the child, and nothing else.
    ///         unsafe { libc::_exit(failed.into()) }
    ///     }
    ///     child => {
    ///         // SAFETY: the child is this process's; its status is not asked for.
    ///         unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    ///     }
    /// }
    /// // The parent can execute what the child has published.
    /// assert_eq!(region.stats()?.publications, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub any_process: bool,
    /// Whether the region keeps a map of where instructions start, and checks
    /// branches between its chunks; it does unless set to `false`. It costs one byte
    /// for four bytes of code, and publications of one region wait for each other. It
    /// knows only what was published through this `Region`.
    ///
    /// ```
    /// use jitfd::{Fallback, Jit, RegionOptions, Rules, validate};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// // A compiler that is sure of its branches publishes on many threads at once.
    /// let options = RegionOptions { boundary_map: false, ..Default::default() };
    /// let region = Jit::open(Fallback::Any)?.region(options)?;
    /// let chunk = validate(&[0xc3], &Rules::new())?;
    /// std::thread::scope(|scope| {
    ///     for _ in 0..4 {
    ///         scope.spawn(|| region.publish(&chunk).map(|_| ()));
    ///     }
    /// });
    /// assert_eq!(region.stats()?.segments, 4);
    /// # Ok(())
    /// # }
    /// ```
    pub boundary_map: bool,
    /// Where in the address space it must lie; anywhere unless set.
    pub window: Option<Window>,
    /// Whether `perf` is to look up the region's functions in a
    /// [`PerfMap`](crate::tools::PerfMap). It does that only for anonymous
    /// executable memory, so the region is mapped over such memory. `perf` then
    /// does not see the region's file any more; a
    /// [`JitDump`](crate::tools::JitDump) works either way.
    ///
    /// A security policy can forbid such memory (SELinux: `execmem`), and
    /// [`Backend::ProtectFlips`](crate::Backend::ProtectFlips) can't do it.
    ///
    /// ```
    /// use jitfd::{Fallback, Jit, RegionOptions};
    ///
    /// # fn main() -> Result<(), jitfd::Error> {
    /// let options = RegionOptions { perf_map: true, ..Default::default() };
    /// match Jit::open(Fallback::Any)?.region(options) {
    ///     Ok(region) => println!("perf looks up names from {:#x} on", region.mapping().address()),
    ///     Err(error) => println!("perf will know no names: {error}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub perf_map: bool,
}

impl Default for RegionOptions {
    fn default() -> Self {
        Self {
            capacity: 16 << 20,
            any_process: false,
            boundary_map: true,
            window: None,
            perf_map: false,
        }
    }
}

/// A region of that capacity in bytes.
impl From<usize> for RegionOptions {
    fn from(capacity: usize) -> Self {
        Self {
            capacity,
            ..Self::default()
        }
    }
}
