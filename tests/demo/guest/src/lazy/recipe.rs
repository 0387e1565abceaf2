// SPDX-License-Identifier: MIT OR Apache-2.0

//! What each function computes: a chain of steps that starts from a number of
//! its own and mixes it with the argument, so that no two functions agree. It
//! depends on the function's number alone, however the run goes.

/// One step from an accumulator to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    AddArgument,
    XorArgument,
    AddConstant(i32),
    XorConstant(i32),
    Multiply(u64),
    Rotate(u8),
    SwapBytes,
    /// Adds what another function makes of the argument.
    Call(usize),
}

/// The steps of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    pub start: u64,
    pub steps: Vec<Step>,
}

impl Recipe {
    /// Most functions are short and fit a line or two; one in sixteen is long,
    /// so that some page boundaries are crossed too. One in four calls a
    /// function of a lower number.
    fn of(id: usize) -> Self {
        let mut random = Random(id as u64);
        let start = random.next();
        let short = 1 + random.below(14);
        let long = if random.below(16) == 0 {
            random.below(200)
        } else {
            0
        };
        let mut steps: Vec<Step> = (0..short + long).map(|_| step(&mut random)).collect();
        if id > 0 && random.below(4) == 0 {
            steps.push(Step::Call(random.below(id)));
        }
        Self { start, steps }
    }

    /// The function that it calls, if any.
    pub fn callee(&self) -> Option<usize> {
        self.steps.iter().find_map(|step| match step {
            Step::Call(id) => Some(*id),
            _ => None,
        })
    }

    /// What the function must return.
    fn result(&self, argument: u64, book: &Book) -> u64 {
        self.steps
            .iter()
            .fold(self.start, |value, step| match *step {
                Step::AddArgument => value.wrapping_add(argument),
                Step::XorArgument => value ^ argument,
                Step::AddConstant(constant) => value.wrapping_add_signed(constant.into()),
                Step::XorConstant(constant) => value ^ i64::from(constant).cast_unsigned(),
                Step::Multiply(factor) => value.wrapping_mul(factor),
                Step::Rotate(bits) => value.rotate_left(bits.into()),
                Step::SwapBytes => value.swap_bytes(),
                Step::Call(id) => value.wrapping_add(book.result(id, argument)),
            })
    }
}

/// All recipes.
pub struct Book(Vec<Recipe>);

impl Book {
    pub fn new(functions: usize) -> Self {
        Self((0..functions).map(Recipe::of).collect())
    }

    pub fn recipe(&self, id: usize) -> &Recipe {
        &self.0[id]
    }

    /// What function `id` must return.
    pub fn result(&self, id: usize, argument: u64) -> u64 {
        self.recipe(id).result(argument, self)
    }
}

fn step(random: &mut Random) -> Step {
    let value = random.next();
    let [low, .., high] = value.to_le_bytes();
    let constant = (value >> 8) as i32;
    match low % 7 {
        0 => Step::AddArgument,
        1 => Step::XorArgument,
        2 => Step::AddConstant(constant),
        3 => Step::XorConstant(constant),
        4 => Step::Multiply(value | 1),
        5 => Step::Rotate(high % 64),
        _ => Step::SwapBytes,
    }
}

/// The generator `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::Book;
    use std::collections::HashSet;

    #[test]
    fn functions_differ_and_only_call_lower_ones() {
        let book = Book::new(4000);
        let results: HashSet<u64> = (0..4000).map(|id| book.result(id, 1)).collect();
        assert_eq!(results.len(), 4000);
        assert!((0..4000).all(|id| book.recipe(id).callee().is_none_or(|callee| callee < id)));
    }
}
