// SPDX-License-Identifier: MIT OR Apache-2.0

//! The examples in a documentation comment: which of them run, and what a reader
//! sees of them.

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Expr, ExprLit, Lit, Meta};

/// A block of Rust in a documentation comment.
#[derive(Debug)]
pub struct Example {
    /// Whether `cargo test` compiles and runs it.
    pub runs: bool,
    /// Whether it is not even tried: `no_run`, `ignore`.
    pub skipped: bool,
    /// The tokens that a reader sees, without comments and `use` declarations;
    /// groups opened up, so that a pattern is found in any of them.
    tokens: Vec<String>,
}

impl Example {
    /// Whether these tokens stand in it one after another.
    pub fn has(&self, tokens: &[&str]) -> bool {
        self.tokens.windows(tokens.len()).any(|seen| seen == tokens)
    }
}

/// The text of the documentation comments among `attributes`.
pub fn documentation(attributes: &[Attribute]) -> String {
    let line = |attribute: &Attribute| match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => match &meta.value {
            Expr::Lit(ExprLit {
                lit: Lit::Str(text),
                ..
            }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    };
    let lines: Vec<_> = attributes.iter().filter_map(line).collect();
    lines.join("\n")
}

/// The blocks of Rust in `text`.
pub fn examples(text: &str) -> Vec<Example> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        let body: Vec<_> = lines
            .by_ref()
            .take_while(|line| !line.trim_start().starts_with("```"))
            .collect();
        if let Some(runs) = runs(info) {
            let skipped = ["no_run", "ignore"].iter().any(|word| info.contains(word));
            let tokens = tokens(&body);
            found.push(Example {
                runs,
                skipped,
                tokens,
            });
        }
    }
    found
}

/// Whether a block with this behind its fence runs; `None` if it is not Rust.
fn runs(info: &str) -> Option<bool> {
    let mut runs = true;
    for word in info.split([',', ' ']).filter(|word| !word.is_empty()) {
        match word {
            "rust" | "should_panic" => {}
            "no_run" | "compile_fail" | "ignore" => runs = false,
            _ => return None,
        }
    }
    Some(runs)
}

fn tokens(body: &[&str]) -> Vec<String> {
    let hidden = |line: &str| line.trim() == "#" || line.trim_start().starts_with("# ");
    let seen: Vec<_> = body.iter().copied().filter(|line| !hidden(line)).collect();
    let stream: TokenStream = match seen.join("\n").parse() {
        Ok(stream) => stream,
        // Hidden lines hold a part of a bracket: a guide shows whole ones.
        Err(_) => return Vec::new(),
    };
    let mut flat = Vec::new();
    flatten(stream, &mut flat);
    without_uses(&flat)
}

fn flatten(stream: TokenStream, flat: &mut Vec<String>) {
    for token in stream {
        match token {
            TokenTree::Group(group) => {
                flat.push("(".to_owned());
                flatten(group.stream(), flat);
                flat.push(")".to_owned());
            }
            other => flat.push(other.to_string()),
        }
    }
}

fn without_uses(tokens: &[String]) -> Vec<String> {
    let mut inside = false;
    let mut kept = Vec::new();
    for token in tokens {
        inside |= token == "use";
        if !inside {
            kept.push(token.clone());
        }
        inside &= token != ";";
    }
    kept
}
