//! The product's `api/`, as far as it is checked.

#[path = "../../../../src/api/admission.rs"]
mod admission;
pub mod admission_models;

/// In the place of the product's.
mod error {
    #[derive(Debug)]
    pub struct ApiError;

    pub enum Code {
        Busy,
    }

    impl ApiError {
        pub fn new(_: Code, _: String) -> Self {
            Self
        }
    }
}
