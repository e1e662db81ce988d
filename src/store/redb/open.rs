//! Opening a store's file: creating it whole or not at all, and leaving alone what is not ours.
//!
//! A file that was not closed (power, kill -9) is made good by redb while it opens, in milliseconds
//! whatever its size, because every commit is made for quick repair
//! (docs/decisions/0002-redb-quick-repair.md). Runs on the thread that opens the store, and on the
//! store's writer after an I/O error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, StorageError, TableError,
    TableHandle, WriteTransaction,
};

use super::layout::{
    GLOBAL, GLOBAL_USAGE, KV, META, OLDEST_SCHEMA, PURCHASES, SCHEMA, SCHEMA_KEY, SCOPES, STATES,
    TIMERS, TIMERS_DUE, USAGE,
};
use super::maintain::{sync_folder_of, unfinished};
use crate::base::limits::STORE_CACHE_BYTES;
use crate::store::OpenError;

const REDB_MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";

/// Where the database comes from: a file, or in tests a disk that fails on purpose.
pub(super) trait Source: Send {
    /// Opens it for the first time, and makes it if it is not there.
    fn open(&self) -> Result<Database, OpenError>;

    /// Opens it again after an error. What is not there any more is not made anew: that would be a
    /// loss in silence.
    fn reopen(&self) -> Result<Database, OpenError>;
}

/// A file.
pub(super) struct FileSource(pub(super) PathBuf);

impl Source for FileSource {
    fn open(&self) -> Result<Database, OpenError> {
        if !self.0.try_exists().map_err(unavailable)? {
            create(&self.0)?;
        }
        guarded(|| {
            check_before(&self.0)?;
            let database = builder().create(&self.0).map_err(database_error)?;
            prepare(&database)?;
            Ok(database)
        })
    }

    fn reopen(&self) -> Result<Database, OpenError> {
        guarded(|| {
            forget_what_is_cached(&self.0)?;
            let database = builder().open(&self.0).map_err(database_error)?;
            prepare(&database)?;
            Ok(database)
        })
    }
}

pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(STORE_CACHE_BYTES);
    builder.set_repair_callback(|repair| {
        log::warn!("the store was not closed; making it good, {:.0} %", repair.progress() * 100.0);
    });
    builder
}

/// Makes the kernel read the file from the disk again.
///
/// When a sync fails, Linux keeps the pages that it could not write in its cache and takes them for
/// written. A database that is opened over them sees a commit that the disk does not have, and
/// builds on it.
fn forget_what_is_cached(path: &Path) -> Result<(), OpenError> {
    let file = File::open(path).map_err(unavailable)?;
    #[cfg(target_os = "linux")]
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).map_err(unavailable)?;
    drop(file);
    Ok(())
}

/// redb may panic over a file that was changed behind its back; for us that is a store that cannot
/// be opened.
fn guarded<T>(open: impl FnOnce() -> Result<T, OpenError>) -> Result<T, OpenError> {
    catch_unwind(AssertUnwindSafe(open))
        .unwrap_or_else(|_| Err(OpenError::Unavailable("the file is damaged".to_owned())))
}

fn unavailable(error: impl std::fmt::Display) -> OpenError {
    OpenError::Unavailable(error.to_string())
}

/// Makes an empty store beside its place and puts it there when it is complete, so that no crash
/// leaves half of one.
fn create(path: &Path) -> Result<(), OpenError> {
    let unfinished = unfinished(path);
    let made = create_at(&unfinished).and_then(|()| match fs::hard_link(&unfinished, path) {
        // Another process was faster: its file is the store then.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked.map_err(unavailable),
    });
    let _ = fs::remove_file(&unfinished);
    made?;
    // The name must be on the disk before anything in the file is acknowledged.
    sync_folder_of(path).map_err(unavailable)
}

/// Makes an empty file that no other user of this machine can read: it is to hold tenants' data.
pub(super) fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn create_at(path: &Path) -> Result<(), OpenError> {
    let _ = fs::remove_file(path);
    private_file(path).map_err(unavailable)?;
    let database = builder().create(path).map_err(database_error)?;
    prepare(&database)?;
    database.close().map_err(database_error)
}

/// Checks that a file is ours, as far as that can be seen without writing to it.
fn check_before(path: &Path) -> Result<(), OpenError> {
    if is_empty_or_redb(path)? {
        match builder().open_read_only(path) {
            Ok(database) => check_schema(&database.begin_read().map_err(unavailable)?).map(drop),
            // It was not closed, and redb makes it good only as it opens it for writing. Should it
            // then turn out to be another program's, nothing was lost: that program's redb would
            // have done the same.
            Err(DatabaseError::RepairAborted) => Ok(()),
            // An empty file, such as mktemp makes: it becomes a store.
            Err(_) if fs::metadata(path).map_err(unavailable)?.len() == 0 => Ok(()),
            Err(error) => Err(database_error(error)),
        }
    } else {
        Err(OpenError::Foreign("it is not a database of redb"))
    }
}

fn is_empty_or_redb(path: &Path) -> Result<bool, OpenError> {
    let mut magic = Vec::new();
    // Asked first: a FIFO would be waited for until another process opens it, too.
    if !fs::metadata(path).map_err(unavailable)?.is_file() {
        return Ok(false);
    }
    let file = File::open(path).map_err(unavailable)?;
    file.take(REDB_MAGIC.len() as u64).read_to_end(&mut magic).map_err(unavailable)?;
    Ok(magic.is_empty() || magic == REDB_MAGIC)
}

/// Writes the tables of a new database and those that an older one lacks, or checks that they are
/// those of this version.
pub(super) fn prepare(database: &Database) -> Result<(), OpenError> {
    let found = check_schema(&database.begin_read().map_err(unavailable)?)?;
    if found != Schema::Ours {
        let mut transaction = database.begin_write().map_err(unavailable)?;
        transaction.set_quick_repair(true);
        make_tables(&transaction).map_err(unavailable)?;
        transaction.commit().map_err(unavailable)?;
    }
    Ok(())
}

fn make_tables(transaction: &WriteTransaction) -> Result<(), TableError> {
    transaction.open_table(META)?.insert(SCHEMA_KEY, SCHEMA)?;
    transaction.open_table(STATES)?;
    transaction.open_table(KV)?;
    transaction.open_table(SCOPES)?;
    transaction.open_table(USAGE)?;
    transaction.open_table(GLOBAL)?;
    transaction.open_table(GLOBAL_USAGE)?;
    transaction.open_table(PURCHASES)?;
    transaction.open_table(TIMERS)?;
    transaction.open_table(TIMERS_DUE)?;
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Schema {
    /// A new database: no tables at all.
    Nothing,
    /// Ours, of an older version, which lacks tables.
    Older,
    /// Ours, of this version.
    Ours,
}

fn check_schema(transaction: &ReadTransaction) -> Result<Schema, OpenError> {
    let foreign = OpenError::Foreign("it is a database of another program");
    let schema = match transaction.open_table(META) {
        Ok(meta) => meta.get(SCHEMA_KEY).map_err(unavailable)?.map(|version| version.value()),
        Err(TableError::TableDoesNotExist(_)) => {
            let mut tables = transaction.list_tables().map_err(unavailable)?;
            let mut multimaps = transaction.list_multimap_tables().map_err(unavailable)?;
            let empty = tables.next().is_none() && multimaps.next().is_none();
            return if empty { Ok(Schema::Nothing) } else { Err(foreign) };
        }
        Err(TableError::Storage(error)) => return Err(unavailable(error)),
        Err(_) => return Err(foreign),
    };
    match schema {
        Some(SCHEMA) => check_tables(transaction).map(|()| Schema::Ours),
        Some(OLDEST_SCHEMA..SCHEMA) => Ok(Schema::Older),
        Some(found) if found > SCHEMA => Err(OpenError::Newer { found, known: SCHEMA }),
        _ => Err(foreign),
    }
}

/// Opens every table once, so that no operation later meets one that is missing or of another type.
fn check_tables(transaction: &ReadTransaction) -> Result<(), OpenError> {
    fn checked<T>(name: &str, opened: Result<T, TableError>) -> Result<(), OpenError> {
        match opened {
            Ok(_) => Ok(()),
            Err(TableError::Storage(error)) => Err(unavailable(error)),
            Err(error) => {
                log::error!("the store's table {name} cannot be used: {error}");
                Err(OpenError::Foreign("its tables are not those of its version"))
            }
        }
    }
    checked(STATES.name(), transaction.open_table(STATES))?;
    checked(KV.name(), transaction.open_table(KV))?;
    checked(SCOPES.name(), transaction.open_table(SCOPES))?;
    checked(USAGE.name(), transaction.open_table(USAGE))?;
    checked(GLOBAL.name(), transaction.open_table(GLOBAL))?;
    checked(GLOBAL_USAGE.name(), transaction.open_table(GLOBAL_USAGE))?;
    checked(PURCHASES.name(), transaction.open_table(PURCHASES))?;
    checked(TIMERS.name(), transaction.open_table(TIMERS))?;
    checked(TIMERS_DUE.name(), transaction.open_table(TIMERS_DUE))
}

pub(super) fn database_error(error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::Locked
        }
        DatabaseError::UpgradeRequired(_) => OpenError::Foreign("it is in an old format of redb"),
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() == ErrorKind::InvalidData =>
        {
            OpenError::Foreign("it is not a database of redb")
        }
        error => unavailable(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU64, Ordering};

    use redb::TableDefinition;

    use super::*;

    /// A folder of a test's own, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static COUNT: AtomicU64 = AtomicU64::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir()
                .join(format!("mesophyll-open-{}-{number}", std::process::id()));
            fs::create_dir(&path).expect("a new folder");
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("store.redb")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn open(path: &Path) -> Result<Database, OpenError> {
        FileSource(path.to_owned()).open()
    }

    #[test]
    fn a_new_store_is_private_and_leaves_nothing_else_behind() {
        let folder = Folder::new();
        drop(open(&folder.file()).expect("made"));
        assert_eq!(fs::read_dir(&folder.0).expect("listed").count(), 1);
        let mode = fs::metadata(folder.file()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(open(&folder.file()).expect("opened again"));
        drop(FileSource(folder.file()).reopen().expect("reopened"));
    }

    #[test]
    fn a_store_that_is_open_elsewhere_is_locked() {
        let folder = Folder::new();
        let first = open(&folder.file()).expect("made");
        assert_eq!(open(&folder.file()).err(), Some(OpenError::Locked));
        drop(first);
        assert!(open(&folder.file()).is_ok());
    }

    #[test]
    fn an_empty_file_becomes_a_store() {
        let folder = Folder::new();
        fs::write(folder.file(), "").expect("written");
        drop(open(&folder.file()).expect("made"));
        assert!(open(&folder.file()).is_ok());
    }

    #[test]
    fn a_foreign_file_is_refused_and_not_touched() {
        let folder = Folder::new();
        let texts: [&[u8]; 4] = [b"x", b"redb", b"a diary, not a database\n", &[0; 5000]];
        for text in texts {
            fs::write(folder.file(), text).expect("written");
            assert!(matches!(open(&folder.file()), Err(OpenError::Foreign(_))));
            assert_eq!(fs::read(folder.file()).expect("read"), text);
        }
    }

    #[test]
    fn the_database_of_another_program_is_refused_and_not_touched() {
        let folder = Folder::new();
        let database = Database::create(folder.file()).expect("made");
        let transaction = database.begin_write().expect("begun");
        let table: TableDefinition<'_, &str, u64> = TableDefinition::new("recipes");
        transaction.open_table(table).expect("opened").insert("salt", 1).expect("inserted");
        transaction.commit().expect("committed");
        drop(database);
        let before = fs::read(folder.file()).expect("read");
        assert!(matches!(open(&folder.file()), Err(OpenError::Foreign(_))));
        assert!(fs::read(folder.file()).expect("read") == before, "the file changed");
    }

    #[test]
    fn a_newer_store_is_refused_and_not_touched() {
        let folder = Folder::new();
        let database = open(&folder.file()).expect("made");
        let transaction = database.begin_write().expect("begun");
        transaction
            .open_table(META)
            .expect("opened")
            .insert(SCHEMA_KEY, SCHEMA + 1)
            .expect("inserted");
        transaction.commit().expect("committed");
        drop(database);
        let before = fs::read(folder.file()).expect("read");
        assert_eq!(
            open(&folder.file()).err(),
            Some(OpenError::Newer { found: SCHEMA + 1, known: SCHEMA })
        );
        assert!(fs::read(folder.file()).expect("read") == before, "the file changed");
    }

    #[test]
    fn an_older_store_gets_what_it_lacks() {
        let folder = Folder::new();
        let database = open(&folder.file()).expect("made");
        let transaction = database.begin_write().expect("begun");
        transaction.delete_table(TIMERS).expect("deleted");
        transaction.delete_table(TIMERS_DUE).expect("deleted");
        let mut meta = transaction.open_table(META).expect("opened");
        meta.insert(SCHEMA_KEY, OLDEST_SCHEMA).expect("inserted");
        drop(meta);
        transaction.commit().expect("committed");
        drop(database);
        let database = open(&folder.file()).expect("brought to this layout");
        let found = check_schema(&database.begin_read().expect("begun"));
        assert_eq!(found, Ok(Schema::Ours));
    }

    #[test]
    fn a_store_with_a_table_missing_is_refused() {
        let folder = Folder::new();
        let database = open(&folder.file()).expect("made");
        let transaction = database.begin_write().expect("begun");
        transaction.delete_table(KV).expect("deleted");
        transaction.commit().expect("committed");
        drop(database);
        assert!(matches!(open(&folder.file()), Err(OpenError::Foreign(_))));
    }

    #[test]
    fn what_is_no_file_or_cannot_be_made_is_said_so() {
        let folder = Folder::new();
        assert!(matches!(open(&folder.0), Err(OpenError::Foreign(_))));
        assert!(matches!(open(&folder.0.join("no/such/folder/x")), Err(OpenError::Unavailable(_))));
    }

    #[test]
    fn a_damaged_store_is_an_error_and_no_panic() {
        let folder = Folder::new();
        drop(open(&folder.file()).expect("made"));
        let mut bytes = fs::read(folder.file()).expect("read");
        bytes.truncate(9000);
        fs::write(folder.file(), &bytes).expect("written");
        assert!(matches!(open(&folder.file()), Err(OpenError::Unavailable(_))));
    }

    #[test]
    fn a_store_that_went_away_is_not_made_anew_when_it_is_reopened() {
        let folder = Folder::new();
        assert!(matches!(FileSource(folder.file()).reopen(), Err(OpenError::Unavailable(_))));
        assert!(!folder.file().exists());
    }
}
