//! The one integration binary: the repository's own rules, and scenarios against the real programs over HTTP.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

mod start;
mod stop;
mod tidy;
