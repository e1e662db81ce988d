//! The file of the workers' tokens (docs/operations.md).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::MasterError;
use crate::base::random;

/// Reads the token file, or writes one with fresh tokens if there is none (docs/operations.md).
pub(super) fn read_or_write_tokens(
    path: &Path,
    workers: usize,
) -> Result<Vec<(usize, String)>, MasterError> {
    let ids: Vec<usize> = (0..workers).collect();
    if let Some(tokens) = read_tokens(path, &ids)? {
        return Ok(tokens);
    }
    let tokens: Vec<(usize, String)> = (0..workers).map(|id| (id, random::token())).collect();
    write_tokens(path, &tokens).map_err(|error| problem_of_tokens(path, &error.to_string()))?;
    Ok(tokens)
}

/// Reads the token file of workers that this process has no part in naming.
///
/// # Errors
/// There is none, others can read it, or it is not one of exactly these workers.
pub(super) fn read_tokens_of(
    path: &Path,
    ids: &[usize],
) -> Result<Vec<(usize, String)>, MasterError> {
    read_tokens(path, ids)?.ok_or_else(|| problem_of_tokens(path, "there is no such file"))
}

fn problem_of_tokens(path: &Path, what: &str) -> MasterError {
    MasterError::Config(format!("--worker-tokens {}: {what}", path.display()))
}

/// Reads the token file of exactly these workers; `None` if there is none.
pub(super) fn read_tokens(
    path: &Path,
    ids: &[usize],
) -> Result<Option<Vec<(usize, String)>>, MasterError> {
    let problem = |what: String| problem_of_tokens(path, &what);
    match fs::read_to_string(path) {
        Ok(text) => {
            let metadata = fs::metadata(path).map_err(|error| problem(error.to_string()))?;
            let mode = metadata.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(problem(format!("others can read it (mode {mode:o}); chmod 600 it")));
            }
            parse_tokens(&text, ids).map(Some).map_err(problem)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(problem(error.to_string())),
    }
}

fn parse_tokens(text: &str, ids: &[usize]) -> Result<Vec<(usize, String)>, String> {
    // An editor may have put a byte order mark before it. serde_json's own error quotes what it
    // found, which may be a token.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let tokens: BTreeMap<usize, String> = serde_json::from_str(text)
        .map_err(|_| r#"it is not JSON of the form {"0": "64 characters", …}"#.to_owned())?;
    // As of a file that each was read from.
    let tokens: BTreeMap<usize, String> =
        tokens.into_iter().map(|(id, token)| (id, token.trim().to_owned())).collect();
    if let Some(missing) = ids.iter().find(|id| !tokens.contains_key(id)) {
        return Err(format!("it has no token of worker {missing}: one is needed of each worker"));
    }
    if let Some(other) = tokens.keys().find(|id| !ids.contains(id)) {
        return Err(format!("it has a token of worker {other}, which is none of the workers here"));
    }
    if !tokens
        .values()
        .all(|token| token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    {
        return Err("a token is 64 letters and digits".to_owned());
    }
    Ok(tokens.into_iter().collect())
}

fn write_tokens(path: &Path, tokens: &[(usize, String)]) -> io::Result<()> {
    let map: BTreeMap<String, &String> =
        tokens.iter().map(|(id, token)| (id.to_string(), token)).collect();
    let text = serde_json::to_string_pretty(&map).map_err(io::Error::other)?;
    write_whole(path, |file| writeln!(file, "{text}"))
}

/// Writes a new file with mode 0600, whole or not at all: a full disk or a crash leaves no half of
/// it, which the next start would refuse.
fn write_whole(path: &Path, write: impl FnOnce(&mut fs::File) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = Path::new(&name);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    let written =
        write(&mut file).and_then(|()| file.sync_all()).and_then(|()| fs::rename(new, path));
    if written.is_err() {
        // What cannot be removed either is no worse than what made this necessary.
        let _ = fs::remove_file(new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_must_name_every_worker_once_and_leaks_nothing() {
        let token = "a".repeat(64);
        let good = format!(r#"{{"0": "{token}", "1": "{token}"}}"#);
        assert_eq!(parse_tokens(&good, &[0, 1]).expect("valid").len(), 2);
        let spaced = format!(r#"{{"0": " {token}\n"}}"#);
        assert_eq!(parse_tokens(&spaced, &[0]), Ok(vec![(0, token.clone())]));
        for (text, ids, says) in [
            (good.clone(), &[0, 1, 2][..], "no token of worker 2"),
            (good.clone(), &[0], "a token of worker 1"),
            (good.clone(), &[1, 3], "no token of worker 3"),
            (format!(r#"{{"0": "{token}x"}}"#), &[0], "64 letters"),
            (format!(r#"["{token}"]"#), &[0], "JSON"),
            (format!(r#"{{"0": "{token}""#), &[0], "JSON"),
        ] {
            let error = parse_tokens(&text, ids).expect_err(&text);
            assert!(error.contains(says) && !error.contains("aaaa"), "{error}");
        }
    }

    #[test]
    fn a_token_file_is_written_whole_for_its_owner_only() {
        let folder = std::env::temp_dir().join(format!("mesophyll-tokens-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let path = folder.join("tokens.json");
        let full = write_whole(&path, |file| {
            file.write_all(b"{\"0\": ").and(Err(io::ErrorKind::StorageFull.into()))
        });
        assert_eq!(full.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0);
        let written = read_or_write_tokens(&path, 2).expect("written");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(read_or_write_tokens(&path, 2).expect("read"), written);
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1);
        fs::remove_dir_all(&folder).expect("removed");
    }
}
