// SPDX-License-Identifier: MIT OR Apache-2.0

//! A list that grows, where the lack of memory is no abort.

/// Adds to a list that may have as many elements as the chunk has branches;
/// returns whether there was memory for it.
pub fn pushed<T>(list: &mut Vec<T>, element: T) -> bool {
    let room = list.try_reserve(1).is_ok();
    if room {
        list.push(element);
    }
    room
}
