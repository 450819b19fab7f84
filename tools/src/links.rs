//! `tcptools links DIR`: a link for each tool, so that people find them under the names they know.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::failure::Failure;
use crate::tool::TOOLS;

/// Makes the links; one that already points here stays, anything else of that name is left alone.
pub fn make(directory: &Path) -> Result<(), Failure> {
    let failed =
        |what: &Path, error: &io::Error| Failure::failed(format!("links: {}: {error}", what.display()));
    let here = std::env::current_exe().map_err(|error| nowhere(&error))?;
    for tool in TOOLS {
        let link = directory.join(tool.name());
        match symlink(&here, &link) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::read_link(&link).ok().as_deref() != Some(&here) {
                    return Err(Failure::failed(format!(
                        "links: {} is there already and is not a link to {}",
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

/// There is no telling what links would have to point to.
pub fn nowhere(error: &io::Error) -> Failure {
    Failure::failed(format!("links: where am I? {error}"))
}
