//! The kinds of workers and the pool over them; and the database as the tenants of a worker reach it.

mod db;

pub use db::WorkerDb;
