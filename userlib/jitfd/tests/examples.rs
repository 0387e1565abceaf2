// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every public item has an example that runs. `cargo test` runs the examples;
//! this sees to it that there is one for each item.
//!
//! An item passes if one of these holds, where only blocks of Rust that run count,
//! and of those what a reader sees: not hidden lines, comments, strings or `use`:
//!
//! * an example of its own calls it by its name (of a type: is there; of an enum:
//!   names a variant);
//! * an example of its type, or of its module, calls it by its name;
//! * its text says "example of [`other`]", and the example of that item calls it.
//!
//! A method counts as called by `.name` or `Type::name`, anything else that belongs
//! to a type by `Type::name`, and a method of a trait where it is implemented. Types
//! are not known here: `.len` may be of another type. What macros make is not seen,
//! so none may be called that could make public items.

#[path = "examples/source.rs"]
mod source;
#[path = "examples/text.rs"]
mod text;

use source::{Kind, Module, Public, makers_of_items, parse, public_items, read, together};
use std::path::Path;
use text::{Example, examples};

/// Items that need no example, and why.
const EXCEPTIONS: [(&str, &str); 0] = [];

/// The crates with the library's items, and their folders, the lower ones first.
const CRATES: [(&str, &str); 3] = [
    ("jitfd_code", "code"),
    ("jitfd", "jitfd"),
    ("jitfd_trampoline", "trampoline"),
];

/// Macros of other crates that make no public item.
const HARMLESS: [&str; 3] = ["compile_error", "global_asm", "thread_local"];

/// Whether `example` calls `item`.
fn calls(example: &Example, item: &Public) -> bool {
    let name = item.name();
    let by_type = example.has(&[item.owner(), ":", ":", name]);
    match &item.kind {
        Kind::Enum(variants) => {
            let named = |variant: &String| example.has(&[name, ":", ":", variant]);
            variants.iter().any(named)
        }
        Kind::Type | Kind::Free => example.has(&[name]),
        Kind::Associated => by_type,
        Kind::Method => by_type || example.has(&[".", name]),
        Kind::Implemented => example.has(&["fn", name]),
    }
}

fn running(text: &str) -> impl Iterator<Item = Example> {
    examples(text).into_iter().filter(|example| example.runs)
}

fn has_example(item: &Public, all: &[Public]) -> bool {
    let own = running(&item.docs).any(|example| item.kind == Kind::Type || calls(&example, item));
    let mut around = item.around.iter().flat_map(|text| running(text));
    let other = || {
        referred_to(item, all)
            .is_some_and(|other| running(&other.docs).any(|example| calls(&example, item)))
    };
    own || around.any(|example| calls(&example, item)) || other()
}

/// The item whose example is also that of `item`, as its text says.
fn referred_to<'a>(item: &Public, all: &'a [Public]) -> Option<&'a Public> {
    let text = item.docs.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, behind) = text.split_once("example of [`")?;
    let (name, _) = behind.split_once("`]")?;
    let (module, _) = item.path.rsplit_once("::").unwrap_or_default();
    let exact = [format!("{module}::{name}"), name.to_owned()];
    let ending = format!("::{name}");
    let named = |other: &&Public| exact.contains(&other.path);
    let ends = |other: &&Public| other.path.ends_with(&ending);
    all.iter().find(named).or_else(|| all.iter().find(ends))
}

/// The items of a crate that have no example.
fn without_example(root: &Module) -> Vec<String> {
    let all = public_items(root);
    let lacking = all.iter().filter(|item| !has_example(item, &all));
    lacking.map(|item| item.path.clone()).collect()
}

fn userlib() -> Module {
    // Of this checkout, also if another was copied with its programs.
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(".".into());
    let folder = Path::new(&folder).join("..");
    let of = |(name, at)| (name, read(&folder.join(at).join("src/lib.rs")));
    together(CRATES.map(of).into())
}

fn parsed(text: &str) -> Module {
    parse(text, &|name| panic!("{name} has no file"))
}

/// A crate with one function, and these lines of documentation.
fn crate_with(docs: &str) -> Module {
    let docs: String = docs.lines().map(|line| format!("/// {line}\n")).collect();
    parsed(&format!("{docs}pub fn make() {{}}"))
}

#[test]
fn only_what_runs_and_is_seen_counts() {
    let good = [
        "```\nmake();\n```",
        "```rust\nlet a = [make()];\n```",
        "```should_panic\nmake()\n```",
    ];
    for docs in good {
        assert_eq!(without_example(&crate_with(docs)), [""; 0], "{docs}");
    }
    let bad = [
        "",
        "make()",
        "```no_run\nmake();\n```",
        "```ignore\nmake();\n```",
        "```compile_fail\nmake();\n```",
        "```text\nmake();\n```",
        "```\n# make();\n```",
        "```\n// make();\n```",
        "```\nlet name = \"make()\";\n```",
        "```\nuse jitfd::make;\n```",
        "```\nmaker();\n```",
    ];
    for docs in bad {
        assert_eq!(without_example(&crate_with(docs)), ["make"], "{docs}");
    }
}

#[test]
fn methods_may_be_in_the_example_of_their_type_or_of_another() {
    let text = "
        mod inner {
            /// ```
            /// Thing::new().used();
            /// ```
            pub struct Thing;
            impl Thing {
                pub fn new() -> Self { Self }
                pub fn used(&self) {}
                pub fn unused(&self) {}
                /// ```
                /// thing.first(); thing.second();
                /// ```
                pub fn first(&self) {}
                /// See the example of [`first`](Self::first).
                pub fn second(&self) {}
                /// See the example of [`first`](Self::first).
                pub fn third(&self) {}
                fn private(&self) {}
                pub(crate) fn ours(&self) {}
            }
            pub enum State { On }
            pub struct Unseen;
        }
        pub mod outer {
            pub use super::inner::State;
            pub fn free() {}
        }
        pub use inner::Thing;
        #[cfg(test)]
        pub mod tests;";
    let expected = [
        "Thing::unused",
        "Thing::third",
        "outer::State",
        "outer::free",
    ];
    assert_eq!(without_example(&parsed(text)), expected);
}

/// The public items with an example that is compiled only, or not even that.
fn with_skipped_example(root: &Module) -> Vec<String> {
    let skipped = |text: &str| examples(text).iter().any(|example| example.skipped);
    let mut found = public_items(root);
    found.retain(|item| skipped(&item.docs) || item.around.iter().any(|text| skipped(text)));
    found.into_iter().map(|item| item.path).collect()
}

#[test]
fn every_example_runs() {
    let text = "
        /// ```no_run
        /// first();
        /// ```
        pub fn first() {}
        /// ```ignore
        /// ```
        pub fn second() {}
        /// ```compile_fail
        /// ```
        pub fn third() {}";
    assert_eq!(with_skipped_example(&parsed(text)), ["first", "second"]);
    assert_eq!(with_skipped_example(&userlib()), [""; 0]);
}

/// The calls of macros that may make public items.
fn unknown_makers(root: &Module) -> Vec<String> {
    let mut found = makers_of_items(root);
    found.retain(|path| {
        !HARMLESS
            .iter()
            .any(|known| path.rsplit("::").next() == Some(known))
    });
    found
}

#[test]
fn no_macro_hides_items() {
    let text = "mod inner {
            thread_local! { static A: u8 = 0; }
            of_another_crate!();
            impl Thing { also!(); }
            impl Trait for Thing { of_a_trait!(); }
            macro_rules! plain { () => { fn private() {} } }
            macro_rules! maker { () => { pub fn hidden() {} } }
            plain!();
            plain!(pub fn passed_on());
            maker!();
        }";
    let found = ["of_another_crate", "also", "plain", "maker"].map(|name| format!("inner::{name}"));
    assert_eq!(unknown_makers(&parsed(text)), found);
    assert_eq!(unknown_makers(&userlib()), [""; 0]);
}

#[test]
fn every_public_item_has_an_example_that_runs() {
    let lacking = without_example(&userlib());
    let excepted = EXCEPTIONS.map(|(path, _)| path);
    let new: Vec<_> = lacking
        .iter()
        .filter(|path| !excepted.contains(&path.as_str()))
        .collect();
    assert!(
        new.is_empty(),
        "{} items have no example that runs, and no reason for it: {new:#?}",
        new.len()
    );
    for path in excepted {
        assert!(
            lacking.iter().any(|known| known == path),
            "{path} is no exception any more"
        );
    }
}
