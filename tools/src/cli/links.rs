//! `tcptools links DIR`: a symbolic link per tool, so that each tool can be called by its own name.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::failure::Failure;
use crate::tools::TOOLS;

/// Makes the links. A link that already points to this program stays; any other file of that name
/// is an error.
pub fn make(directory: &Path) -> Result<(), Failure> {
    let failed =
        |what: &Path, error: &io::Error| Failure::failed(format!("links: {}: {error}", what.display()));
    let here = std::env::current_exe().map_err(|error| unknown_program(&error))?;
    for tool in TOOLS {
        let link = directory.join(tool.name);
        match symlink(&here, &link) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::read_link(&link).ok().as_deref() != Some(&here) {
                    return Err(Failure::failed(format!(
                        "links: {} exists and is not a link to {}",
                        link.display(),
                        here.display()
                    )));
                }
            }
            Err(error) => return Err(failed(&link, &error)),
        }
    }
    Ok(())
}

/// The failure if the path of this program, which links have to point to, is unknown.
pub fn unknown_program(error: &io::Error) -> Failure {
    Failure::failed(format!("links: cannot find the path of this program: {error}"))
}
