//! Families about the store: what it was asked, and what it tells of its inside.

use crate::base::metrics::Exposition;
use crate::store::{
    DbState, EmbeddedFigures, Operation, OperationFigures, OperationResult, ServerFigures,
    StoreFigures,
};

pub(super) fn show(exposition: &mut Exposition, db: &DbState) {
    show_operations(exposition, db.operations());
    show_inside(exposition, &db.store_figures());
    exposition.one_counter(
        "mesophyll_quota_warnings_total",
        "Times that tenants were warned that most of their quota is in use.",
        Some(db.quota_warned()),
    );
    exposition.one_counter(
        "mesophyll_errors_unrecorded_total",
        "Errors of tenants that this master did not get into their last errors.",
        Some(db.unrecorded().get()),
    );
}

fn show_operations(exposition: &mut Exposition, operations: &OperationFigures) {
    let mut ended = exposition
        .counter("mesophyll_store_operations_total", "Operations of the store, by result.");
    for operation in Operation::ALL {
        for result in OperationResult::ALL {
            let labels = [("operation", operation.as_str()), ("result", result.as_str())];
            ended.sample(&labels, operations.count(operation, result));
        }
    }
    let mut took = exposition.histogram(
        "mesophyll_store_operation_duration_seconds",
        "How long operations of the store took, queues included.",
    );
    for operation in Operation::ALL {
        let buckets = operations.took(operation);
        if buckets.count() > 0 {
            took.buckets(&[("operation", operation.as_str())], &buckets);
        }
    }
}

fn show_inside(exposition: &mut Exposition, store: &StoreFigures) {
    exposition.one_gauge(
        "mesophyll_store_queue_operations",
        "Operations that wait for the store.",
        store.queue.map(|queue| queue.operations),
    );
    exposition.one_gauge(
        "mesophyll_store_queue_bytes",
        "Bytes of operations that wait or are under way.",
        store.queue.map(|queue| queue.bytes),
    );
    show_embedded(exposition, store.embedded.as_ref());
    show_server(exposition, store.server);
}

fn show_embedded(exposition: &mut Exposition, embedded: Option<&EmbeddedFigures>) {
    let mut commits = exposition.histogram(
        "mesophyll_store_commit_duration_seconds",
        "Group commits of the embedded store, until they were synced.",
    );
    if let Some(embedded) = embedded {
        commits.buckets(&[], &embedded.commits);
    }
    exposition.one_counter(
        "mesophyll_store_commit_operations_total",
        "Operations in group commits of the embedded store.",
        embedded.map(|embedded| embedded.operations),
    );
    exposition.one_counter(
        "mesophyll_store_commit_failures_total",
        "Group commits of the embedded store that failed.",
        embedded.map(|embedded| embedded.failures),
    );
    exposition.one_counter(
        "mesophyll_store_reopens_total",
        "How often the embedded store's file was opened anew after a fault.",
        embedded.map(|embedded| embedded.reopens),
    );
}

fn show_server(exposition: &mut Exposition, server: Option<ServerFigures>) {
    exposition.one_gauge(
        "mesophyll_postgres_connections",
        "Connections to PostgreSQL now.",
        server.map(|server| server.connected),
    );
    let mut connects = exposition
        .counter("mesophyll_postgres_connects_total", "Attempts to connect to PostgreSQL.");
    if let Some(server) = server {
        connects.sample(&[("result", "ok")], server.connects);
        connects.sample(&[("result", "error")], server.connect_failures);
    }
}
