//! Fixtures of tests: files of JSON, or of a JSON value a line, beside the test's file or in a
//! folder `fixtures` beside it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

use crate::base::limits::MESSAGE_MAX_BYTES;
use crate::cli::parse::words::without_bom;

/// The ends of the names of fixtures.
pub(super) const ENDS: [&str; 2] = [".json", ".ndjson"];

/// A fixture as JSON; of a file of lines, the list of them.
///
/// # Errors
/// There is none of this name inside the directory, or it is not JSON.
pub(super) fn read(root: &Path, folder: &Path, name: &str) -> Result<String, String> {
    let path = find(folder, name).ok_or_else(|| {
        let shown = folder.strip_prefix(root).unwrap_or(folder).join(name);
        let shown = shown.display();
        format!("there is no fixture {shown}, {shown}.json or {shown}.ndjson, nor in fixtures/")
    })?;
    let is_inside = path.canonicalize().is_ok_and(|path| path.starts_with(root));
    if !is_inside {
        return Err(format!("the fixture {name} is outside of the directory"));
    }
    let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
    let text = read_text(&path).map_err(|why| format!("{shown}: {why}"))?;
    if !shown.ends_with(".ndjson") {
        let json: Box<RawValue> =
            serde_json::from_str(&text).map_err(|error| format!("{shown}: {error}"))?;
        return Ok(json.get().to_owned());
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let lines = lines.map(|(number, line)| {
        serde_json::from_str::<Box<RawValue>>(line)
            .map_err(|error| format!("{shown}:{}: {error}", number + 1))
    });
    let lines: Vec<Box<RawValue>> = lines.collect::<Result<_, _>>()?;
    let lines: Vec<&str> = lines.iter().map(|line| line.get()).collect();
    Ok(format!("[{}]", lines.join(",")))
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let ends = [""].into_iter().chain(ENDS);
    let names = ends.map(|end| format!("{name}{end}"));
    let mut paths = names.flat_map(|name| [folder.join(&name), folder.join("fixtures").join(name)]);
    paths.find(|path| path.is_file())
}

fn read_text(path: &Path) -> Result<String, String> {
    let (mut text, room) = (String::new(), MESSAGE_MAX_BYTES as u64 + 1);
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(room).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() > MESSAGE_MAX_BYTES {
        return Err(format!("it is larger than {} MiB", MESSAGE_MAX_BYTES / (1024 * 1024)));
    }
    Ok(without_bom(&text).to_owned())
}
