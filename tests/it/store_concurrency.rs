//! Many threads at one store: nothing that was acknowledged is lost, no quota is overrun, nothing
//! waits for ever. Over PostgreSQL there are two masters on one database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use mesophyll::base::error::DbError;
use mesophyll::store::{DbOptions, DbState, Quota, Standing};
use mesophyll::wire::data::{
    CreateGlobalKv, EncodedJson, GlobalKeyValueOp, Scopes, TenantId, TenantState,
};

use crate::support::Random;
use crate::support::db::{Kept, Place, Typed, text};
#[cfg(feature = "postgres")]
use crate::support::postgres::Locale;

const TENANTS: [TenantId; 2] = [TenantId::Guild(7), TenantId::User(7)];
const THREADS: u64 = 8;

/// The masters that threads take turns to ask; the embedded stores have one master only.
fn masters(kept: Kept, place: &Place, options: &DbOptions) -> Vec<Arc<DbState>> {
    let count = if matches!(kept, Kept::InMemory | Kept::InRedb) { 1 } else { 2 };
    (0..count)
        .map(|_| Arc::new(DbState::new(place.open(), options.clone()).expect("readable")))
        .collect()
}

fn scopes() -> Scopes {
    Scopes::new(["s"])
}

fn on_each_thread(masters: &[Arc<DbState>], work: impl Fn(u64, &DbState) + Sync) {
    let work = &work;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let db = &masters[thread as usize % masters.len()];
            scope.spawn(move || work(thread, db));
        }
    });
}

/// Every thread changes the same few records; each record is in the end as one of the last writes
/// left it.
fn writers_of_the_same_records_lose_nothing(kept: Kept) {
    let place = Place::new(kept);
    let masters = masters(kept, &place, &DbOptions::default());
    // The last change of each thread to each record.
    let last = Mutex::new(HashMap::<(TenantId, u64), HashMap<u64, Option<String>>>::new());
    on_each_thread(&masters, |thread, db| {
        let mut random = Random::new(thread + 1);
        for turn in 0..60 {
            let (tenant, key) = (random.one_of(&TENANTS), random.below(4));
            let value = (random.below(4) > 0)
                .then(|| format!("{thread}.{turn} {}", "x".repeat(random.below(50) as usize)));
            match &value {
                Some(value) => {
                    db.kv_set(tenant, scopes(), key.to_string(), text(value)).expect("set")
                }
                None => db.kv_delete(tenant, scopes(), key.to_string()).expect("deleted"),
            }
            last.lock().expect("a lock").entry((tenant, key)).or_default().insert(thread, value);
        }
    });
    let last = last.into_inner().expect("a lock");
    for db in &masters {
        for tenant in TENANTS {
            let mut bytes = 0;
            let found = db.kv_find(tenant, scopes(), "%").expect("found");
            for key in 0..4 {
                let is = found
                    .iter()
                    .find(|record| record.key == key.to_string())
                    .map(|record| record.value.clone());
                bytes += is.as_ref().map_or(0, |value| value.as_bytes().len() as u64 + 2);
                let may_be = &last[&(tenant, key)];
                assert!(
                    may_be.values().any(|value| value.as_deref().map(text) == is),
                    "{tenant} {key}"
                );
            }
            let usage = db.kv_usage(tenant).expect("counted");
            assert_eq!(
                (usage.records, usage.bytes),
                (found.len() as u64, bytes),
                "what is counted is what is there"
            );
        }
    }
}

/// Of many that would each fit, as many are taken as fit together.
fn a_quota_is_not_overrun_by_many_at_once(kept: Kept) {
    let place = Place::new(kept);
    let options = DbOptions { quota: Quota { records: 20, bytes: 10_000 }, ..DbOptions::default() };
    let masters = masters(kept, &place, &options);
    let taken = Mutex::new(0_u64);
    on_each_thread(&masters, |thread, db| {
        for turn in 0..10 {
            match db.kv_set(TENANTS[0], scopes(), format!("{thread}:{turn}"), text("v")) {
                Ok(()) => *taken.lock().expect("a lock") += 1,
                Err(DbError::Refused(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(*taken.lock().expect("a lock"), 20);
    assert_eq!(masters[0].kv_find(TENANTS[0], scopes(), "%").map(|found| found.len()), Ok(20));
}

/// One of many wins; states and bans of the tenants change all the while.
fn an_entry_is_made_once_by_many_at_once(kept: Kept) {
    let place = Place::new(kept);
    let masters = masters(kept, &place, &DbOptions::default());
    let made = Mutex::new(HashMap::<i32, u32>::new());
    on_each_thread(&masters, |thread, db| {
        for version in 0..10 {
            let tenant = TENANTS[thread as usize % 2];
            let entry = CreateGlobalKv {
                key: "abc".to_owned(),
                version,
                short: thread.to_string(),
                public_metadata: EncodedJson::null(),
                scope: "tags".to_owned(),
                public_data: true,
                long: None,
                data: EncodedJson::null(),
            };
            match db.global(tenant, GlobalKeyValueOp::Create { entry }) {
                Ok(()) => *made.lock().expect("a lock").entry(version).or_default() += 1,
                Err(DbError::Conflict(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
            let events = [format!("{thread}.{version}")].into();
            db.set_tenant_state(tenant, &TenantState { events, data: EncodedJson::null() })
                .expect("set");
            let standing = if version % 2 == 0 { Standing::Banned } else { Standing::Good };
            db.set_standing(tenant, standing).expect("set");
        }
    });
    let made = made.into_inner().expect("a lock");
    assert!(made.len() == 10 && made.values().all(|count| *count == 1), "{made:?}");
    if let [db] = &masters[..] {
        // What is at hand is what was stored last.
        let again = |tenant| db.tenant_state(tenant).map(|state| state.events.clone());
        let at_hand = TENANTS.map(|tenant| (again(tenant), db.standing(tenant)));
        db.close();
        if kept != Kept::InMemory {
            let db = DbState::new(place.open(), DbOptions::default()).expect("readable");
            let stored = TENANTS.map(|tenant| {
                (db.tenant_state(tenant).map(|state| state.events.clone()), db.standing(tenant))
            });
            assert_eq!(at_hand, stored);
        }
    }
}

macro_rules! every_store {
    ($($case:ident),*) => {
        $(mod $case {
            use super::*;

            #[test]
            fn in_memory() {
                super::$case(Kept::InMemory);
            }

            #[test]
            fn in_redb() {
                super::$case(Kept::InRedb);
            }

            #[cfg(feature = "postgres")]
            #[test]
            fn in_postgres() {
                let kept = Kept::Postgres(Locale::Utf8);
                if kept.is_there(concat!(stringify!($case), "::in_postgres")) {
                    super::$case(kept);
                }
            }
        })*
    };
}

every_store! {
    writers_of_the_same_records_lose_nothing,
    a_quota_is_not_overrun_by_many_at_once,
    an_entry_is_made_once_by_many_at_once
}
