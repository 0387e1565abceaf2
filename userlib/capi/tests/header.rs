// SPDX-License-Identifier: MIT OR Apache-2.0

//! The committed header is what the source says. To write it anew:
//!
//! ```text
//! UPDATE=1 cargo test -p jitfd-capi --test header
//! ```

use cbindgen::{Builder, Config, DocumentationStyle, Language, Style};
use std::path::{Path, PathBuf};

/// The files with items for C, in the order of the header.
const FILES: &[&str] = &[
    "guard",
    "version",
    "code_error",
    "backend",
    "code",
    "rules",
    "chunk",
    "lines",
    "region",
    "stats",
    "space",
    "link",
    "registers",
    "eh_frame",
    "registration",
    "table",
    "thunk",
    "closure",
    "save_all",
    "libffi",
    "probe",
];

const HEAD: &str = "\
/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * libjitfd: executable code for JIT compilers, from a kernel that never maps it
 * writable. See jitfd(7) for an overview.
 *
 * A function that returns int returns 0, or -1 with errno, unless it says otherwise;
 * one that returns a pointer returns NULL with errno. jitfd_error() has the text.
 * EINVAL: a pointer that is not said to be optional is NULL, a flag is unknown, or a
 * size is not set; E2BIG: a struct asks for what this version of the library does not
 * have; ENOMEM; ENOTRECOVERABLE: a bug of the library. After an error everything is as it
 * was before the call.
 *
 * What ..._create() and others return is given back by ..._destroy(), or as they say.
 * All functions may be called from several threads at once, also on one object, but
 * for those that give it back.
 *
 * Zero a struct that begins with its size, and set that:
 *
 *     struct jitfd_rules rules = {0};
 *     rules.size = sizeof(rules);
 *
 * Generated from userlib/capi/src; tests/header.rs there says how.
 */";

fn config() -> Config {
    let mut config = Config {
        language: Language::C,
        header: Some(HEAD.to_owned()),
        include_guard: Some("JITFD_H".to_owned()),
        no_includes: true,
        sys_includes: ["stddef.h", "stdint.h"].map(str::to_owned).into(),
        cpp_compat: true,
        style: Style::Both,
        usize_is_size_t: true,
        documentation: true,
        documentation_style: DocumentationStyle::Doxy,
        line_length: 90,
        ..Config::default()
    };
    config.function.sort_by = Some(cbindgen::SortKey::None);
    config
}

fn generated(root: &Path) -> String {
    let builder = FILES.iter().fold(Builder::new(), |builder, file| {
        builder.with_src(root.join("src").join(file).with_extension("rs"))
    });
    let bindings = builder.with_config(config()).generate().unwrap();
    let mut text = Vec::new();
    bindings.write(&mut text);
    // The generator's own comments are not C90's.
    let text = String::from_utf8(text).unwrap();
    text.replace("// __cplusplus", "/* __cplusplus */")
        .replace("// extern \"C\"", "/* extern \"C\" */")
}

#[test]
fn the_header_is_up_to_date() {
    // Of this checkout, also if another was copied with its programs.
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(".".into()));
    let header = root.join("include/jitfd.h");
    let wanted = generated(&root);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&header, &wanted).unwrap();
    }
    let committed = std::fs::read_to_string(&header).unwrap_or_default();
    assert!(
        committed == wanted,
        "userlib/capi/include/jitfd.h is not what the source says; UPDATE=1 cargo test -p jitfd-capi \
         --test header writes it anew"
    );
}
