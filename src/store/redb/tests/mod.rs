//! A disk that fails at every step.

mod faults;
