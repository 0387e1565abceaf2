// SPDX-License-Identifier: MIT OR Apache-2.0

//! The compiler thread: compiles what is asked for, and what that calls.

use super::Shared;
use super::encode::{TooFar, encode};
use super::recipe::Recipe;
use crate::report::BoxError;
use jitfd::{Align, Chunk, Error, Published, Rules, validate};
use std::thread;

pub struct Compiler<'a> {
    shared: Shared<'a>,
    options: Rules,
}

impl<'a> Compiler<'a> {
    pub fn new(shared: Shared<'a>) -> Self {
        Self {
            shared,
            options: Rules::new(),
        }
    }

    /// Serves the executors until all are done.
    pub fn run(&self) -> Result<(), BoxError> {
        while !self.shared.table.all_finished() {
            let mut idle = true;
            for id in self.shared.table.requests() {
                idle = false;
                self.compile(id)?;
            }
            if idle {
                thread::yield_now();
            }
        }
        Ok(())
    }

    /// Publishes function `id` if nobody has asked for it before.
    fn compile(&self, id: usize) -> Result<(), BoxError> {
        if self.shared.table.offset(id).is_some() {
            return Ok(());
        }
        let recipe = self.shared.book.recipe(id);
        let published = match recipe.callee() {
            None => self.append(recipe)?,
            Some(callee) => {
                // It has a lower number, so this ends.
                self.compile(callee)?;
                let callee = self
                    .shared
                    .table
                    .offset(callee)
                    .ok_or("a callee was not compiled")?;
                self.append_caller(recipe, callee)?
            }
        };
        self.shared.table.publish(id, published.offset);
        Ok(())
    }

    /// Code that is the same at every address.
    fn append(&self, recipe: &Recipe) -> Result<Published, BoxError> {
        let code = encode(recipe, 0, 0).map_err(too_far)?;
        Ok(self.shared.region.publish(&self.validated(&code)?)?)
    }

    /// Code with a relative call: emitted for the address that it will get.
    fn append_caller(&self, recipe: &Recipe, callee: usize) -> Result<Published, BoxError> {
        let region = &self.shared.region;
        region.publish_with(Align::FUNCTION, |address| {
            let offset = address - region.mapping().address();
            let code = encode(recipe, offset, callee).map_err(too_far)?;
            Ok::<_, BoxError>(self.validated(&code)?)
        })
    }

    fn validated(&self, code: &[u8]) -> Result<Chunk, Error> {
        Ok(validate(code, &self.options)?)
    }
}

fn too_far(TooFar: TooFar) -> BoxError {
    "a callee is out of reach".into()
}
