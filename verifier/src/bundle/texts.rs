//! The words for people that every bundle carries. The same in each, so that they can be compared.

/// How to check a bundle without us.
pub(crate) const README: &str = include_str!("README.txt");
