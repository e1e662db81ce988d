//! The Unix socket on which a master's own workers reach it: in a directory of its own that nobody else can enter.
//!
//! Owned by the server, which removes it at its end. A master that was killed cannot; the next one of the same user does.
//!
//! Invariant: a socket of the name [`NAME`] is listened on as long as its master lives (it gets the name after that began), so
//! one that refuses a connection has no master any more.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::random;
use crate::stream::Stream;

/// How the names of the directories begin.
const PREFIX: &str = "mesophyll-local-";

/// Of their random rest: a name that somebody has taken on purpose would only send the workers to the port. The whole path of a
/// socket has 107 bytes at most.
const RANDOM_CHARS: usize = 16;

/// The socket's name in its directory.
const NAME: &str = "master";

/// Its name before it is listened on.
const UNFINISHED_NAME: &str = "new";

/// Limit: for one of another master to say that it is in use; its queue is full if it does not at once, so it is.
const LOOK_TIMEOUT: Duration = Duration::from_millis(10);

/// A Unix socket and its directory, both removed when it is dropped.
#[derive(Debug)]
pub(super) struct LocalSocket {
    folder: PathBuf,
}

impl LocalSocket {
    /// Listens in a fresh directory in `place`, after tidying up there.
    ///
    /// # Errors
    /// The directory cannot be made, or its path is too long, or no UTF-8.
    pub(super) fn bind(place: &Path) -> io::Result<(UnixListener, Self)> {
        let folder = place.join(format!("{PREFIX}{}", &random::token()[..RANDOM_CHARS]));
        if folder.to_str().is_none() || !folder.is_absolute() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the directory for temporary files has no plain path"));
        }
        // With the mode, and not given it afterwards, when somebody may be inside. A umask can only take more away.
        DirBuilder::new().mode(0o700).create(&folder)?;
        let socket = Self { folder };
        // From here on, dropping it removes the directory.
        let unfinished = socket.folder.join(UNFINISHED_NAME);
        let listener = UnixListener::bind(&unfinished)?;
        fs::rename(&unfinished, socket.path())?;
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
    for name in [NAME, UNFINISHED_NAME] {
        let _ = fs::remove_file(folder.join(name));
    }
    let _ = fs::remove_dir(folder);
}

/// Removes the directories of this user's masters that are no more. One whose socket has no name yet stays: its master may just
/// be starting.
fn remove_abandoned(place: &Path, own: &Path) {
    let (Ok(entries), Ok(own_metadata)) = (fs::read_dir(place), fs::symlink_metadata(own)) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())) {
        let folder = entry.path();
        // Not through a link: that would be another's directory.
        let is_ours = fs::symlink_metadata(&folder)
            .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == own_metadata.uid());
        if is_ours && is_abandoned(&folder.join(NAME)) {
            remove(&folder);
        }
    }
}

fn is_abandoned(path: &Path) -> bool {
    Stream::connect_unix(path, LOOK_TIMEOUT).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory for directories, which goes with all that is in it.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let name = format!("mesophyll-places-{name}-{}", std::process::id());
            let place = std::env::temp_dir().join(name);
            fs::create_dir(&place).expect("a directory");
            Self(place)
        }

        fn names(&self) -> usize {
            fs::read_dir(&self.0).expect("a directory").count()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_socket_is_its_owners_alone_and_goes_with_its_directory() {
        let place = Place::new("mode");
        let (listener, socket) = LocalSocket::bind(&place.0).expect("a socket");
        assert_eq!(fs::metadata(&socket.folder).expect("it").permissions().mode() & 0o777, 0o700);
        let path = crate::stream::unix_path(&socket.address()).expect("a path").to_owned();
        Stream::connect_unix(&path, Duration::from_secs(5)).expect("somebody listens");
        listener.accept().expect("a connection");
        drop(socket);
        assert_eq!(place.names(), 0);
    }

    #[test]
    fn what_a_killed_master_left_is_removed_and_nothing_else() {
        let place = Place::new("abandoned");
        let killed = LocalSocket::bind(&place.0).expect("a socket");
        let running = LocalSocket::bind(&place.0).expect("a socket");
        let starting = place.0.join(format!("{PREFIX}starting"));
        fs::create_dir(&starting).expect("a directory");
        // A foreign file in it keeps it.
        let odd = LocalSocket::bind(&place.0).expect("a socket");
        fs::write(odd.1.folder.join("notes"), "mine").expect("a file");
        let elsewhere = Place::new("elsewhere");
        let target = LocalSocket::bind(&elsewhere.0).expect("a socket");
        std::os::unix::fs::symlink(&target.1.folder, place.0.join(format!("{PREFIX}link"))).expect("a link");
        // As the system closes it.
        drop((killed.0, odd.0, target.0));
        let (_listener, own) = LocalSocket::bind(&place.0).expect("a socket");
        assert!(!killed.1.folder.exists(), "it was abandoned");
        for kept in [&running.1.folder, &starting, &odd.1.folder, &target.1.folder, &own.folder] {
            assert!(kept.exists(), "{}", kept.display());
        }
        assert!(target.1.path().exists(), "a link was followed");
    }

    #[test]
    fn a_place_that_will_not_do_is_left_as_it_was() {
        let place = Place::new("long");
        let long = place.0.join("x".repeat(100));
        fs::create_dir(&long).expect("a directory");
        LocalSocket::bind(&long).expect_err("too long a path");
        assert_eq!(fs::read_dir(&long).expect("a directory").count(), 0);
        LocalSocket::bind(&place.0.join("missing")).expect_err("no such directory");
        LocalSocket::bind(Path::new("relative")).expect_err("no address for another process");
    }
}
