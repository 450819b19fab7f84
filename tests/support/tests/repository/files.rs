//! The files of the repository, and the limit on their length.

use std::fs;
use std::path::Path;

use test_support::project;

/// Names of folders with data or build results.
const DATA_FOLDERS: [&str; 5] = ["target", "corpus", "data", "golden", ".git"];

/// A text file: its path from the top of the repository, and its text.
pub struct TextFile {
    pub path: String,
    pub text: String,
}

impl TextFile {
    /// Whether the released binary, or a crate that others can import, is made of this file.
    fn is_product(&self) -> bool {
        let is_test = ["tests/", "vm-tests/"].iter().any(|folder| self.path.starts_with(folder));
        self.path.ends_with(".rs") && self.path.contains("/src/") && !is_test
    }
}

/// All files with one of these extensions, sorted by path. Data, corpora and golden listings are
/// left out.
pub fn with_extensions(extensions: &[&str]) -> Vec<TextFile> {
    let mut files = Vec::new();
    gather(&project(""), "", extensions, &mut files);
    files.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(!files.is_empty(), "the repository has no {extensions:?}");
    files
}

fn gather(folder: &Path, prefix: &str, extensions: &[&str], files: &mut Vec<TextFile>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let entry = entry.expect("a folder's entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if entry.file_type().expect("the type of a file").is_dir() {
            if !DATA_FOLDERS.contains(&name.as_str()) {
                gather(&entry.path(), &format!("{path}/"), extensions, files);
            }
        } else if Path::new(&name).extension().is_some_and(|ext| extensions.iter().any(|known| ext == *known))
        {
            let text = fs::read_to_string(entry.path()).unwrap_or_else(|e| panic!("{path}: {e}"));
            files.push(TextFile { path, text });
        }
    }
}

#[test]
fn product_files_have_at_most_600_lines() {
    const LIMIT: usize = 600;
    let files = with_extensions(&["rs"]);
    let product: Vec<&TextFile> = files.iter().filter(|file| file.is_product()).collect();
    assert!(product.iter().any(|file| file.path == "loader/src/lib.rs"), "product files are found");
    let too_long: Vec<String> = product
        .iter()
        .map(|file| (file.text.lines().count(), &file.path))
        .filter(|(lines, _)| *lines > LIMIT)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert!(too_long.is_empty(), "split these files by subject:\n{}", too_long.join("\n"));
}
