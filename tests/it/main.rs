//! The one integration binary: the repository's own rules, and scenarios against the real programs over HTTP.

mod tidy;
