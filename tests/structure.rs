//! The structure of `src`: imports go downwards, from the module that defines, and in no circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The folders of `src`, lowest line first. A folder imports from lower lines only.
const LINES: [&[&str]; 7] = [
    &["error"],
    &["events", "origin", "replay", "token"],
    &["cache", "klavi"],
    &["fleet"],
    &["request"],
    &["layer"],
    &["clients"],
];

/// What the sandbox knows of the crate: it is a simulated Klavi and stands beside it.
const SANDBOX_IMPORTS: [&str; 3] = ["klavi/api.rs", "klavi/credentials.rs", "klavi/product.rs"];

/// The source of each file of `src` without comments and tests, by its path.
fn files() -> BTreeMap<String, String> {
    fn collect(folder: &Path, files: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !["docs", "loom", "tests"].contains(&name) {
                collect(&path, files);
            } else if name.ends_with(".rs") {
                let source = fs::read_to_string(&path).unwrap();
                let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
                let lines = code
                    .lines()
                    .filter(|line| !line.trim_start().starts_with("//"));
                let path = path.strip_prefix(SRC).unwrap().to_str().unwrap().to_owned();
                files.insert(path, lines.collect::<Vec<_>>().join("\n"));
            }
        }
    }
    let mut files = BTreeMap::new();
    collect(Path::new(SRC), &mut files);
    files
}

const SRC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

/// The module of a file, as the segments of its path.
fn module(file: &str) -> Vec<&str> {
    let mut segments: Vec<_> = file.trim_end_matches(".rs").split('/').collect();
    if matches!(segments.last(), Some(&"mod" | &"lib")) {
        segments.pop();
    }
    segments
}

/// The paths of a use tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, rest)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap().to_owned()];
    };
    let (mut depth, mut start, mut paths) = (0, 0, Vec::new());
    let inner = &rest[..rest.rfind('}').expect("a use tree is closed")];
    for (at, char) in inner.char_indices().chain([(inner.len(), ',')]) {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let branch = inner[start..at].trim();
                paths.extend(expand(branch).iter().map(|path| format!("{prefix}{path}")));
                start = at + 1;
            }
            _ => {}
        }
    }
    paths.retain(|path| !path.ends_with("::"));
    paths
}

/// The paths of this crate that a file names, from the root of the crate.
fn paths(file: &str, code: &str) -> Vec<Vec<String>> {
    let mut named = Vec::new();
    let (mut rest, mut inline) = (code, String::new());
    while let Some(at) = rest.find("use ") {
        let before = rest[..at].rsplit('\n').next().unwrap_or_default().trim();
        let is_statement = ["", "pub", "pub(crate)", "pub(super)"].contains(&before);
        inline.push_str(&rest[..at]);
        let (statement, after) = rest[at + 4..].split_once(';').unwrap_or(("", ""));
        if is_statement {
            named.extend(expand(statement));
            rest = after;
        } else {
            rest = &rest[at + 4..];
        }
    }
    inline.push_str(rest);
    for (at, _) in inline.match_indices("crate::") {
        let is_path = |char: char| char.is_alphanumeric() || "_:".contains(char);
        let is_macro_arm = inline[..at].ends_with('$');
        let end = inline[at..]
            .find(|char| !is_path(char))
            .unwrap_or(inline.len() - at);
        if !is_macro_arm {
            named.push(inline[at..at + end].trim_end_matches(':').to_owned());
        }
    }
    let resolve = |path: String| {
        let mut base: Vec<String> = module(file).into_iter().map(str::to_owned).collect();
        let mut segments = path.split("::").map(str::to_owned).peekable();
        match segments.next()?.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                base.pop();
                while segments.next_if(|segment| segment == "super").is_some() {
                    base.pop();
                }
            }
            _ => return None,
        }
        base.extend(segments);
        Some(base)
    };
    named.into_iter().filter_map(resolve).collect()
}

/// The file that defines what a path leads to: its longest part that is a module.
fn defining<'a>(path: &[String], files: &'a BTreeMap<String, String>) -> Option<&'a str> {
    (1..=path.len()).rev().find_map(|length| {
        let module = path[..length].join("/");
        let names = [format!("{module}.rs"), format!("{module}/mod.rs")];
        names
            .iter()
            .find_map(|name| files.get_key_value(name))
            .map(|(name, _)| name.as_str())
    })
}

/// Which files a file imports from, and what it imports from the root.
fn imports() -> (BTreeMap<String, BTreeSet<String>>, Vec<String>) {
    let files = files();
    let (mut imports, mut from_root) = (BTreeMap::new(), Vec::new());
    for (file, code) in files.iter().filter(|(file, _)| *file != "lib.rs") {
        let mut targets = BTreeSet::new();
        for path in paths(file, code) {
            match defining(&path, &files) {
                Some(target) if target != file => drop(targets.insert(target.to_owned())),
                Some(_) => {}
                None => from_root.push(format!("{file}: crate::{}", path.join("::"))),
            }
        }
        imports.insert(file.clone(), targets);
    }
    (imports, from_root)
}

fn folder(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap()
}

fn line(folder: &str) -> Option<usize> {
    LINES.iter().position(|line| line.contains(&folder))
}

#[test]
fn nothing_is_imported_from_the_root_of_the_crate() {
    assert_eq!(imports().1, Vec::<String>::new());
}

#[test]
fn folders_import_from_lower_lines_only() {
    let mut upward = Vec::new();
    for (file, targets) in imports().0 {
        for target in targets
            .iter()
            .filter(|target| folder(target) != folder(&file))
        {
            let is_downward = match (folder(&file), line(folder(&file)), line(folder(target))) {
                ("sandbox", ..) => SANDBOX_IMPORTS.contains(&target.as_str()),
                (_, Some(here), Some(there)) => there < here,
                _ => false,
            };
            if !is_downward {
                upward.push(format!("{file} imports from {target}"));
            }
        }
    }
    assert_eq!(upward, Vec::<String>::new());
}

#[test]
fn no_file_imports_from_itself_by_way_of_others() {
    let (mut imports, _) = imports();
    // Files that import from nothing that is left are in no circle.
    loop {
        let free = imports.iter().filter(|(_, targets)| targets.is_empty());
        let free: Vec<_> = free.map(|(file, _)| file.clone()).collect();
        if free.is_empty() {
            break;
        }
        imports.retain(|file, _| !free.contains(file));
        imports
            .values_mut()
            .for_each(|targets| targets.retain(|file| !free.contains(file)));
    }
    assert_eq!(imports, BTreeMap::new());
}

#[test]
fn the_architecture_page_names_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The package on crates.io comes without the page.
    let Ok(page) = fs::read_to_string(root.join("ARCHITECTURE.md")) else {
        return;
    };
    let named = page.split('`').filter(|path| path.starts_with("src/"));
    let missing: Vec<_> = named.filter(|path| !root.join(path).exists()).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn the_check_sees_nested_imports_and_inline_paths() {
    let code =
        "use crate::a::{B, c::{self, D}};\n#[cfg(x)]\nuse super::e::F;\nfn f(x: crate::G) {}";
    let paths = paths("folder/file.rs", code);
    let paths: Vec<_> = paths.iter().map(|path| path.join("::")).collect();
    assert_eq!(
        paths,
        ["a::B", "a::c::self", "a::c::D", "folder::e::F", "G"]
    );
}
