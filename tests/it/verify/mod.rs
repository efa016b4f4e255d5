//! `verify` over a database: an honest one verifies, and whatever is changed in it is named.

mod columns;
mod cut;
mod forge;
mod honest;
mod pages;
mod story;
mod tables;
mod tamper;
