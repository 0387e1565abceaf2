// SPDX-License-Identifier: MIT OR Apache-2.0

//! The modules of a crate, as they are written, and what of them is public.

use super::text::documentation;
use proc_macro2::{TokenStream, TokenTree};
use std::fs;
use std::path::Path;
use syn::{Attribute, ImplItem, Item, Macro, Meta, TraitItem, Type, UseTree, Visibility};

/// A module and what is in it.
pub struct Module {
    docs: String,
    items: Vec<Item>,
    inner: Vec<(String, bool, Module)>,
    /// Whether `inner` are crates.
    several: bool,
}

/// How an example shows that an item is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A type or a trait: an example of its own, or its name.
    Type,
    /// The same, with one of these variants: `Type::Variant`.
    Enum(Vec<String>),
    /// `name`, `name!`
    Free,
    /// `Type::name`
    Associated,
    /// `.name` or `Type::name`
    Method,
    /// `fn name`
    Implemented,
}

/// A public item, with the texts in which its example may be.
#[derive(Clone, Debug)]
pub struct Public {
    /// The path that a user writes, without the crate: `space::CodeSpace::link`.
    pub path: String,
    pub kind: Kind,
    /// Its own documentation.
    pub docs: String,
    /// That of its type, if it has one, and of its module.
    pub around: Vec<String>,
}

impl Public {
    pub fn name(&self) -> &str {
        self.path.rsplit("::").next().unwrap_or_default()
    }

    /// The type it belongs to.
    pub fn owner(&self) -> &str {
        self.path.rsplit("::").nth(1).unwrap_or_default()
    }
}

/// The crate whose root is the file `root`.
pub fn read(root: &Path) -> Module {
    let folder = root.parent().expect("the root is a file in a folder");
    read_file(root, folder)
}

/// Several crates, the lower ones first, as one: each is a module of its name.
pub fn together(crates: Vec<(&str, Module)>) -> Module {
    let named = |(name, module): (&str, Module)| (name.to_owned(), true, module);
    Module {
        docs: String::new(),
        items: Vec::new(),
        inner: crates.into_iter().map(named).collect(),
        several: true,
    }
}

fn read_file(file: &Path, folder: &Path) -> Module {
    let text = fs::read_to_string(file)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
    parse(&text, &|name| {
        let inner = folder.join(name);
        let beside = folder.join(format!("{name}.rs"));
        match beside.exists() {
            true => read_file(&beside, &inner),
            false => read_file(&inner.join("mod.rs"), &inner),
        }
    })
}

/// The module with this text; `find` gives those that are in files of their own.
pub fn parse(text: &str, find: &dyn Fn(&str) -> Module) -> Module {
    let file = syn::parse_file(text).expect("the file is Rust");
    module(documentation(&file.attrs), file.items, find)
}

fn module(docs: String, items: Vec<Item>, find: &dyn Fn(&str) -> Module) -> Module {
    let mut inner = Vec::new();
    for item in &items {
        let Item::Mod(found) = item else { continue };
        if !is_shown(&found.attrs) {
            continue;
        }
        let name = found.ident.to_string();
        let content = match &found.content {
            Some((_, items)) => module(documentation(&found.attrs), items.clone(), find),
            None => find(&name),
        };
        inner.push((name, is_public(&found.vis), content));
    }
    Module {
        docs,
        items,
        inner,
        several: false,
    }
}

/// Not for tests only, and not hidden.
fn is_shown(attributes: &[Attribute]) -> bool {
    !attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => {
            let inside = list.tokens.to_string();
            list.path.is_ident("cfg") && inside == "test"
                || list.path.is_ident("doc") && inside == "hidden"
        }
        _ => false,
    })
}

const fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Where an item is written: its module, from the root, and its name there.
type Home = (Vec<String>, String);

/// The public items of a crate.
pub fn public_items(root: &Module) -> Vec<Public> {
    let mut collector = Collector {
        root,
        seen: Vec::new(),
        found: Vec::new(),
    };
    collector.module(root, &[], "");
    each(root, &mut Vec::new(), &mut |module, _| {
        collector.macros(module)
    });
    collector.found
}

/// The macros that are called where items are written and may make public ones,
/// which nobody sees here: those of other crates, and those that say `pub`.
pub fn makers_of_items(root: &Module) -> Vec<String> {
    let mut harmless = Vec::new();
    each(root, &mut Vec::new(), &mut |module, _| {
        for item in &module.items {
            let Item::Macro(item) = item else { continue };
            let name = item.ident.as_ref().map(ToString::to_string);
            harmless.extend(name.filter(|_| !says_pub(item.mac.tokens.clone())));
        }
    });
    let mut found = Vec::new();
    each(root, &mut Vec::new(), &mut |module, at| {
        for called in module.items.iter().flat_map(called_in) {
            let name = called.path.segments.last();
            let name = name.map_or_else(String::new, |last| last.ident.to_string());
            if !harmless.contains(&name) || says_pub(called.tokens.clone()) {
                found.push(joined(at, &name).join("::"));
            }
        }
    });
    found
}

/// The macros that `item` calls, if they make items.
fn called_in(item: &Item) -> Vec<&Macro> {
    match item {
        Item::Macro(item) if item.ident.is_none() => vec![&item.mac],
        Item::Impl(item) if item.trait_.is_none() => {
            let inside = item.items.iter().filter_map(|item| match item {
                ImplItem::Macro(item) => Some(&item.mac),
                _ => None,
            });
            inside.collect()
        }
        _ => Vec::new(),
    }
}

fn says_pub(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Group(group) => says_pub(group.stream()),
        TokenTree::Ident(name) => name == "pub",
        _ => false,
    })
}

struct Collector<'a> {
    root: &'a Module,
    /// What has a shorter path already.
    seen: Vec<Home>,
    found: Vec<Public>,
}

impl<'a> Collector<'a> {
    /// What users see of `module`, which is at `at` and which they call `path`.
    fn module(&mut self, module: &Module, at: &[String], path: &str) {
        for item in &module.items {
            match item {
                Item::Use(item) if is_public(&item.vis) => {
                    assert!(
                        !has_glob(&item.tree),
                        "{path}*: export items by their names"
                    );
                    for (name, target) in leaves(&item.tree) {
                        let home = self.resolve(at, &target, 0);
                        let home = home.unwrap_or_else(|| {
                            panic!("{path}{name}: this check can't find what is exported")
                        });
                        self.item(&home, &format!("{path}{name}"), &module.docs);
                    }
                }
                other => {
                    if let Some(name) = public_name(other) {
                        let home = (at.to_vec(), name.clone());
                        self.item(&home, &format!("{path}{name}"), &module.docs);
                    }
                }
            }
        }
        for (name, public, inner) in &module.inner {
            let mut at = at.to_vec();
            at.push(name.clone());
            if *public {
                self.module(inner, &at, &format!("{path}{name}::"));
            }
        }
    }

    /// Macros are public at the root, wherever they are written.
    fn macros(&mut self, module: &Module) {
        for item in &module.items {
            let Item::Macro(item) = item else { continue };
            let exported = |attribute: &Attribute| attribute.path().is_ident("macro_export");
            if let (Some(name), true) = (&item.ident, item.attrs.iter().any(exported)) {
                let around = vec![module.docs.clone(), self.root.docs.clone()];
                self.add(name.to_string(), Kind::Free, &item.attrs, around);
            }
        }
    }

    fn add(&mut self, path: String, kind: Kind, attributes: &[Attribute], around: Vec<String>) {
        if is_shown(attributes) {
            let docs = documentation(attributes);
            self.found.push(Public {
                path,
                kind,
                docs,
                around,
            });
        }
    }

    /// The item at `home`, and what belongs to it.
    fn item(&mut self, home: &Home, path: &str, docs: &str) {
        if self.seen.contains(home) {
            return;
        }
        self.seen.push(home.clone());
        let (at, name) = home;
        let around = vec![docs.to_owned()];
        let written = self.at(at).items.iter();
        let named: Vec<_> = written
            .filter(|item| name_of(item).as_ref() == Some(name))
            .collect();
        assert!(
            !named.is_empty(),
            "{path}: this check can't find where it is written"
        );
        // A type and a function may have one name.
        for item in named {
            let around = around.clone();
            match item {
                Item::Fn(item) => self.add(path.to_owned(), Kind::Free, &item.attrs, around),
                Item::Const(item) => self.add(path.to_owned(), Kind::Free, &item.attrs, around),
                Item::Static(item) => self.add(path.to_owned(), Kind::Free, &item.attrs, around),
                Item::Type(item) => self.add(path.to_owned(), Kind::Type, &item.attrs, around),
                Item::Struct(item) => {
                    self.type_with_methods(home, path, Kind::Type, &item.attrs, around)
                }
                Item::Union(item) => {
                    self.type_with_methods(home, path, Kind::Type, &item.attrs, around)
                }
                Item::Enum(item) => {
                    let names = item
                        .variants
                        .iter()
                        .map(|variant| variant.ident.to_string());
                    let kind = Kind::Enum(names.collect());
                    self.type_with_methods(home, path, kind, &item.attrs, around);
                }
                Item::Trait(item) => {
                    let inner = vec![documentation(&item.attrs), docs.to_owned()];
                    self.add(path.to_owned(), Kind::Type, &item.attrs, around);
                    for method in &item.items {
                        if let TraitItem::Fn(method) = method {
                            let path = format!("{path}::{}", method.sig.ident);
                            self.add(path, Kind::Implemented, &method.attrs, inner.clone());
                        }
                    }
                }
                _ => panic!("{path}: this check does not know such an item"),
            }
        }
    }

    fn type_with_methods(
        &mut self,
        home: &Home,
        path: &str,
        kind: Kind,
        attributes: &[Attribute],
        around: Vec<String>,
    ) {
        let inner = [vec![documentation(attributes)], around.clone()].concat();
        self.add(path.to_owned(), kind, attributes, around);
        let mut implementations = Vec::new();
        each(self.root, &mut Vec::new(), &mut |module, at| {
            for item in &module.items {
                let Item::Impl(item) = item else { continue };
                let target = target_of(&item.self_ty);
                let own = item.trait_.is_none() && is_shown(&item.attrs);
                if own && target.and_then(|name| self.resolve(at, &name, 0)).as_ref() == Some(home)
                {
                    implementations.extend(item.items.clone());
                }
            }
        });
        for item in implementations {
            match item {
                ImplItem::Fn(item) if is_public(&item.vis) => {
                    let kind = match item.sig.receiver() {
                        Some(_) => Kind::Method,
                        None => Kind::Associated,
                    };
                    let path = format!("{path}::{}", item.sig.ident);
                    self.add(path, kind, &item.attrs, inner.clone());
                }
                ImplItem::Const(item) if is_public(&item.vis) => {
                    let path = format!("{path}::{}", item.ident);
                    self.add(path, Kind::Associated, &item.attrs, inner.clone());
                }
                _ => {}
            }
        }
    }

    fn at(&self, at: &[String]) -> &'a Module {
        self.find(at).expect("modules were found before")
    }

    fn find(&self, at: &[String]) -> Option<&'a Module> {
        at.iter().try_fold(self.root, |module, name| {
            let mut inner = module.inner.iter();
            inner
                .find(|(other, ..)| other == name)
                .map(|(.., found)| found)
        })
    }

    fn is_crate(&self, name: &str) -> bool {
        self.root.several && self.root.inner.iter().any(|(known, ..)| known == name)
    }

    /// Where the item is written that is called `path` in the module at `at`.
    fn resolve(&self, at: &[String], path: &[String], depth: usize) -> Option<Home> {
        // `use` declarations may go round in a circle.
        if depth > 16 {
            return None;
        }
        let (name, folders) = path.split_last()?;
        let mut at = at.to_vec();
        for (number, folder) in folders.iter().enumerate() {
            match folder.as_str() {
                "crate" => at.truncate(usize::from(self.root.several)),
                _ if number == 0 && self.is_crate(folder) => at = vec![folder.clone()],
                "self" => {}
                "super" => drop(at.pop()?),
                _ if number == 0 && self.find(&joined(&at, folder)).is_none() => {
                    let (inner, name) =
                        self.resolve(&at, std::slice::from_ref(folder), depth + 1)?;
                    at = joined(&inner, &name);
                }
                folder => at.push(folder.to_owned()),
            }
        }
        let module = self.find(&at)?;
        let mut written = module.items.iter().filter_map(name_of);
        if written.any(|written| written == *name) {
            return Some((at, name.clone()));
        }
        let uses = module.items.iter().filter_map(|item| match item {
            Item::Use(item) => Some(leaves(&item.tree)),
            _ => None,
        });
        let (_, target) = uses.flatten().find(|(known, _)| known == name)?;
        (target != [name.clone()]).then_some(())?;
        self.resolve(&at, &target, depth + 1)
    }
}

fn joined(at: &[String], name: &str) -> Vec<String> {
    let mut at = at.to_vec();
    at.push(name.to_owned());
    at
}

fn each<'a>(
    module: &'a Module,
    at: &mut Vec<String>,
    visit: &mut dyn FnMut(&'a Module, &[String]),
) {
    visit(module, at);
    for (name, _, inner) in &module.inner {
        at.push(name.clone());
        each(inner, at, visit);
        at.pop();
    }
}

fn target_of(target: &Type) -> Option<Vec<String>> {
    let Type::Path(path) = target else {
        return None;
    };
    let segments = path.path.segments.iter();
    Some(segments.map(|part| part.ident.to_string()).collect())
}

fn has_glob(tree: &UseTree) -> bool {
    match tree {
        UseTree::Path(path) => has_glob(&path.tree),
        UseTree::Group(group) => group.items.iter().any(has_glob),
        UseTree::Glob(_) => true,
        _ => false,
    }
}

/// The names that a `use` declaration brings in, and the paths they stand for.
fn leaves(tree: &UseTree) -> Vec<(String, Vec<String>)> {
    match tree {
        UseTree::Path(path) => {
            let mut inner = leaves(&path.tree);
            for (_, target) in &mut inner {
                target.insert(0, path.ident.to_string());
            }
            inner
        }
        UseTree::Name(name) => vec![(name.ident.to_string(), vec![name.ident.to_string()])],
        UseTree::Rename(name) => vec![(name.rename.to_string(), vec![name.ident.to_string()])],
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
        // Private ones can't hide a public item: that one is written somewhere.
        UseTree::Glob(_) => Vec::new(),
    }
}

fn name_of(item: &Item) -> Option<String> {
    Some(match item {
        Item::Fn(item) => item.sig.ident.to_string(),
        Item::Const(item) => item.ident.to_string(),
        Item::Static(item) => item.ident.to_string(),
        Item::Type(item) => item.ident.to_string(),
        Item::Struct(item) => item.ident.to_string(),
        Item::Union(item) => item.ident.to_string(),
        Item::Enum(item) => item.ident.to_string(),
        Item::Trait(item) => item.ident.to_string(),
        _ => return None,
    })
}

fn public_name(item: &Item) -> Option<String> {
    let visibility = match item {
        Item::Fn(item) => &item.vis,
        Item::Const(item) => &item.vis,
        Item::Static(item) => &item.vis,
        Item::Type(item) => &item.vis,
        Item::Struct(item) => &item.vis,
        Item::Union(item) => &item.vis,
        Item::Enum(item) => &item.vis,
        Item::Trait(item) => &item.vis,
        _ => return None,
    };
    is_public(visibility).then(|| name_of(item)).flatten()
}
