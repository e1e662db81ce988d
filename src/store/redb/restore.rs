//! A new store's file made from a backup's stream: whole, synced and in its place, or not there at
//! all.
//!
//! What it holds is taken as it is: quotas and rules were another store's business. Runs on the
//! thread of the command; the file has another name until it is complete, so that no master can
//! open half of one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use redb::Database;

use super::RedbFault;
use super::apply::Tables;
use super::maintain::{put_in_place, unfinished};
use super::open::{builder, database_error, prepare, private_file};
use crate::base::limits::STORE_BATCH_BYTES;
use crate::store::OpenError;
use crate::store::backup::Exported;
use crate::wire::data::EncodedValue;

/// A store's file under construction. Dropping it unfinished removes it.
#[derive(Debug)]
pub struct Restore {
    /// None once it was closed.
    database: Option<Database>,
    unfinished: PathBuf,
    to: PathBuf,
    waiting: Vec<Exported>,
    waiting_bytes: usize,
}

/// Why a file could not be made.
#[derive(Debug)]
pub enum RestoreError {
    /// The file system refused: there is such a file, no room, no right to write there.
    File(io::Error),
    /// The database in it failed; the text says why.
    Store(String),
}

impl std::fmt::Display for RestoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RestoreError::File(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                f.write_str("it exists already, and a backup never takes another file's place")
            }
            RestoreError::File(error) => error.fmt(f),
            RestoreError::Store(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for RestoreError {}

impl From<OpenError> for RestoreError {
    fn from(error: OpenError) -> Self {
        RestoreError::Store(error.to_string())
    }
}

impl From<RedbFault> for RestoreError {
    fn from(fault: RedbFault) -> Self {
        RestoreError::Store(fault.to_string())
    }
}

impl Restore {
    /// Begins a file that is to be at `to`, where there is none.
    ///
    /// # Errors
    /// There is one, or it cannot be made.
    pub fn begin(to: &Path) -> Result<Self, RestoreError> {
        // Looked at again when it is put in its place; here so that no long wait is for nothing.
        if to.try_exists().map_err(RestoreError::File)? {
            return Err(RestoreError::File(io::ErrorKind::AlreadyExists.into()));
        }
        let unfinished = unfinished(to);
        // What a process with our number left, if it was killed.
        let _ = fs::remove_file(&unfinished);
        private_file(&unfinished).map_err(RestoreError::File)?;
        let mut restore = Self {
            database: None,
            unfinished,
            to: to.to_owned(),
            waiting: Vec::new(),
            waiting_bytes: 0,
        };
        let database = builder().create(&restore.unfinished).map_err(database_error)?;
        prepare(&database)?;
        restore.database = Some(database);
        Ok(restore)
    }

    /// Adds something; of two records with one key and one set of scopes the newer stays.
    ///
    /// # Blocks
    /// Now and then until what was added is on the disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(&mut self, one: Exported) -> Result<(), RestoreError> {
        self.waiting_bytes += bytes_of(&one);
        self.waiting.push(one);
        if self.waiting_bytes >= STORE_BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    /// Completes the file and puts it in its place.
    ///
    /// # Blocks
    /// Until it is on the disk, its name too.
    ///
    /// # Errors
    /// It cannot be written, or another process has put a file there meanwhile.
    pub fn finish(mut self) -> Result<(), RestoreError> {
        self.flush()?;
        if let Some(database) = self.database.take() {
            database.close().map_err(database_error)?;
        }
        let synced = fs::File::open(&self.unfinished).and_then(|file| file.sync_all());
        synced.and_then(|()| put_in_place(&self.unfinished, &self.to)).map_err(RestoreError::File)
    }

    fn flush(&mut self) -> Result<(), RestoreError> {
        self.waiting_bytes = 0;
        let (Some(database), waiting) = (&self.database, std::mem::take(&mut self.waiting)) else {
            return Ok(());
        };
        let transaction = database.begin_write().map_err(RedbFault::from)?;
        {
            let mut tables = Tables::open(&transaction)?;
            for one in waiting {
                tables.restore(one)?;
            }
        }
        transaction.commit().map_err(RedbFault::from)?;
        Ok(())
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        drop(self.database.take());
        // Gone already, if it was finished.
        let _ = fs::remove_file(&self.unfinished);
    }
}

/// About how much memory it takes while it waits.
fn bytes_of(one: &Exported) -> usize {
    const OVERHEAD: usize = 256;
    let value = |value: &EncodedValue| value.as_bytes().len();
    OVERHEAD
        + match one {
            Exported::State { stored, .. } => {
                stored.state.as_ref().map_or(0, |state| state.data.as_bytes().len())
            }
            Exported::Record { record, .. } => record.key.len() + value(&record.value),
            Exported::Entry(entry) => entry.bytes(),
            Exported::Purchase { .. } => 0,
            Exported::Timer { timer, .. } => value(&timer.data),
        }
}
