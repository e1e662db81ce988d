//! PostgreSQL over TLS: what each mode checks, certificates of the master's own, and several hosts.
//! That a store does over TLS all that it does without is `store_conformance`'s.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use mesophyll::store::lease::{LeaseAsk, LeaseTold};
use mesophyll::store::{self, DbOptions, DbState, StoreUrl};
use mesophyll::wire::data::{Scopes, TenantId};
use postgres::{Client, NoTls};

use crate::support::TempDir;
use crate::support::binary::run;
use crate::support::db::{Typed, text};
use crate::support::own_postgres::Cluster;
use crate::support::postgres::{Schema, on};
use crate::support::process::{eventually, own_port};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");

fn trusting(mode: &str, ca: &str) -> String {
    format!("sslmode={mode}&sslrootcert={DATA}/{ca}.pem")
}

/// Checks how an attempt to use a store ends; an empty text: it can be used.
fn expect(url: &StoreUrl, says: &str) {
    let said = match store::migrate(url) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    assert!(
        said.contains(says) && said.is_empty() == says.is_empty(),
        "{url}: {said:?} not {says:?}"
    );
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn each_mode_checks_what_it_does_with_libpq() {
    let Some(server) = Cluster::start_secure("each_mode_checks_what_it_does_with_libpq") else {
        return;
    };
    let is_other = "no pg_hba.conf entry";
    // What the server shows; how it is asked; what is wrong.
    for (_, host, parameters, says) in [
        ("master", "localhost", String::new(), is_other),
        ("master", "localhost", "sslmode=disable".to_owned(), is_other),
        ("master", "localhost", "sslmode=require".to_owned(), ""),
        ("master", "localhost", trusting("verify-ca", "authority"), ""),
        ("master", "localhost", trusting("verify-full", "authority"), ""),
        ("master", "127.0.0.1", trusting("verify-full", "authority"), ""),
        ("master", "localhost", trusting("require", "stranger"), "UnknownIssuer"),
        ("master", "localhost", trusting("verify-ca", "stranger"), "UnknownIssuer"),
        ("master", "localhost", trusting("verify-full", "stranger"), "UnknownIssuer"),
        ("elsewhere", "localhost", "sslmode=require".to_owned(), ""),
        ("elsewhere", "localhost", trusting("require", "authority"), ""),
        ("elsewhere", "localhost", trusting("verify-ca", "authority"), ""),
        ("elsewhere", "localhost", trusting("verify-full", "authority"), "not valid for name"),
        ("expired", "localhost", "sslmode=require".to_owned(), ""),
        ("expired", "localhost", trusting("require", "authority"), "expired"),
        ("expired", "localhost", trusting("verify-full", "authority"), "expired"),
        ("untrusted", "localhost", "sslmode=require".to_owned(), ""),
        ("untrusted", "localhost", trusting("verify-full", "authority"), "UnknownIssuer"),
    ]
    .chunk_by(|one, next| one.0 == next.0)
    .flat_map(|of_one| {
        server.stop("fast");
        server.use_certificate(of_one[0].0);
        server.start();
        of_one.to_vec()
    }) {
        expect(&server.url_with("postgres:secret", host, &parameters), says);
    }
}

#[test]
fn a_server_without_tls_is_refused() {
    let Some(server) = Cluster::start_new("a_server_without_tls_is_refused") else { return };
    for parameters in ["sslmode=require".to_owned(), trusting("verify-full", "authority")] {
        expect(
            &server.url_with("postgres", "localhost", &parameters),
            "server does not support TLS",
        );
    }
    expect(&server.url_with("postgres", "localhost", "sslmode=disable"), "");
    let silent = server.url_with("postgres", "localhost", "sslmode=prefer");
    expect(&silent, "sslmode=prefer goes on in plain text");
}

#[test]
fn a_server_may_ask_for_a_certificate() {
    let Some(server) = Cluster::start_secure("a_server_may_ask_for_a_certificate") else { return };
    on(&server.local_url("postgres"), "CREATE ROLE worker SUPERUSER LOGIN");
    let folder = TempDir::new();
    let key = folder.path().join("own.key");
    let with = |certificate: &str, of_key: &str, mode: u32| {
        fs::copy(format!("{DATA}/{of_key}.key"), &key).expect("a copy");
        fs::set_permissions(&key, Permissions::from_mode(mode)).expect("its mode");
        let own = format!("sslcert={DATA}/{certificate}.pem&sslkey={}", key.display());
        let trusted = trusting("verify-full", "authority");
        server.url_with("worker:secret", "localhost", &format!("{trusted}&{own}"))
    };
    let none = server.url_with("worker:secret", "localhost", &trusting("verify-full", "authority"));
    expect(&none, "requires a valid client certificate");
    expect(&with("worker", "worker", 0o644), "own.key: others can read this key");
    expect(&with("worker", "master", 0o600), "own.key");
    expect(&with("untrusted", "untrusted", 0o600), "UnknownCA");
    expect(&with("worker-0", "worker-0", 0o600), "certificate authentication failed");
    let url = with("worker", "worker", 0o600);
    expect(&url, "");

    // What the files hold is read for each connection: certificates may be renewed.
    let store = store::open(&url).expect("opened");
    let db = DbState::new(store, DbOptions::default()).expect("a database");
    let set = || db.kv_set(TenantId::Guild(1), Scopes::new(["s"]), "k".to_owned(), text("v"));
    set().expect("set");
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'worker'";
    drop(with("worker", "untrusted", 0o600));
    on(&server.local_url("postgres"), cut);
    eventually("the key does not fit", || set().err());
    drop(with("worker", "worker", 0o600));
    eventually("the files are right again", || set().ok());
    db.close();
}

#[test]
fn all_connections_are_over_tls() {
    let Some(server) = Cluster::shared_secure("all_connections_are_over_tls") else { return };
    let schema = Schema::over_tls();
    let ended = run(&["migrate", "--store", schema.url()]);
    assert_eq!(ended.code(), 0, "{ended:?}");
    let wrong =
        schema.url().replace("authority", "stranger").replace("//postgres@", "//postgres:secret@");
    let refused = run(&["migrate", "--store", &wrong]);
    refused.expect(4, "invalid peer certificate: UnknownIssuer");
    assert!(!refused.stderr.contains("secret"), "{refused:?}");

    let opened = store::open(&schema.store_url()).expect("opened");
    let _backup = opened.export().expect("begun");
    let connect = store::coordination(&schema.store_url()).expect("a URL").expect("PostgreSQL");
    let mut masters = connect().expect("connected");
    let told = masters.ask(&LeaseAsk::Evict(Default::default()));
    assert!(matches!(told, Ok(LeaseTold::Evicted(0))), "{told:?}");
    let mut admin = Client::connect(&server.local_url("postgres"), NoTls).expect("connected");
    let count = "SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl)
         FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name ~ 'mesophyll'";
    let row = admin.query_one(count, &[]).expect("an answer");
    let (over_tls, plain): (i64, i64) = (row.get(0), row.get(1));
    assert!(over_tls >= 3 && plain == 0, "{over_tls} and {plain}");
    opened.close();
}

#[test]
fn of_several_hosts_the_first_that_takes_writes_is_used() {
    let test = "of_several_hosts_the_first_that_takes_writes_is_used";
    let Some(standby) = Cluster::start_with(test, "-c default_transaction_read_only=on") else {
        return;
    };
    let Some(primary) = Cluster::start_secure(test) else { return };
    let hosts = format!(
        "127.0.0.1:{},127.0.0.1:{},127.0.0.1:{}",
        own_port(),
        standby.port(),
        primary.port()
    );
    let url = |parameters: &str| {
        StoreUrl::Postgres(format!("postgres://postgres@{hosts}/postgres?{parameters}"))
    };
    // The one that takes none has no TLS either, so it is the first of two reasons.
    let secure = trusting("verify-full", "authority");
    expect(&url(&secure), "");
    expect(&url(&format!("{secure}&target_session_attrs=primary")), "");
    let plain = format!("127.0.0.1:{},127.0.0.1:{}", own_port(), standby.port());
    for (attrs, says) in [("any", ""), ("read-write", "database does not allow writes")] {
        let url = format!("postgres://postgres@{plain}/postgres?target_session_attrs={attrs}");
        expect(&StoreUrl::Postgres(url), says);
    }
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'tenant_kv'";
    let mut admin = Client::connect(&primary.local_url("postgres"), NoTls).expect("connected");
    let made: i64 = admin.query_one(tables, &[]).expect("an answer").get(0);
    assert_eq!(made, 1);
}
