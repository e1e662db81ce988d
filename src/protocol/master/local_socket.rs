//! The Unix socket on which a master's own workers reach it: in a directory of its own that no
//! other user can enter.
//!
//! Owned by the server, which removes it at its end. A master that was killed cannot; the next one
//! of the same user does.
//!
//! Invariant: a master holds a shared lock on its directory as long as it lives, and the system
//! lets go of it then. So a process that gets the lock for itself has found a directory without a
//! master. `systemd-tmpfiles`, which tidies up after some days, asks in the same way, and leaves
//! what is locked.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::base::random;

/// How the names of the directories begin.
const PREFIX: &str = "mesophyll-local-";

/// Of their random rest: a name that another user has taken on purpose would only send the workers
/// to the port. The whole path of a socket has 107 bytes at most.
const RANDOM_CHARS: usize = 16;

/// The socket's name in its directory.
const NAME: &str = "master";

/// A Unix socket and its directory, both removed when it is dropped.
#[derive(Debug)]
pub(super) struct LocalSocket {
    folder: PathBuf,
    /// The lock, which its being open holds.
    _lock: File,
}

impl LocalSocket {
    /// Listens in a fresh directory in `place`, after tidying up there.
    ///
    /// # Errors
    /// The directory cannot be made, or its path is too long, or no UTF-8.
    pub(super) fn bind(place: &Path) -> io::Result<(UnixListener, Self)> {
        let folder = place.join(format!("{PREFIX}{}", &random::token()[..RANDOM_CHARS]));
        if folder.to_str().is_none() || !folder.is_absolute() {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "the directory for temporary files has no plain path",
            ));
        }
        // With the mode, and not given it afterwards, when another user may be inside. A umask can
        // only take more away.
        DirBuilder::new().mode(0o700).create(&folder)?;
        // If another master tidies up between the two, it has the lock, or the directory is gone:
        // then there is no socket.
        let lock = File::open(&folder)
            .and_then(|lock| lock.try_lock_shared().map(|()| lock).map_err(io::Error::from));
        let lock = lock.inspect_err(|_| remove(&folder))?;
        let socket = Self { folder, _lock: lock };
        // From here on, dropping it removes the directory.
        let listener = UnixListener::bind(socket.path())?;
        remove_abandoned(place, &socket.folder);
        Ok((listener, socket))
    }

    /// What a worker is told.
    pub(super) fn address(&self) -> String {
        format!("unix:{}", self.path().display())
    }

    fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// Removes a directory of ours. What else is in it stays, and with it the directory.
fn remove(folder: &Path) {
    let path = folder.join(NAME);
    if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        let _ = fs::remove_file(path);
    }
    let _ = fs::remove_dir(folder);
}

/// Removes the directories of this user's masters that are no more.
fn remove_abandoned(place: &Path, own: &Path) {
    let (Ok(entries), Ok(own_metadata)) = (fs::read_dir(place), fs::symlink_metadata(own)) else {
        return;
    };
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()))
    {
        let folder = entry.path();
        // Not through a link: that would be another's directory.
        let is_ours = fs::symlink_metadata(&folder)
            .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == own_metadata.uid());
        // Held while it is removed, so that no two do it.
        if is_ours
            && let Ok(lock) = File::open(&folder)
            && lock.try_lock().is_ok()
        {
            remove(&folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::net::stream::{Stream, unix_path};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A directory for directories, which goes with all that is in it.
    struct TempFolder(PathBuf);

    impl TempFolder {
        fn new(name: &str) -> Self {
            let place =
                std::env::temp_dir().join(format!("mesophyll-{name}-{:016x}", random::u64()));
            fs::create_dir(&place).expect("a directory");
            Self(place)
        }

        fn names(&self) -> usize {
            fs::read_dir(&self.0).expect("a directory").count()
        }
    }

    impl Drop for TempFolder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_socket_is_its_owners_alone_and_goes_with_its_directory() {
        let place = TempFolder::new("mode");
        let (listener, socket) = LocalSocket::bind(&place.0).expect("a socket");
        assert_eq!(fs::metadata(&socket.folder).expect("it").permissions().mode() & 0o777, 0o700);
        let path = unix_path(&socket.address()).expect("a path").to_owned();
        Stream::connect_unix(&path, PATIENCE).expect("somebody listens");
        listener.accept().expect("a connection");
        drop(socket);
        assert_eq!(place.names(), 0);
    }

    #[test]
    fn what_a_killed_master_left_is_removed_and_nothing_else() {
        let place = TempFolder::new("abandoned");
        let running = LocalSocket::bind(&place.0).expect("a socket");
        // As a kill leaves them: one with its socket, one that had none yet, one in which a user
        // has put a file.
        let folder = |name: &str| {
            let folder = place.0.join(format!("{PREFIX}{name}"));
            fs::create_dir(&folder).expect("a directory");
            folder
        };
        let (killed, unborn, odd) = (folder("killed"), folder("unborn"), folder("odd"));
        drop(UnixListener::bind(killed.join(NAME)).expect("a socket"));
        fs::write(odd.join(NAME), "no socket").expect("a file");
        let elsewhere = TempFolder::new("elsewhere");
        drop(UnixListener::bind(elsewhere.0.join(NAME)).expect("a socket"));
        std::os::unix::fs::symlink(&elsewhere.0, place.0.join(format!("{PREFIX}link")))
            .expect("a link");
        let (_listener, own) = LocalSocket::bind(&place.0).expect("a socket");
        for gone in [&killed, &unborn] {
            assert!(!gone.exists(), "{}", gone.display());
        }
        for kept in [&running.1.path(), &odd.join(NAME), &elsewhere.0.join(NAME), &own.path()] {
            assert!(kept.exists(), "{}", kept.display());
        }
    }

    #[test]
    fn a_place_that_will_not_do_is_left_as_it_was() {
        let place = TempFolder::new("long");
        let path_bytes =
            place.0.join(format!("{PREFIX}{}/{NAME}", "x".repeat(RANDOM_CHARS))).as_os_str().len();
        let mut refused = 0;
        // Across the border, which is at 107.
        for bytes in 100..115 {
            let long = place.0.join("x".repeat(bytes - path_bytes - 1));
            fs::create_dir(&long).expect("a directory");
            match LocalSocket::bind(&long) {
                Ok((_listener, socket)) => {
                    drop(Stream::connect_unix(&socket.path(), PATIENCE).expect("a connection"))
                }
                Err(_) => refused += 1,
            }
            assert_eq!(fs::read_dir(&long).expect("a directory").count(), 0, "{bytes}");
        }
        assert_eq!(refused, 7);
        LocalSocket::bind(&place.0.join("missing")).expect_err("no such directory");
        LocalSocket::bind(Path::new("relative")).expect_err("no address for another process");
    }
}
