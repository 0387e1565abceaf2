// SPDX-License-Identifier: MIT OR Apache-2.0

//! The man pages of section 3 are what the header says: one page for each family of
//! functions, with the prototypes, the structs, the constants and what is said about
//! them. `install.sh` lets `man` find the page of each function by the names at its top.
//! To write them anew:
//!
//! ```text
//! UPDATE=1 cargo test -p jitfd-capi --test header --test man
//! ```

use std::fmt::Write;
use std::path::PathBuf;

/// One page: its functions are those that begin with one of the words, and so are its
/// structs and constants.
struct Page {
    /// The first of its functions, after which it is called.
    name: &'static str,
    what: &'static str,
    functions: &'static [&'static str],
    types: &'static [&'static str],
    constants: &'static [&'static str],
    /// Of other pages.
    also: &'static [&'static str],
}

const PAGES: &[Page] = &[
    Page {
        name: "jitfd_error",
        what: "why the last call of libjitfd has failed",
        functions: &["jitfd_error", "jitfd_get_code_error", "jitfd_version"],
        types: &["jitfd_code_error"],
        constants: &["JITFD_REASON_", "JITFD_FORBID_NAMED"],
        also: &["jitfd_validate"],
    },
    Page {
        name: "jitfd_allow_fallback",
        what: "what makes code executable",
        functions: &[
            "jitfd_allow_fallback",
            "jitfd_backend",
            "jitfd_set_fallback_hook",
            "jitfd_probe_",
        ],
        types: &[
            "jitfd_fallback_hook",
            "jitfd_probe",
            "jitfd_trial",
            "jitfd_finding",
        ],
        constants: &["JITFD_FALLBACK_", "JITFD_BACKEND_", "JITFD_VERDICT_"],
        also: &["jit_create_code"],
    },
    Page {
        name: "jitfd_make_executable",
        what: "an engine's own pages as code, and back",
        functions: &["jitfd_make_"],
        types: &[],
        constants: &[],
        also: &["jit_create_code", "jitfd_allow_fallback"],
    },
    Page {
        name: "jitfd_validate",
        what: "check machine code",
        functions: &[
            "jitfd_validate",
            "jitfd_assume_valid",
            "jitfd_chunk_",
            "jitfd_line_",
        ],
        types: &[
            "jitfd_rules",
            "jitfd_range",
            "jitfd_chunk",
            "jitfd_chunk_info",
        ],
        constants: &["JITFD_RULE_", "JITFD_FORBID_", "JITFD_CHUNK_"],
        also: &["jitfd_error", "jit_create_code", "jitfd_region_create"],
    },
    Page {
        name: "jitfd_region_create",
        what: "executable code that grows",
        functions: &["jitfd_region_"],
        types: &[
            "jitfd_region",
            "jitfd_region_options",
            "jitfd_region_info",
            "jitfd_place",
            "jitfd_emitter",
            "jitfd_stats",
        ],
        constants: &["JITFD_REGION_"],
        also: &["jitfd_validate", "jitfd_space_create"],
    },
    Page {
        name: "jitfd_space_create",
        what: "named functions in as many regions as it takes",
        functions: &["jitfd_space_"],
        types: &[
            "jitfd_space",
            "jitfd_space_options",
            "jitfd_listener",
            "jitfd_symbol",
            "jitfd_request",
            "jitfd_slot",
            "jitfd_item",
            "jitfd_reloc",
            "jitfd_thunk",
            "jitfd_register_value",
            "jitfd_space_stats",
        ],
        constants: &["JITFD_SPACE_", "JITFD_RELOC_", "JITFD_REG_"],
        also: &[
            "jitfd_validate",
            "jitfd_region_create",
            "jitfd_eh_frame_create",
        ],
    },
    Page {
        name: "jitfd_eh_frame_create",
        what: "exceptions, backtraces and debuggers",
        functions: &["jitfd_eh_frame_", "jitfd_gdb_register", "jitfd_unregister"],
        types: &[
            "jitfd_frame",
            "jitfd_frame_step",
            "jitfd_eh_frame",
            "jitfd_registration",
        ],
        constants: &["JITFD_FRAME_"],
        also: &["jitfd_space_create"],
    },
    Page {
        name: "jitfd_table_create",
        what: "function pointers that carry a pointer, and other trampolines",
        functions: &[
            "jitfd_table_",
            "jitfd_closure_",
            "jitfd_save_all_",
            "jitfd_ffi_closure_",
        ],
        types: &[
            "jitfd_function",
            "jitfd_table",
            "jitfd_table_options",
            "jitfd_table_stats",
            "jitfd_closure",
            "jitfd_closure_handler",
            "jitfd_registers",
            "jitfd_save_all",
            "jitfd_save_all_handler",
            "jitfd_saved_registers",
        ],
        constants: &["JITFD_TABLE_"],
        also: &["jitfd_space_create"],
    },
];

/// The functions of the page that is written by hand.
const BY_HAND: [&str; 4] = [
    "jit_create_code",
    "jit_destroy_code",
    "jitfd_create_code",
    "jitfd_create_code_at",
];

/// A declaration of the header.
struct Declared {
    /// What is said about it, line by line.
    text: Vec<String>,
    /// Its lines.
    code: Vec<String>,
}

impl Declared {
    /// The function's name.
    fn function(&self) -> Option<&str> {
        let first = self.code.first()?;
        if first.starts_with("typedef") || first.starts_with('#') {
            return None;
        }
        let name = first.split('(').next()?;
        name.rsplit([' ', '*']).next()
    }

    /// The type's name.
    fn named_type(&self) -> Option<&str> {
        let first = self.code.first()?.strip_prefix("typedef ")?;
        match first
            .strip_prefix("void (*")
            .or(first.strip_prefix("struct jitfd_chunk *(*"))
        {
            Some(function) => function.split(')').next(),
            None => first.split([' ', ';']).nth(1),
        }
        .map(|name| name.trim_end_matches(';'))
    }

    fn constant(&self) -> Option<&str> {
        self.code
            .first()?
            .strip_prefix("#define ")?
            .split(' ')
            .next()
    }
}

fn lines_of(text: &str) -> Vec<Declared> {
    let mut all = Vec::new();
    let mut lines = text.lines().peekable();
    let mut said = Vec::new();
    while let Some(line) = lines.next() {
        if line == "/**" {
            said = lines
                .by_ref()
                .take_while(|line| *line != " */")
                .map(|line| line.trim_start_matches(" *").trim_start().to_owned())
                .collect();
            continue;
        }
        if said.is_empty() {
            continue;
        }
        let mut code = vec![line.to_owned()];
        let structure = line.ends_with('{');
        let end = |line: &str| match structure {
            true => line.starts_with('}'),
            false => line.ends_with(';'),
        };
        while !line.starts_with('#') && !end(code.last().unwrap()) {
            code.push(lines.next().unwrap().to_owned());
        }
        let text = std::mem::take(&mut said);
        all.push(Declared { text, code });
    }
    all
}

/// Text for groff, which takes some characters for commands.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

/// What is said, one sentence or clause a line as it comes; an empty line is a paragraph.
fn say(page: &mut String, text: &[String]) {
    for line in text {
        match line.is_empty() {
            true => page.push_str(".P\n"),
            false => writeln!(page, "{}", escaped(line)).unwrap(),
        }
    }
}

fn show(page: &mut String, lines: &[String]) {
    page.push_str(".P\n.in +4n\n.EX\n");
    for line in lines {
        match line.trim_end() {
            "" => page.push_str("\\&\n"),
            line => writeln!(page, "{}", escaped(line)).unwrap(),
        }
    }
    page.push_str(".EE\n.in\n");
}

/// A struct without what is said about its fields: that comes behind it.
fn fields(code: &[String]) -> (Vec<String>, Vec<(String, Vec<String>)>) {
    let (mut plain, mut told) = (Vec::new(), Vec::new());
    let mut said: Vec<String> = Vec::new();
    for line in code {
        let inner = line.trim_start();
        match inner.strip_prefix('*') {
            Some("/") => {}
            Some(text) => said.push(text.trim().to_owned()),
            None if inner == "/**" => said.clear(),
            None => {
                plain.push(line.replace("  ", "    "));
                if line.starts_with("  ") {
                    let name = inner.trim_end_matches(';').split('[').next().unwrap();
                    let name = name.rsplit([' ', '*']).next().unwrap().to_owned();
                    told.push((name, std::mem::take(&mut said)));
                }
            }
        }
    }
    (plain, told)
}

fn written(page: &Page, all: &[Declared]) -> (String, Vec<String>) {
    let mut text = format!(
        "'\\\" t\n.\\\" SPDX-License-Identifier: MIT OR Apache-2.0\n.\\\" From jitfd.h; \
         userlib/capi/tests/man.rs says how.\n.TH {} 3 2026-11-30 \"jitfd 0.1.0\"\n",
        page.name
    );
    let mine = |name: &str| page.functions.iter().any(|word| name.starts_with(word));
    let functions: Vec<&Declared> = all
        .iter()
        .filter(|one| one.function().is_some_and(mine))
        .collect();
    let mut names: Vec<String> = functions
        .iter()
        .filter_map(|one| one.function())
        .map(str::to_owned)
        .collect();
    let first = names.iter().position(|name| name == page.name).unwrap();
    names[..=first].rotate_right(1);
    writeln!(text, ".SH NAME\n{} \\- {}", names.join(",\n"), page.what).unwrap();
    text.push_str(".SH LIBRARY\nlibjitfd\n.RI ( \\-ljitfd )\n.SH SYNOPSIS\n.nf\n");
    text.push_str(".B #include <jitfd.h>\n.P\n");
    for one in &functions {
        for line in &one.code {
            writeln!(text, "{}", escaped(line)).unwrap();
        }
    }
    text.push_str(".fi\n.SH DESCRIPTION\nAn introduction is in\n.BR jitfd (7).\n");
    text.push_str("What holds for all functions is said there, under Errors.\n");
    for one in &functions {
        writeln!(text, ".SS {}()", one.function().unwrap()).unwrap();
        say(&mut text, &one.text);
    }
    if !page.types.is_empty() {
        text.push_str(".SH TYPES\n");
    }
    for wanted in page.types {
        let found = all.iter().find(|one| one.named_type() == Some(wanted));
        let one = found.unwrap_or_else(|| panic!("there is no type {wanted}"));
        writeln!(text, ".SS {wanted}").unwrap();
        say(&mut text, &one.text);
        let (plain, told) = fields(&one.code);
        show(&mut text, &plain);
        for (name, said) in told {
            writeln!(text, ".TP\n.I {name}").unwrap();
            say(&mut text, &said);
        }
    }
    if !page.constants.is_empty() {
        text.push_str(".SH CONSTANTS\n");
    }
    let mine = |name: &str| page.constants.iter().any(|word| name.starts_with(word));
    for one in all.iter().filter(|one| one.constant().is_some_and(mine)) {
        writeln!(text, ".TP\n.B {}", one.constant().unwrap()).unwrap();
        say(&mut text, &one.text);
    }
    text.push_str(".SH SEE ALSO\n");
    for other in page.also {
        writeln!(text, ".BR {other} (3),").unwrap();
    }
    text.push_str(".BR jit (4),\n.BR jitfd (7)\n");
    (text, names)
}

#[test]
fn the_pages_are_up_to_date() {
    // Of this checkout, also if another was copied with its programs.
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(".".into()));
    let header = std::fs::read_to_string(root.join("include/jitfd.h")).unwrap();
    let all = lines_of(&header);
    let mut known: Vec<String> = BY_HAND.map(str::to_owned).into();
    for page in PAGES {
        let path = root.join(format!("../../Documentation/man/{}.3", page.name));
        let (wanted, names) = written(page, &all);
        known.extend(names);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == wanted,
            "{} is not what the header says; UPDATE=1 cargo test -p jitfd-capi --test header \
             --test man writes it anew",
            path.display()
        );
    }
    let mut declared: Vec<_> = all.iter().filter_map(Declared::function).collect();
    known.sort();
    declared.sort_unstable();
    assert_eq!(known, declared, "each function has one page");
    for one in all.iter().filter_map(Declared::constant) {
        let has = |page: &Page| page.constants.iter().any(|word| one.starts_with(word));
        assert!(PAGES.iter().any(has), "{one} is on no page");
    }
    for one in all.iter().filter_map(Declared::named_type) {
        let has = |page: &Page| page.types.contains(&one);
        assert!(PAGES.iter().any(has), "{one} is on no page");
    }
}
