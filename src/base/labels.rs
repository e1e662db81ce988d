//! Enums whose values are labels of metrics, and figures counted by two of them.

use std::marker::PhantomData;
use std::time::Duration;

use super::metrics::{Buckets, Counter, Family, Histogram};

/// An enum that the macro `labels` declares.
pub trait Label: Copy + 'static {
    /// Every value, each at the place that is its number.
    const ALL: &'static [Self];

    /// The value's name as a label.
    fn as_str(self) -> &'static str;

    /// The value's place in [`Label::ALL`].
    fn place(self) -> usize;

    /// The value of this name.
    fn of_name(name: &[u8]) -> Option<Self> {
        Self::ALL.iter().copied().find(|label| label.as_str().as_bytes() == name)
    }
}

/// Declares an enum, its `ALL` and its `as_str` from one list.
macro_rules! labels {
    ($(#[$meta:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$of])* $variant,)*
        }

        impl $name {
            /// Every value, each at the place that is its number.
            pub const ALL: [$name; [$($text),*].len()] = [$($name::$variant),*];

            /// Its name as a label.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)*
                }
            }
        }

        impl $crate::base::labels::Label for $name {
            const ALL: &'static [Self] = &$name::ALL;

            fn as_str(self) -> &'static str {
                $name::as_str(self)
            }

            fn place(self) -> usize {
                self as usize
            }
        }
    };
}

pub(crate) use labels;

/// How often what was done ended so, by outcome. Written from every thread, without locks.
#[derive(Debug)]
pub struct OutcomeCounters<O> {
    counts: Box<[Counter]>,
    labels: PhantomData<fn(O)>,
}

impl<O: Label> Default for OutcomeCounters<O> {
    fn default() -> Self {
        let counts = O::ALL.iter().map(|_| Counter::default()).collect();
        Self { counts, labels: PhantomData }
    }
}

impl<O: Label> OutcomeCounters<O> {
    /// So many more ended so.
    pub fn add(&self, outcome: O, more: u64) {
        self.counts[outcome.place()].add(more);
    }

    /// How many ended so.
    pub fn get(&self, outcome: O) -> u64 {
        self.counts[outcome.place()].get()
    }

    /// Shows each outcome as a sample of a family.
    pub fn show(&self, mut family: Family<'_>) {
        for outcome in O::ALL {
            family.sample(&[("outcome", outcome.as_str())], self.get(*outcome));
        }
    }
}

/// What was done, by kind: how often with each outcome, and how long it took, however it ended.
/// Written from every thread, without locks.
#[derive(Debug)]
pub struct Grid<K, O> {
    /// The outcomes of the first kind, then those of the next.
    counts: Box<[Counter]>,
    took: Box<[Histogram]>,
    labels: PhantomData<fn(K, O)>,
}

impl<K: Label, O: Label> Default for Grid<K, O> {
    fn default() -> Self {
        let cells = K::ALL.len() * O::ALL.len();
        Self {
            counts: (0..cells).map(|_| Counter::default()).collect(),
            took: K::ALL.iter().map(|_| Histogram::default()).collect(),
            labels: PhantomData,
        }
    }
}

impl<K: Label, O: Label> Grid<K, O> {
    /// Counts one of a kind that ended so and took so long.
    pub fn record(&self, kind: K, outcome: O, took: Duration) {
        self.counts[kind.place() * O::ALL.len() + outcome.place()].inc();
        self.took[kind.place()].observe(took);
    }

    /// How many of a kind ended so.
    pub fn count(&self, kind: K, outcome: O) -> u64 {
        self.counts[kind.place() * O::ALL.len() + outcome.place()].get()
    }

    /// How many ended.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(Counter::get).sum()
    }

    /// How long those of a kind took.
    pub fn took(&self, kind: K) -> Buckets {
        self.took[kind.place()].snapshot()
    }
}

#[cfg(test)]
#[allow(unreachable_pub)] // The macro declares enums that metrics show.
mod tests {
    use super::*;

    labels! {
        Colour {
            Red = "red",
            Green = "green",
        }
    }

    labels! {
        Size {
            Small = "small",
            Medium = "medium",
            Large = "large",
        }
    }

    #[test]
    fn labels_have_their_places_and_are_found_by_name() {
        assert!(Size::ALL.iter().enumerate().all(|(place, size)| size.place() == place));
        assert_eq!(Size::ALL.map(Size::as_str), ["small", "medium", "large"]);
        assert_eq!(Size::of_name(b"medium"), Some(Size::Medium));
        assert_eq!(Size::of_name(b"red"), None);
    }

    #[test]
    fn a_grid_counts_each_pair_of_labels_for_itself() {
        let grid = Grid::<Colour, Size>::default();
        grid.record(Colour::Red, Size::Large, Duration::from_millis(1));
        grid.record(Colour::Green, Size::Small, Duration::from_millis(1));
        grid.record(Colour::Green, Size::Small, Duration::from_millis(1));
        let counts = |colour| Size::ALL.map(|size| grid.count(colour, size));
        assert_eq!((counts(Colour::Red), counts(Colour::Green)), ([0, 0, 1], [2, 0, 0]));
        assert_eq!((grid.total(), grid.took(Colour::Green).count()), (3, 2));
    }
}
