//! The product's `runtime/luau/`, as far as it is checked: without Luau.

#[path = "../../../../../src/runtime/luau/mailbox.rs"]
mod mailbox;
pub mod mailbox_models;
#[path = "../../../../../src/runtime/luau/ticker.rs"]
mod ticker;
pub mod ticker_models;

/// In the place of the product's.
mod config {
    use crate::base::thread::ThreadExit;

    #[derive(Debug, Default)]
    pub(crate) struct OnBroken;

    impl OnBroken {
        pub(super) fn watch(&self, _: &str) -> impl FnOnce(ThreadExit) + Send + use<> {
            |_| {}
        }
    }
}

/// In the place of the product's.
mod io {
    pub(super) struct IoDone;
}
