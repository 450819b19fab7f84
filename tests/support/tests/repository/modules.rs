//! The modules of a crate and which of them names which, read from the source.
//!
//! Names are resolved as far as modules need it: paths that begin with `crate`, `self` or `super`,
//! child modules, names that a `use` brought in, re-exports, and globs of the same crate. A path
//! ends in the module that defines the item, so that `crate::Error` with `pub use error::Error` in
//! the root leads to `error`. Bodies of macros are read as tokens.
//!
//! Code under `#[cfg(test)]` is left out: tests may name what they like.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, ItemMod, ItemUse, Macro, Meta, UseTree, Visibility};

/// Gives the text of a file, if there is one at this path.
pub type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A path as it is written, in the module where it stands.
type Path = Vec<String>;

/// What a module contains, before names are resolved.
#[derive(Default)]
struct Module {
    /// Names of functions, types, constants, macros.
    items: BTreeSet<String>,
    /// Names that `use` brings in, and their paths.
    imports: BTreeMap<String, Path>,
    /// Paths of `use …::*`.
    globs: Vec<Path>,
    /// All paths, those of `use` included.
    paths: BTreeSet<Path>,
}

/// The modules of a crate by their paths: the root is `crate`, its child `crate::a`.
#[derive(Default)]
pub struct Crate {
    modules: BTreeMap<String, Module>,
}

/// Which module names which others, with one path by which it does so.
pub type Graph = BTreeMap<String, BTreeMap<String, String>>;

impl Crate {
    /// Reads a crate from its root file, such as `loader/src/lib.rs`.
    ///
    /// # Panics
    /// If a file cannot be parsed, or the file of a module is missing.
    pub fn read(root: &str, read: Read<'_>) -> Self {
        let mut found = Self::default();
        let (folder, _) = root.rsplit_once('/').unwrap_or(("", root));
        found.read_file(root, folder, "crate", read);
        found
    }

    /// Reads a module's file; files of its child modules lie in `folder`.
    fn read_file(&mut self, path: &str, folder: &str, module: &str, read: Read<'_>) {
        let text = read(path).unwrap_or_else(|| panic!("{path}: not there"));
        let file = syn::parse_file(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
        self.read_items(&file.items, folder, module, read);
    }

    fn read_items(&mut self, items: &[Item], folder: &str, module: &str, read: Read<'_>) {
        let mut reader = Reader { module: Module::default(), children: Vec::new() };
        items.iter().for_each(|item| reader.visit_item(item));
        let Reader { module: content, children } = reader;
        self.modules.insert(module.to_owned(), content);
        for child in children {
            let name = child.ident.to_string();
            let (path, below) = (format!("{module}::{name}"), format!("{folder}/{name}"));
            let custom = child.attrs.iter().any(|attribute| attribute.path().is_ident("path"));
            assert!(!custom, "{path}: #[path] is not supported");
            match &child.content {
                Some((_, items)) => self.read_items(items, &below, &path, read),
                None => {
                    let files = [format!("{below}.rs"), format!("{below}/mod.rs")];
                    let file = files.iter().find(|file| read(file).is_some());
                    self.read_file(
                        file.unwrap_or_else(|| panic!("{path}: no {}", files.join(" and no "))),
                        &below,
                        &path,
                        read,
                    );
                }
            }
        }
    }

    /// Who names whom. A module does not name itself.
    pub fn graph(&self) -> Graph {
        let mut graph = Graph::new();
        for (name, module) in &self.modules {
            let named = graph.entry(name.clone()).or_default();
            // Of several paths to a module, one that can be searched for in the file comes first.
            let is_local = |path: &&Path| !["crate", "self", "super"].contains(&path[0].as_str());
            let mut paths: Vec<&Path> = module.paths.iter().collect();
            paths.sort_by_key(is_local);
            for path in paths {
                if let Some(target) = self.resolve(name, path, 0)
                    && target != *name
                {
                    named.entry(target).or_insert_with(|| path.join("::"));
                }
            }
        }
        graph
    }

    /// The module that defines what a path names; `None` for a name from elsewhere.
    fn resolve(&self, from: &str, path: &[String], depth: usize) -> Option<String> {
        // Two modules that re-export each other's names by globs would never end.
        const DEEPEST: usize = 16;
        if depth > DEEPEST {
            return None;
        }
        let (first, rest) = path.split_first()?;
        let start = match first.as_str() {
            "crate" => "crate".to_owned(),
            "self" => from.to_owned(),
            "super" => parent(from)?.to_owned(),
            // A name that stands alone may be a local variable: only a name that this module knows
            // counts.
            _ => return self.member(from, path, depth),
        };
        self.member(&start, rest, depth).or(Some(start))
    }

    /// The module that defines this path, seen from inside `module`; `None` if `module` does not
    /// know its first name.
    fn member(&self, module: &str, path: &[String], depth: usize) -> Option<String> {
        let Some((first, rest)) = path.split_first() else { return Some(module.to_owned()) };
        if first == "super" {
            let up = parent(module)?;
            return self.member(up, rest, depth).or_else(|| Some(up.to_owned()));
        }
        let child = format!("{module}::{first}");
        if self.modules.contains_key(&child) {
            return self.member(&child, rest, depth).or(Some(child));
        }
        let content = self.modules.get(module)?;
        if content.items.contains(first) {
            return Some(module.to_owned());
        }
        if let Some(import) = content.imports.get(first) {
            // `use clap::Arg` names another crate, unless a module of this name is here.
            if import.first() == Some(first) && import.len() == 1 {
                return None;
            }
            let target = self.resolve(module, import, depth + 1)?;
            let is_module = self.modules.contains_key(&target)
                && target.rsplit("::").next() == import.last().map(String::as_str);
            return if is_module {
                self.member(&target, rest, depth + 1).or(Some(target))
            } else {
                Some(target)
            };
        }
        content.globs.iter().find_map(|glob| {
            let target = self.resolve(module, glob, depth + 1)?;
            if target == module { None } else { self.member(&target, path, depth + 1) }
        })
    }
}

/// The module around one.
pub fn parent(module: &str) -> Option<&str> {
    module.rsplit_once("::").map(|(parent, _)| parent)
}

/// Reads the items of one module, and leaves its child modules for later.
struct Reader {
    module: Module,
    children: Vec<ItemMod>,
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let Some((attributes, name)) = attributes_and_name(item) else { return };
        if !is_for_tests(attributes) {
            self.module.items.extend(name);
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => return,
        };
        if !is_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.children.push(item.clone());
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.add_use(&item.tree, &Vec::new());
    }

    // `pub(in crate::a)` and `pub(super)` say who may use a thing, and use nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Path>();
            self.module.paths.insert(names);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.add_tokens(call.tokens.clone());
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        self.add_tokens(item.mac.tokens.clone());
        self.visit_path(&item.mac.path);
    }
}

impl Reader {
    fn add_use(&mut self, tree: &UseTree, prefix: &Path) {
        let with = |name: String| {
            let mut path = prefix.clone();
            path.push(name);
            path
        };
        match tree {
            UseTree::Path(tree) => self.add_use(&tree.tree, &with(tree.ident.to_string())),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(tree, prefix)),
            UseTree::Glob(_) => {
                self.module.paths.insert(prefix.clone());
                self.module.globs.push(prefix.clone());
            }
            UseTree::Name(name) => self.add_import(name.ident.to_string(), with(name.ident.to_string())),
            UseTree::Rename(rename) => {
                self.add_import(rename.rename.to_string(), with(rename.ident.to_string()));
            }
        }
    }

    /// `use a::{self}` brings in `a`.
    fn add_import(&mut self, name: String, mut path: Path) {
        let name = if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
            if name == "self" { path.last().cloned().unwrap_or(name) } else { name }
        } else {
            name
        };
        self.module.paths.insert(path.clone());
        self.module.imports.insert(name, path);
    }

    /// Paths among tokens: names joined by `::`.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Path = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.add_path(&mut path);
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.add_path(&mut path);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.add_tokens(group.stream());
                    }
                }
            }
        }
        self.add_path(&mut path);
    }

    fn add_path(&mut self, path: &mut Path) {
        // One name alone is most often a variable, or a field.
        if path.len() > 1 {
            self.module.paths.insert(std::mem::take(path));
        }
        path.clear();
    }
}

/// Whether `#[cfg(…)]` leaves it out of a build that is not for tests.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let names: Vec<String> =
                list.tokens.to_string().split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect();
            names.iter().any(|name| name == "test") && !names.iter().any(|name| name == "not")
        }
        _ => false,
    })
}

/// The attributes of an item, and its name if others can refer to it.
fn attributes_and_name(item: &Item) -> Option<(&[Attribute], Option<String>)> {
    let (attributes, name) = match item {
        Item::Const(item) => (&item.attrs, Some(&item.ident)),
        Item::Enum(item) => (&item.attrs, Some(&item.ident)),
        Item::ExternCrate(item) => (&item.attrs, None),
        Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
        Item::ForeignMod(item) => (&item.attrs, None),
        Item::Impl(item) => (&item.attrs, None),
        Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
        Item::Mod(item) => (&item.attrs, None),
        Item::Static(item) => (&item.attrs, Some(&item.ident)),
        Item::Struct(item) => (&item.attrs, Some(&item.ident)),
        Item::Trait(item) => (&item.attrs, Some(&item.ident)),
        Item::TraitAlias(item) => (&item.attrs, Some(&item.ident)),
        Item::Type(item) => (&item.attrs, Some(&item.ident)),
        Item::Union(item) => (&item.attrs, Some(&item.ident)),
        Item::Use(item) => (&item.attrs, None),
        _ => return None,
    };
    Some((attributes, name.map(ToString::to_string)))
}
