//! `--reload`: watches a template directory, on a thread of its own, and puts what changed on the
//! template cache.
//!
//! It looks at names, sizes, times and inodes every now and then, which works on every file system
//! and needs no package. A directory counts as changed when it differs from what was loaded and has
//! been the same for two looks, so that a copy that is under way is not taken for a template. One
//! that cannot be read, or has a module that does not compile where all did before, changes
//! nothing.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{TemplateCache, Templates, source::is_module};
use crate::base::limits::{RELOAD_INTERVAL, TEMPLATE_FOLDERS_DEEP};
use crate::base::sync::Lock;
use crate::base::thread::{OwnedThread, spawn};
use crate::runtime::luau::config::TemplateSource;

/// A watch that runs.
#[derive(Debug)]
pub(in crate::runtime::luau) struct Watch {
    running: Lock<Option<(Sender<()>, OwnedThread)>>,
}

impl Watch {
    /// Watches a directory whose templates, as they are in the template cache, were read when
    /// `seen` was true of it.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub(in crate::runtime::luau) fn start(
        thread_name: String,
        directory: PathBuf,
        seen: Option<Look>,
        source_limit: usize,
        template_cache: Arc<TemplateCache>,
    ) -> io::Result<Self> {
        let (stop_tx, stop_rx) = bounded(0);
        let watch = Watching {
            identity: identity(&directory),
            directory,
            source_limit,
            template_cache,
            loaded: seen,
            before: seen,
            is_readable: true,
        };
        let thread = spawn(thread_name, move || watch.run(&stop_rx))?;
        Ok(Self { running: Lock::new(Some((stop_tx, thread))) })
    }

    /// Ends the watch and joins its thread.
    ///
    /// # Blocks
    /// While templates that are being read are compiled.
    pub(in crate::runtime::luau) fn stop(&self) {
        let running = self.running.lock().take();
        if let Some((stop_tx, thread)) = running {
            drop(stop_tx);
            thread.join();
        }
    }
}

struct Watching {
    directory: PathBuf,
    /// Of the directory that was there at the start.
    identity: Option<(u64, u64)>,
    source_limit: usize,
    template_cache: Arc<TemplateCache>,
    /// How the directory looked before it was last read.
    loaded: Option<Look>,
    before: Option<Look>,
    is_readable: bool,
}

impl Watching {
    /// Blocks: until the next look; `stop` closes the channel.
    fn run(mut self, stop_rx: &Receiver<()>) {
        while stop_rx.recv_timeout(RELOAD_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            let look = Look::at(&self.directory, is_module);
            self.told(look.as_ref().err());
            let Ok(look) = look else { continue };
            let is_settled = self.before.replace(look) == Some(look);
            if is_settled && self.loaded != Some(look) {
                self.load(look);
            }
        }
    }

    fn load(&mut self, look: Look) {
        match Templates::load(&TemplateSource::Directory(self.directory.clone()), self.source_limit)
        {
            // What is wrong is in the log already, with file and line.
            Ok(templates)
                if templates.is_broken() && !self.template_cache.current().is_broken() =>
            {
                log::warn!(
                    "the templates stay as they are until these compile and have a main.luau"
                );
            }
            Ok(templates) => {
                log::info!("the templates have changed; each tenant gets them with its next event");
                self.template_cache.replace(templates);
            }
            Err(error) => return self.told(Some(&error)),
        }
        self.loaded = Some(look);
    }

    /// Tells the operator once that the directory cannot be read.
    fn told(&mut self, error: Option<&io::Error>) {
        if let Some(error) = error
            && self.is_readable
        {
            // A sandbox lets this process read the directory that it was started with; a link that
            // leads to another one by now is taken up by the next process.
            let now = identity(&self.directory);
            let advice = match now.is_some() && now != self.identity {
                true => {
                    "; it is another directory than at the start: \
                     `mesophyll restart --all` takes it up"
                }
                false => "",
            };
            log::warn!(
                "the template directory cannot be read, and the templates stay as they are: \
                 {error}{advice}"
            );
        }
        self.is_readable = error.is_none();
    }
}

/// Device and inode of a directory, through links.
fn identity(directory: &Path) -> Option<(u64, u64)> {
    fs::metadata(directory).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// How a template directory looks from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look(u64);

impl Look {
    /// Looks at a directory, as far as its files have names that will do.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn at(directory: &Path, is_wanted: fn(&str) -> bool) -> io::Result<Self> {
        let mut hasher = DefaultHasher::new();
        hash_folder(&mut hasher, directory, is_wanted, 0)?;
        Ok(Self(hasher.finish()))
    }
}

fn hash_folder(
    hasher: &mut DefaultHasher,
    folder: &Path,
    is_wanted: fn(&str) -> bool,
    depth: usize,
) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let is_folder = entry.file_type()?.is_dir();
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        if is_folder && !is_hidden && depth < TEMPLATE_FOLDERS_DEEP {
            name.hash(hasher);
            // One that cannot be read is one without templates, and says so when it is loaded.
            let _ = hash_folder(hasher, &entry.path(), is_wanted, depth + 1);
        } else if !is_folder && name.to_str().is_some_and(is_wanted) {
            name.hash(hasher);
            // Of what a link points to, because that is what is read.
            if let Ok(metadata) = fs::metadata(entry.path()) {
                (metadata.len(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
                    .hash(hasher);
                // Nothing that writes can set this one back, as it can the time of the content.
                (metadata.ctime(), metadata.ctime_nsec()).hash(hasher);
            }
        }
    }
    u64::MAX.hash(hasher);
    Ok(())
}
