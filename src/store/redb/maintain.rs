//! What an operator does with a store's file while no master has it open: checking it, and copying
//! it.
//!
//! Deliberately no mending: redb makes good what a crash left, and a row that contradicts another
//! is a bug to be looked at. Runs on the thread of the command; the file's lock keeps a master out
//! meanwhile.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{ReadTransaction, ReadableDatabase, ReadableTableMetadata};

use super::layout::{
    GLOBAL, GLOBAL_USAGE, KV, PURCHASES, RecordRow, SCOPES, STATES, TIMERS, TIMERS_DUE, USAGE,
    parse_kv_key, scope_key, split_tenant, state_from_bytes, tenant_key,
};
use super::open::{FileSource, Source, builder, database_error, private_file};
use super::{RedbFault, global_kv, timers};
use crate::store::{OpenError, Usage, charge};
use crate::wire;
use crate::wire::data::{Scopes, Timer};
use crate::wire::pack::shape::Decode;

/// Looks at everything in a store's file and says what is wrong with it; no findings, all is well.
///
/// # Blocks
/// Until all of the file was read.
///
/// # Errors
/// It cannot be opened; see [`OpenError`].
pub fn check(path: &Path) -> Result<Vec<String>, OpenError> {
    must_be_there(path)?;
    let mut database = FileSource(path.to_owned()).open()?;
    // redb may panic over a file that was changed behind its back.
    let looked = catch_unwind(AssertUnwindSafe(|| {
        let mut findings = match database.check_integrity() {
            Ok(true) => Vec::new(),
            Ok(false) => vec!["the file was damaged, and redb mended it".to_owned()],
            Err(error) => return vec![format!("the file is damaged: {error}")],
        };
        let snapshot = database.begin_read().map_err(RedbFault::from);
        match snapshot.and_then(|snapshot| check_contents(&snapshot)) {
            Ok(found) => findings.extend(found),
            Err(fault) => findings.push(format!("the file cannot be read to its end: {fault}")),
        }
        findings
    }));
    Ok(looked.unwrap_or_else(|_| vec!["the file is damaged".to_owned()]))
}

/// Copies a store's file into one that does not exist yet: whole and synced, or not at all.
///
/// # Blocks
/// Until the copy is on the disk.
///
/// # Errors
/// The store cannot be opened, or the copy cannot be made.
pub fn backup(path: &Path, to: &Path) -> Result<(), BackupError> {
    must_be_there(path).map_err(BackupError::Open)?;
    // Makes good what a crash left, so that the copy is of a closed file.
    let database = FileSource(path.to_owned()).open().map_err(BackupError::Open)?;
    database.close().map_err(|error| BackupError::Open(database_error(error)))?;
    // Keeps writers out.
    let reading =
        builder().open_read_only(path).map_err(|error| BackupError::Open(database_error(error)))?;
    let copied = copy(path, to).map_err(BackupError::Copy);
    drop(reading);
    copied
}

/// Why there is no backup.
#[derive(Debug)]
pub enum BackupError {
    /// The store cannot be opened.
    Open(OpenError),
    /// The copy cannot be made.
    Copy(io::Error),
}

fn must_be_there(path: &Path) -> Result<(), OpenError> {
    match path.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(OpenError::Unavailable("there is no such file".to_owned())),
        Err(error) => Err(OpenError::Unavailable(error.to_string())),
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let unfinished = unfinished(to);
    let mut file = private_file(&unfinished)?;
    let copied = File::open(from)
        .and_then(|mut from| io::copy(&mut from, &mut file))
        .and_then(|_| file.sync_all())
        .and_then(|()| put_in_place(&unfinished, to));
    let _ = fs::remove_file(&unfinished);
    copied
}

/// What a file is called until it is complete; in the same folder, so that it can be put in its
/// place.
pub(super) fn unfinished(to: &Path) -> PathBuf {
    let mut unfinished = to.as_os_str().to_owned();
    unfinished.push(format!(".new-{}", std::process::id()));
    PathBuf::from(unfinished)
}

/// Gives a complete file its name, for good.
pub(super) fn put_in_place(unfinished: &Path, to: &Path) -> io::Result<()> {
    // Fails if there is a file: a backup never takes another's place.
    fs::hard_link(unfinished, to)?;
    fs::remove_file(unfinished)?;
    sync_folder_of(to)
}

/// Puts the name of a file on the disk.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// What rows say of themselves, counted by kind of finding: rows hold tenants' data, which is not
/// to be printed.
#[derive(Default)]
struct Findings(BTreeMap<&'static str, u64>);

impl Findings {
    fn check(&mut self, is_well: bool, what: &'static str) {
        if !is_well {
            *self.0.entry(what).or_default() += 1;
        }
    }
}

fn check_contents(snapshot: &ReadTransaction) -> Result<Vec<String>, RedbFault> {
    let mut findings = Findings::default();
    check_records(snapshot, &mut findings)?;
    check_entries(snapshot, &mut findings)?;
    check_timers(snapshot, &mut findings)?;
    for row in snapshot.open_table(STATES)?.range::<&[u8]>(..)? {
        let (tenant, state) = row?;
        let is_well =
            split_tenant(tenant.value()).is_ok() && state_from_bytes(state.value()).is_ok();
        findings.check(is_well, "tenant states cannot be read");
    }
    for row in snapshot.open_table(PURCHASES)?.range::<&[u8]>(..)? {
        findings.check(split_tenant(row?.0.value()).is_ok(), "purchases cannot be read");
    }
    Ok(findings.0.into_iter().map(|(what, rows)| format!("{what}: {rows}")).collect())
}

fn check_records(snapshot: &ReadTransaction, findings: &mut Findings) -> Result<(), RedbFault> {
    let mut usage = BTreeMap::<Vec<u8>, Usage>::new();
    let mut scopes = BTreeMap::<Vec<u8>, u64>::new();
    for row in snapshot.open_table(KV)?.range::<&[u8]>(..)? {
        let (row, record) = row?;
        let parsed = split_tenant(row.value()).ok().zip(parse_kv_key(row.value()).ok());
        let record = RecordRow::from_bytes(record.value()).ok();
        let (Some(((tenant, _), (key, has))), Some(record)) = (parsed, record) else {
            findings.check(false, "records cannot be read");
            continue;
        };
        findings.check(
            wire::pack::value::check(record.value.to_vec()).is_ok(),
            "records hold no value",
        );
        let has = Scopes::new(has);
        let counted = usage.entry(tenant_key(tenant).to_vec()).or_default();
        *counted = counted.with(charge(key, &has, record.value.len()));
        for scope in has.as_slice() {
            *scopes.entry(scope_key(tenant, scope)).or_default() += 1;
        }
    }
    // Of a tenant that has nothing that counts there is no row.
    usage.retain(|_, counted| *counted != Usage::default());
    let mut seen = HashSet::new();
    for row in snapshot.open_table(USAGE)?.range::<&[u8]>(..)? {
        let (tenant, kept) = row?;
        let (records, bytes) = kept.value();
        let is_well = usage.get(tenant.value()) == Some(&Usage { records, bytes });
        findings.check(
            is_well && seen.insert(tenant.value().to_vec()),
            "tenants' usage is not what their records take",
        );
    }
    findings.check(seen.len() == usage.len(), "tenants' usage is missing");
    let mut listed = 0;
    for row in snapshot.open_table(SCOPES)?.range::<&[u8]>(..)? {
        let (scope, count) = row?;
        listed += 1;
        let is_well = scopes.get(scope.value()) == Some(&count.value());
        findings.check(is_well, "scopes are counted wrongly");
    }
    findings.check(listed == scopes.len(), "scopes are missing");
    Ok(())
}

fn check_entries(snapshot: &ReadTransaction, findings: &mut Findings) -> Result<(), RedbFault> {
    let mut usage = BTreeMap::<Vec<u8>, Usage>::new();
    for row in snapshot.open_table(GLOBAL)?.range::<&[u8]>(..)? {
        match global_kv::from_bytes(row?.1.value()) {
            Ok(entry) => {
                let counted = usage.entry(global_kv::owner_row(&entry.partial)).or_default();
                *counted =
                    Usage { records: counted.records + 1, bytes: counted.bytes + entry.charge() };
            }
            Err(_) => findings.check(false, "global entries cannot be read"),
        }
    }
    let mut owners = 0;
    for row in snapshot.open_table(GLOBAL_USAGE)?.range::<&[u8]>(..)? {
        let (owner, kept) = row?;
        let (records, bytes) = kept.value();
        owners += 1;
        let is_well = usage.get(owner.value()) == Some(&Usage { records, bytes });
        findings.check(is_well, "owners' usage is not what their entries take");
    }
    findings.check(owners == usage.len(), "owners' usage is missing");
    Ok(())
}

fn check_timers(snapshot: &ReadTransaction, findings: &mut Findings) -> Result<(), RedbFault> {
    let (timers, due) = (snapshot.open_table(TIMERS)?, snapshot.open_table(TIMERS_DUE)?);
    for row in timers.range::<&[u8]>(..)? {
        let (row, timer) = row?;
        let tenant = split_tenant(row.value()).ok();
        let timer = Timer::from_bytes(timer.value()).ok();
        let Some(((tenant, _), timer)) = tenant.zip(timer) else {
            findings.check(false, "timers cannot be read");
            continue;
        };
        let place = timers::due_key(tenant, timer.due, &timer.id);
        findings.check(due.get(&place[..])?.is_some(), "timers are due at no time");
    }
    findings.check(due.len()? == timers.len()?, "times are due of no timers");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redb::RedbStore;
    use crate::store::{KvSet, Quota, Store};
    use crate::wire::data::{KhronosValue, TenantId, Timestamp};

    const TENANT: TenantId = TenantId::Guild(1);

    /// A file with one record, gone with the test.
    struct TestFile(PathBuf);

    impl TestFile {
        fn new(name: &str) -> Self {
            let file = Self(
                std::env::temp_dir()
                    .join(format!("mesophyll-maintain-{}-{name}", std::process::id())),
            );
            let store = RedbStore::open(&file.0).expect("a new store");
            let set = KvSet {
                key: "k".to_owned(),
                scopes: Scopes::new(["s"]),
                value: wire::pack::value::encode(&KhronosValue::Integer(1)),
                fresh_id: "id".to_owned(),
                now: Timestamp::from_unix_micros(1).expect("in range"),
                quota: Quota::default(),
            };
            store.kv_set(TENANT, set).expect("set");
            store.close();
            file
        }
    }

    impl Drop for TestFile {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_store_that_is_well_has_no_findings_and_its_backup_is_equal() {
        let file = TestFile::new("well");
        assert_eq!(check(&file.0), Ok(Vec::new()));
        let copy = TestFile(file.0.with_extension("copy"));
        backup(&file.0, &copy.0).expect("copied");
        assert_eq!(check(&copy.0), Ok(Vec::new()));
        let (is, was) =
            (RedbStore::open(&copy.0).expect("opened"), RedbStore::open(&file.0).expect("opened"));
        let get = |store: &RedbStore| store.kv_get(TENANT, "k", &Scopes::new(["s"])).expect("got");
        assert_eq!(get(&is), get(&was));
        assert!(get(&is).is_some());
        assert!(
            matches!(backup(&file.0, &copy.0), Err(BackupError::Open(OpenError::Locked))),
            "a master has it"
        );
        was.close();
        is.close();
        let again = backup(&file.0, &copy.0);
        let kind = |error: io::Error| error.kind();
        let Err(BackupError::Copy(error)) = again else { panic!("{again:?}") };
        assert_eq!(kind(error), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn rows_that_contradict_each_other_are_found() {
        let file = TestFile::new("contradiction");
        let database = FileSource(file.0.clone()).open().expect("opened");
        let transaction = database.begin_write().expect("begun");
        transaction
            .open_table(USAGE)
            .expect("there")
            .insert(&tenant_key(TENANT)[..], (2, 3))
            .expect("set");
        transaction
            .open_table(STATES)
            .expect("there")
            .insert(&b"\x07"[..], &b"?"[..])
            .expect("set");
        transaction.commit().expect("committed");
        drop(database);
        let expected = [
            "tenant states cannot be read: 1",
            "tenants' usage is missing: 1",
            "tenants' usage is not what their records take: 1",
        ];
        assert_eq!(check(&file.0), Ok(expected.map(str::to_owned).to_vec()));
    }

    #[test]
    fn what_is_not_there_is_not_made() {
        let path = std::env::temp_dir().join("mesophyll-maintain-nothing");
        assert!(check(&path).is_err());
        assert!(backup(&path, &path.with_extension("copy")).is_err());
        assert!(!path.exists());
    }
}
