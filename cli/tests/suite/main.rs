//! The tests.

mod token;
