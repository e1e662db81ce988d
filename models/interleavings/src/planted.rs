//! Mistakes that are put into a copy of the product's sources, to see that they are found.
//!
//! All of them stand in the one copy, and [`is`] says which is made, so that the copy is built
//! once. A line of the product that is changed has to be changed here too: [`plant`] fails if it
//! does not find one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{fs, io};

pub use mistakes::ALL;

mod mistakes;

/// Where the copy is made of.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const PACKAGE: &str = "models/interleavings";

/// A mistake.
pub struct Planted {
    /// What it is called.
    pub name: &'static str,
    /// The model that has to find it.
    pub model: &'static str,
    /// In which file of `src/` it is made.
    pub file: &'static str,
    /// What stands there once, and what stands there instead; `MISTAKE` is true while the mistake
    /// is made.
    pub edits: &'static [(&'static str, &'static str)],
}

static CHOSEN: Mutex<&str> = Mutex::new("");

/// From now on this mistake is made, and no other.
pub fn choose(name: &'static str) {
    *CHOSEN.lock().expect("no panic under it") = name;
}

/// Whether this mistake is made.
pub fn is(name: &str) -> bool {
    *CHOSEN.lock().expect("no panic under it") == name
}

/// Writes a copy of `src/` and of this package into the folder, with the mistakes. What stands
/// there as it is to be stays untouched, so that it need not be built anew.
pub fn plant(folder: &str) -> Result<(), String> {
    let mut files = BTreeMap::new();
    for part in ["src", PACKAGE] {
        read_folder(&Path::new(ROOT).join(part), Path::new(part), &mut files)?;
    }
    // Both are built in one folder, for what they depend on, and neither is to run as the other.
    for file in ["Cargo.toml", "Cargo.lock"] {
        if let Some(text) = files.get_mut(&Path::new(PACKAGE).join(file)) {
            *text = text.replace("mesophyll-interleavings", "mesophyll-planted");
        }
    }
    for Planted { name, file, edits, .. } in ALL {
        let path = Path::new("src").join(file);
        let text = files.get_mut(&path).ok_or(format!("{name}: there is no {file}"))?;
        for (right, wrong) in *edits {
            if text.matches(right).count() != 1 {
                return Err(format!("{name}: {file} does not have once:\n{right}"));
            }
            let is_made = format!("crate::planted::is({name:?})");
            *text = text.replace(right, &wrong.replace("MISTAKE", &is_made));
        }
    }
    for (path, text) in files {
        let path = Path::new(folder).join(path);
        if fs::read_to_string(&path).is_ok_and(|there| there == text) {
            continue;
        }
        let parent = path.parent().unwrap_or(&path);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, text))
            .map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

fn read_folder(
    folder: &Path,
    name: &Path,
    files: &mut BTreeMap<PathBuf, String>,
) -> Result<(), String> {
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let entry = entry.map_err(|error| failed(folder, error))?;
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        if path.is_dir() {
            read_folder(&path, &name, files)?;
        } else {
            let text = fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
            files.insert(name, text);
        }
    }
    Ok(())
}

fn failed(path: &Path, error: io::Error) -> String {
    format!("{}: {error}", path.display())
}
