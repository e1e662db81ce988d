//! In the place of the product's: whoever looks again and again is one of many orders, and a look
//! that is followed by a sleep is all of them.

/// Looks once.
#[derive(Debug, Default)]
pub struct Spin;

impl Spin {
    pub const fn new() -> Self {
        Self
    }

    pub fn wait(&self, mut is_there: impl FnMut() -> bool) -> bool {
        is_there()
    }
}
